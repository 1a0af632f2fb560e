// The dialogs of the label widget: its keys, the person's own settings, a report, a comment, what is agreed to.

import { MAX_TEXT, REASONS } from "./campaign.js";
import { ask } from "../lib/dialog.js";
import { answersTo } from "./view.js";
import { t, words } from "../lib/lang.js";
import { wordOf } from "./rank.js";
import { GOALS } from "./sitting.js";
import { h, session } from "../lib/studio.js";

const CLOSE = [{ key: "dialog.close", value: "", main: true }];

const kbd = (text) => h("kbd", {}, text);

/** `size`: how many pictures there are; more than two are ranked. `strength`: whether it is asked for. */
export function keysDialog(parent, size, strength) {
  const set = size > 2;
  const space = () => h("kbd", { "data-t": "key.space" });
  const shift = () => h("kbd", { "data-t": "key.shift" });
  const rows = [
    set && [Array.from({ length: size }, (_, index) => kbd(String(index + 1))), "set.keys.pick"],
    ...answersTo(set).map((answer) => [
      answer.shown.map(kbd),
      wordOf(set && answer.choice === "both_bad", `answer.${answer.choice}`),
    ]),
    strength && [[shift(), kbd("1"), kbd("2")], "keys.slightly"],
    [[kbd("Z")], wordOf(set, "keys.undo")],
    [[space()], wordOf(set, "keys.zoom")],
    [[shift(), kbd("← ↑ ↓ →")], "keys.pan"],
    [[kbd("?")], "keys.help"],
  ].filter(Boolean);
  const list = h(
    "dl",
    { class: "dd-keys" },
    rows.map(([keys, key]) => [h("dt", {}, keys), h("dd", { "data-t": key })]),
  );
  const gestures = [wordOf(set, "keys.tap"), !set && "keys.swipe", wordOf(set, "keys.pinch")]
    .filter(Boolean)
    .map((key) => h("li", { "data-t": key }));
  return ask(parent, "keys.title", [list, h("ul", { class: "dd-gestures" }, gestures)], CLOSE);
}

/**
 * `facts()`: lines about this session. Calls `renamed(name)`, `goalSet(votes)`; the language changes by itself.
 * `own`: what the person may do with their votes, [{key, act}]. `login`: {label, act}, signing in or, with `name`, out;
 * null where nobody can.
 */
export async function youDialog(parent, { facts, goal, renamed, goalSet, own, login }) {
  const name = h("input", {
    type: "text",
    class: "dd-field",
    maxlength: "60",
    placeholder: t("you.anonymous"),
    autocomplete: "nickname",
  });
  name.value = session.handle;
  name.addEventListener("change", () => renamed(name.value.trim()));
  const signedIn = login !== null && login.name !== null;
  const goals = h(
    "select",
    { class: "dd-field" },
    GOALS.map((votes) => h("option", { value: String(votes) })),
  );
  const nameGoals = () => {
    for (const option of goals.options)
      option.textContent = option.value === "0" ? t("goal.none") : t("goal.votes", { count: Number(option.value) });
  };
  nameGoals();
  goals.value = String(goal);
  goals.addEventListener("change", () => goalSet(Number(goals.value)));
  const languages = h("select", { class: "dd-field" });
  const list = h("ul", { class: "dd-facts" });
  const closed = ask(
    parent,
    "you.title",
    [
      [
        signedIn ? null : field("you.name", name),
        login && loginLine(login),
        field("goal", goals),
        field("you.language", languages),
        list,
      ],
      own.length > 0 &&
        h(
          "div",
          { class: "dd-own" },
          own.map(({ key, act }) => h("button", { type: "button", class: "dd-link", "data-t": key, onclick: act })),
        ),
      h("p", { class: "dd-note", "data-t": "you.device" }),
    ],
    CLOSE,
  );
  const showFacts = async () => list.replaceChildren(...(await facts()).map((fact) => h("li", {}, fact)));
  for (const [code, own] of await words.languages()) languages.append(h("option", { value: code, lang: code }, own));
  languages.value = words.code;
  languages.addEventListener("change", async () => {
    await words.choose(languages.value);
    nameGoals();
    showFacts();
  });
  await showFacts();
  return closed;
}

/** Of a pair, or of a `set`. Resolves to {reason, text}, or null when nothing is to be reported. */
export async function reportDialog(parent, set) {
  const reasons = REASONS.map((reason, index) =>
    h(
      "label",
      { class: "dd-choice" },
      h("input", { type: "radio", name: "reason", value: reason, checked: index === 0 }),
      h("span", { "data-t": `report.${reason}` }),
    ),
  );
  const text = h("textarea", { class: "dd-field", rows: "3", maxlength: String(MAX_TEXT) });
  const content = [
    h("fieldset", { class: "dd-choices" }, h("legend", { "data-t": "report.why" }), reasons),
    field("report.text", text),
  ];
  const closed = await ask(parent, wordOf(set, "report.title"), content, [
    cancel,
    { key: "report.send", value: "send", main: true },
  ]);
  if (closed !== "send") return null;
  return { reason: REASONS[reasons.findIndex((reason) => reason.firstElementChild.checked)], text: text.value.trim() };
}

const cancel = { key: "dialog.cancel", value: "" };

/** Resolves to the comment as it is to be, also when it was not changed. */
export async function commentDialog(parent, before, set) {
  const text = h("textarea", { class: "dd-field", rows: "4", maxlength: String(MAX_TEXT) });
  text.value = before;
  const closed = await ask(
    parent,
    wordOf(set, "comment.title"),
    [field("comment.text", text)],
    [cancel, { key: "comment.keep", value: "keep", main: true }],
  );
  return closed === "keep" ? text.value.trim() : before;
}

/** Resolves to whether the text was agreed to. The text is the campaign's own, in whatever language it wrote it. */
export async function consentDialog(parent, text) {
  const content = h("div", { class: "dd-consent", tabindex: "0", dir: "auto", role: "document" }, text);
  const closed = await ask(
    parent,
    "consent.title",
    [content],
    [
      { key: "consent.later", value: "" },
      { key: "consent.agree", value: "agree", main: true },
    ],
  );
  return closed === "agree";
}

/** Resolves to whether all votes are to be withdrawn. */
export async function withdrawDialog(parent) {
  const content = h("p", { class: "dd-text", "data-t": "withdraw.sure" });
  return (
    (await ask(parent, "withdraw", content, [cancel, { key: "withdraw", value: "withdraw", main: true }])) ===
    "withdraw"
  );
}

/** Who signed in and a way out, or a way in. Either closes the dialog it is in. */
function loginLine({ label, name, act }) {
  const onclick = (event) => {
    event.currentTarget.closest("dialog").close();
    act();
  };
  const words = name === null ? t("login.with", { label }) : t("login.out");
  const button = h("button", { type: "button", class: name === null ? "st-button" : "dd-link", onclick }, words);
  return h(
    "div",
    { class: "dd-login" },
    name !== null && h("span", {}, t("login.as", { name: name || label })),
    button,
  );
}

function field(key, input) {
  return h("label", { class: "dd-line" }, h("span", { "data-t": key }), input);
}
