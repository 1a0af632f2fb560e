// @ts-check
// The dialogs of the label widget: its keys, the person's own settings, a report, a comment, consent.

import { openDialog } from "../lib/dialog.js";
import { h } from "../lib/dom.js";
import { t, words } from "../lib/lang.js";
import { session } from "../lib/session.js";
import { isLasting } from "../lib/storage.js";
import { MAX_TEXT, REASONS } from "./campaign.js";
import { choicesFor } from "./keys.js";
import { textKey } from "./rank.js";
import { GOALS } from "./session-stats.js";

/** @import { Action } from "../lib/dialog.js" */
/** @import { Child } from "../lib/dom.js" */
/** @import { ReportReason } from "./campaign.js" */

/**
 * @typedef {{ label: string, name: string | null, act: () => void }} LoginOffer signing in or, with `name`, out
 *
 * @typedef {object} PersonalSettings
 * @property {() => Promise<string[]>} facts lines about this session
 * @property {number} goal
 * @property {(name: string) => void} renamed
 * @property {(votes: number) => void} goalSet
 * @property {Array<{ key: string, act: () => void }>} actions whatever a person may do with their votes
 * @property {LoginOffer | null} login null where nobody can
 */

/** @type {Action[]} */
const CLOSE = [{ key: "dialog.close", value: "", main: true }];
/** @type {Action} */
const CANCEL = { key: "dialog.cancel", value: "" };

/** @param {string} text */
const kbd = (text) => h("kbd", {}, text);

/**
 * @param {HTMLElement} parent
 * @param {number} size how many images there are; more than two are ranked
 * @param {boolean} asksStrength
 */
export function openKeys(parent, size, asksStrength) {
  const set = size > 2;
  const keys = keyRows(size, asksStrength).flatMap(([shown, key]) => [h("dt", {}, shown), h("dd", { "data-t": key })]);
  const gestures = [textKey(set, "keys.tap"), ...(set ? [] : ["keys.swipe"]), textKey(set, "keys.pinch")];
  const content = [
    h("dl", { class: "dd-keys" }, keys),
    h(
      "ul",
      { class: "dd-gestures" },
      gestures.map((key) => h("li", { "data-t": key })),
    ),
  ];
  return openDialog(parent, "keys.title", content, CLOSE);
}

/**
 * @param {number} size
 * @param {boolean} asksStrength
 * @returns {Array<[shown: HTMLElement[], key: string]>}
 */
function keyRows(size, asksStrength) {
  const set = size > 2;
  const space = h("kbd", { "data-t": "key.space" });
  const shift = () => h("kbd", { "data-t": "key.shift" });
  const numbers = Array.from({ length: size }, (_, index) => kbd(String(index + 1)));
  /** @type {Array<[HTMLElement[], string]>} */
  const choices = choicesFor(set).map(({ shown, choice }) => [
    shown.map(kbd),
    textKey(set && choice === "both_bad", `choice.${choice}`),
  ]);
  return [
    ...(set ? [/** @type {[HTMLElement[], string]} */ ([numbers, "set.keys.pick"])] : []),
    ...choices,
    ...(asksStrength
      ? [/** @type {[HTMLElement[], string]} */ ([[shift(), kbd("1"), kbd("2")], "keys.slightly"])]
      : []),
    [[kbd("Z")], textKey(set, "keys.undo")],
    [[space], textKey(set, "keys.zoom")],
    [[shift(), kbd("← ↑ ↓ →")], "keys.pan"],
    [[kbd("?")], "keys.help"],
  ];
}

/**
 * The language changes by itself here; of all else the callbacks hear.
 *
 * @param {HTMLElement} parent
 * @param {PersonalSettings} settings
 */
export async function openPersonalSettings(parent, { facts, goal, renamed, goalSet, actions, login }) {
  const list = h("ul", { class: "dd-facts" });
  const showFacts = async () => list.replaceChildren(...(await facts()).map((fact) => h("li", {}, fact)));
  const goals = goalField(goal, goalSet);
  const languages = h("select", { class: "dd-field" });
  const isSignedIn = login !== null && login.name !== null;
  const buttons = actions.map(({ key, act }) =>
    h("button", { type: "button", class: "dd-link", "data-t": key, onclick: act }),
  );
  const content = [
    !isSignedIn && labelled("you.name", nameField(renamed)),
    login && loginLine(login),
    labelled("goal", goals.element),
    labelled("you.language", languages),
    list,
    buttons.length > 0 && h("div", { class: "dd-own" }, buttons),
    h("p", { class: "dd-note", "data-t": isLasting ? "you.device" : "storage.forgets" }),
  ];
  const closed = openDialog(parent, "you.title", content, CLOSE);
  for (const [code, name] of await words.languages()) languages.append(h("option", { value: code, lang: code }, name));
  languages.value = words.code;
  languages.addEventListener("change", async () => {
    await words.choose(languages.value);
    goals.showTexts();
    showFacts();
  });
  await showFacts();
  return closed;
}

/** @param {(name: string) => void} renamed */
function nameField(renamed) {
  const name = h("input", {
    type: "text",
    class: "dd-field",
    maxlength: "64",
    placeholder: t("you.anonymous"),
    autocomplete: "nickname",
  });
  name.value = session.handle;
  name.addEventListener("change", () => renamed(name.value.trim()));
  return name;
}

/**
 * @param {number} goal
 * @param {(votes: number) => void} goalSet
 */
function goalField(goal, goalSet) {
  const options = GOALS.map((votes) => h("option", { value: String(votes) }));
  const element = h("select", { class: "dd-field" }, options);
  const showTexts = () =>
    options.forEach((option, index) => {
      option.textContent = GOALS[index] === 0 ? t("goal.none") : t("goal.votes", { count: GOALS[index] });
    });
  showTexts();
  element.value = String(goal);
  element.addEventListener("change", () => goalSet(Number(element.value)));
  return { element, showTexts };
}

/**
 * Of a pair, or of a `set`. Resolves to null when nothing is to be reported.
 *
 * @param {HTMLElement} parent
 * @param {boolean} set
 * @returns {Promise<{ reason: ReportReason, text: string } | null>}
 */
export async function askReport(parent, set) {
  const radios = REASONS.map((reason, index) =>
    h("input", { type: "radio", name: "reason", value: reason, checked: index === 0 }),
  );
  const choices = radios.map((radio, index) =>
    h("label", { class: "dd-choice" }, radio, h("span", { "data-t": `report.${REASONS[index]}` })),
  );
  const text = h("textarea", { class: "dd-field", rows: "3", maxlength: String(MAX_TEXT) });
  const content = [
    h("fieldset", { class: "dd-choices" }, h("legend", { "data-t": "report.why" }), choices),
    labelled("report.text", text),
  ];
  const actions = [CANCEL, { key: "report.send", value: "send", main: true }];
  const closedBy = await openDialog(parent, textKey(set, "report.title"), content, actions);
  if (closedBy !== "send") return null;
  return { reason: REASONS[radios.findIndex((radio) => radio.checked)], text: text.value.trim() };
}

/**
 * Resolves to the comment as it is to be, also when it was not changed.
 *
 * @param {HTMLElement} parent
 * @param {string} before
 * @param {boolean} set
 */
export async function askComment(parent, before, set) {
  const text = h("textarea", { class: "dd-field", rows: "4", maxlength: String(MAX_TEXT) });
  text.value = before;
  const actions = [CANCEL, { key: "comment.keep", value: "keep", main: true }];
  const closedBy = await openDialog(parent, textKey(set, "comment.title"), labelled("comment.text", text), actions);
  return closedBy === "keep" ? text.value.trim() : before;
}

/**
 * Resolves to whether the text was agreed to. The text is the campaign's own, in the language that it was written in.
 *
 * @param {HTMLElement} parent
 * @param {string} text
 */
export async function askConsent(parent, text) {
  const content = h("div", { class: "dd-consent", tabindex: "0", dir: "auto", role: "document" }, text);
  const closedBy = await openDialog(parent, "consent.title", content, [
    { key: "consent.later", value: "" },
    { key: "consent.agree", value: "agree", main: true },
  ]);
  return closedBy === "agree";
}

/**
 * Resolves to whether all votes are to be withdrawn.
 *
 * @param {HTMLElement} parent
 */
export async function askWithdrawal(parent) {
  const content = h("p", { class: "dd-text", "data-t": "withdraw.sure" });
  const actions = [CANCEL, { key: "withdraw", value: "withdraw", main: true }];
  return (await openDialog(parent, "withdraw", content, actions)) === "withdraw";
}

/**
 * The name of whoever signed in and a way out, or a way in. Either closes the dialog it is in.
 *
 * @param {LoginOffer} offer
 */
function loginLine({ label, name, act }) {
  /** @type {HTMLButtonElement} */
  const button = h(
    "button",
    {
      type: "button",
      class: name === null ? "st-button" : "dd-link",
      onclick: () => {
        button.closest("dialog")?.close();
        act();
      },
    },
    name === null ? t("login.with", { label }) : t("login.out"),
  );
  return h(
    "div",
    { class: "dd-login" },
    name !== null && h("span", {}, t("login.as", { name: name || label })),
    button,
  );
}

/**
 * @param {string} key
 * @param {Child} input
 */
const labelled = (key, input) => h("label", { class: "dd-line" }, h("span", { "data-t": key }), input);
