// @ts-check
// Signing in, without cookies: in a window of its own, whose result comes back by a message of this origin, or by a code
// that the window shows and that one types here. What makes a code a session, the ticket, never leaves this page.

import { setAdminToken } from "./admin-token.js";
import { api } from "./api.js";
import { openDialog } from "./dialog.js";
import { h } from "./dom.js";
import { session } from "./session.js";

/** @import { Answer } from "./types.js" */

const KIND = "dmpo-login";
const WINDOW = "popup,width=520,height=720";

/** @type {Promise<Answer<"GET login">> | null} */
let offer = null;

/** Whether one can and has to sign in, and with whom. */
export function loginOffer() {
  offer ??= api("GET login").catch((error) => {
    offer = null;
    throw error;
  });
  return offer;
}

/**
 * Sign in; call it while a click is handled. Resolves to whether somebody did; rejects with ApiError.
 *
 * @param {HTMLElement} parent
 */
export async function signIn(parent) {
  // Opened before anything is waited for: browsers open windows for a click only.
  const popup = window.open("", "_blank", WINDOW);
  let attempt;
  try {
    attempt = await api("POST login");
  } catch (error) {
    popup?.close();
    throw error;
  }
  popup?.location.replace(attempt.url);
  const code = await codeFromWindow(parent, attempt);
  if (code === "") return false;
  const body = { ticket: attempt.ticket, code };
  const answer = await api("POST login/session", { body, token: session.storedToken });
  session.signIn(answer.token, answer.name);
  setAdminToken(answer.administrator ?? "");
  return true;
}

/** Be nobody in particular again. Votes stay with whoever cast them. */
export function signOut() {
  session.forget();
  setAdminToken("");
}

/**
 * The code of the window that came back, however it gets here; "" when it is not waited for any more.
 *
 * @param {HTMLElement} parent
 * @param {Answer<"POST login">} attempt
 */
async function codeFromWindow(parent, { url, way }) {
  const field = h("input", {
    type: "text",
    class: "dd-field",
    maxlength: "20",
    autocomplete: "off",
    spellcheck: "false",
  });
  const content = [
    h("p", { class: "dd-text", "data-t": "login.window" }),
    h("a", { class: "dd-link", href: url, target: "_blank", rel: "opener", "data-t": "login.open" }),
    h("label", { class: "dd-line" }, h("span", { "data-t": "login.code" }), field),
  ];
  /** Whether this is the message that is waited for. @param {any} data */
  const accept = (data) => {
    if (data?.kind !== KIND || data.way !== way || typeof data.code !== "string" || !field.form) return false;
    field.value = data.code;
    field.form.requestSubmit(field.form.querySelector('[value="use"]'));
    return true;
  };
  const listening = new AbortController();
  const { signal } = listening;
  const receipt = { kind: `${KIND}-taken`, way };
  const fromWindow = (/** @type {MessageEvent} */ event) => {
    if (event.origin !== location.origin || !accept(event.data)) return;
    event.source?.postMessage(receipt, { targetOrigin: location.origin });
  };
  addEventListener("message", fromWindow, { signal });
  const channel = openChannel();
  channel?.addEventListener("message", (event) => accept(event.data) && channel.postMessage(receipt), { signal });
  try {
    const closedBy = await openDialog(parent, "login.title", content, [
      { key: "dialog.cancel", value: "" },
      { key: "login.use", value: "use", main: true },
    ]);
    return closedBy === "use" ? field.value.trim() : "";
  } finally {
    listening.abort();
    channel?.close();
  }
}

/** To windows of this origin, where the browser lets a frame have that. */
function openChannel() {
  try {
    return new BroadcastChannel(KIND);
  } catch {
    return null;
  }
}
