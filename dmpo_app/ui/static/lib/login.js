// Signing in, without cookies: in a window of its own, whose result comes back by a message of this origin, or by a code
// that the window shows and that one types here. What makes a code a session, the ticket, never leaves this page.

import { setAdminToken } from "./admin-token.js";
import { ask } from "./dialog.js";
import { api, h, session } from "./studio.js";

const KIND = "dmpo-login";
const WINDOW = "popup,width=520,height=720";

let known = null;

/** Whether one can and has to sign in, and with whom: {available, needed, label}. */
export function aboutLogin() {
  known ??= api("GET", "login").catch((error) => {
    known = null;
    throw error;
  });
  return known;
}

/** Sign in; call it while a click is handled. Resolves to whether somebody did; rejects with ApiError. */
export async function signIn(parent) {
  // Opened before anything is waited for: browsers open windows for a click only.
  const opened = window.open("", "_blank", WINDOW);
  let begun;
  try {
    begun = await api("POST", "login");
  } catch (error) {
    opened?.close();
    throw error;
  }
  opened?.location.replace(begun.url);
  const code = await codeOf(parent, begun);
  if (code === "") return false;
  const answer = await api("POST", "login/session", { body: { ticket: begun.ticket, code }, token: session.kept });
  session.signIn(answer.token, answer.name);
  setAdminToken(answer.administrator ?? "");
  return true;
}

/** Be nobody in particular again. What was voted stays with who voted. */
export function signOut() {
  session.forget();
  setAdminToken("");
}

/** The code of the window that came back, however it gets here; "" when it is not waited for any more. */
async function codeOf(parent, { url, way }) {
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
  const came = (data) => {
    if (data?.kind !== KIND || data.way !== way || typeof data.code !== "string" || !field.form) return false;
    field.value = data.code;
    field.form.requestSubmit(field.form.querySelector('[value="use"]'));
    return true;
  };
  const listening = new AbortController();
  const { signal } = listening;
  const taken = { kind: `${KIND}-taken`, way };
  const fromWindow = (event) =>
    event.origin === location.origin && came(event.data) && event.source?.postMessage(taken, location.origin);
  addEventListener("message", fromWindow, { signal });
  const channel = openChannel();
  channel?.addEventListener("message", (event) => came(event.data) && channel.postMessage(taken), { signal });
  try {
    const closed = await ask(parent, "login.title", content, [
      { key: "dialog.cancel", value: "" },
      { key: "login.use", value: "use", main: true },
    ]);
    return closed === "use" ? field.value.trim() : "";
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
