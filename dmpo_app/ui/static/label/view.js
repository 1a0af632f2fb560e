// @ts-check
// The look of the label widget: builds its elements, all of which have their place before the first pair is there.

import { find, h } from "../lib/dom.js";
import { fillTexts, markLanguage, t, words } from "../lib/lang.js";
import { RoundCard } from "../lib/round-card.js";
import { isLasting } from "../lib/storage.js";
import { CHOICES, choicesFor, SIDES } from "./keys.js";
import { paceText } from "./messages.js";
import { isSet, placeText, textKey } from "./rank.js";

/** @import { AssignmentKind, Choice, Pair, Side, Strength } from "../lib/types.js" */
/** @import { ChoiceKeys } from "./keys.js" */
/** @import { SessionStats } from "./session-stats.js" */
/** @import { InputKind } from "./voting-session.js" */

/**
 * @typedef {object} Handlers
 * @property {(choice: Choice, by: InputKind) => void} choose
 * @property {(index: number, by: InputKind) => void} chooseImage
 * @property {(strength: Strength | null) => void} answerStrength
 * @property {() => void} undo
 * @property {() => void} zoom
 * @property {() => void} report
 * @property {() => void} comment
 * @property {() => void} consent
 * @property {() => void} login
 * @property {() => void} keys
 * @property {() => void} judge
 * @property {() => void} personalSettings
 */

const LETTERS = ["A", "B"];
const MOST_IMAGES = 4;
const MOST_TOASTS = 3;
const TOAST_MS = 14000;
/** @type {Strength[]} */
const STRENGTHS = ["slightly", "clearly"];

export class LabelView {
  /** How many images there is place for. */
  size = 0;
  /** @type {AssignmentKind} */
  #kind = "label";

  /**
   * @param {HTMLElement} root
   * @param {Handlers} handlers
   */
  constructor(root, handlers) {
    this.root = root;
    this.handlers = handlers;
    this.question = h("p", { class: "dl-question" });
    this.prompt = h("p", { class: "dl-prompt", dir: "auto" });
    this.consentButton = smallButton("consent.read", handlers.consent);
    this.loginButton = smallButton("login.in", handlers.login);
    this.frames = Array.from({ length: MOST_IMAGES }, (_, index) => new Frame(index, handlers.chooseImage));
    this.pair = h("div", { class: "dl-pair" });
    this.buttons = CHOICES.map((row) => this.#choiceButton(row));
    this.choices = h("div", { class: "dl-choices", role: "group", "data-t-label": "choices" }, this.buttons);
    this.strengthQuestion = h("p", { class: "dl-how" });
    this.strengths = this.#strengthButtons();
    this.undoButton = tool("undo", "↶", handlers.undo, "Z");
    this.zoomButton = tool("zoom", "⤢", handlers.zoom);
    this.reportButton = tool("report", "⚑", handlers.report);
    this.commentButton = tool("comment", "✎", handlers.comment);
    this.judgeButton = tool("judge", "⚖", handlers.judge);
    this.zoomButton.setAttribute("aria-pressed", "false");
    this.reportButton.hidden = this.commentButton.hidden = true;
    this.saving = h("span", { class: "dl-saving", role: "status" });
    this.goalFill = h("span", { class: "dl-goal-fill" });
    this.goal = h("span", { class: "dl-goal" });
    this.goalBar = h("span", { class: "dl-goal-bar", "aria-hidden": "true" }, this.goalFill);
    this.middle = h("span", { class: "dl-middle" }, this.saving, this.goal, this.goalBar);
    this.name = h("span", { class: "dl-who-name" });
    this.announcement = h("span", { class: "dl-hidden", role: "status", "aria-live": "polite" });
    this.card = new RoundCard(words);
    this.toasts = h("div", { class: "dl-toasts", role: "status", "aria-live": "polite" });
    root.replaceChildren(
      h("div", { class: "dl-ask" }, this.question, this.prompt, this.consentButton, this.loginButton),
      this.pair,
      this.choices,
      this.strengths,
      this.#foot(),
      this.card.element,
      h("p", { class: "dl-forgets", hidden: isLasting, "data-t": "storage.forgets" }),
      this.announcement,
    );
    this.arrange(Number(root.dataset.images) || 2);
    this.retext();
  }

  #foot() {
    const { keys, personalSettings } = this.handlers;
    const gear = h("span", { "aria-hidden": "true" }, "⚙");
    const attributes = { type: "button", class: "dl-quiet dl-you", onmousedown: keepFocus, onclick: personalSettings };
    return h(
      "div",
      { class: "dl-foot" },
      [
        this.undoButton,
        this.zoomButton,
        this.reportButton,
        this.commentButton,
        this.judgeButton,
        tool("keys", "?", keys),
      ],
      this.middle,
      h("button", attributes, this.name, gear),
    );
  }

  /** @param {ChoiceKeys} row */
  #choiceButton({ choice, hint, main }) {
    return h(
      "button",
      {
        type: "button",
        class: `dl-choice dl-${choice}${main ? " dl-main" : ""}`,
        "data-choice": choice,
        "aria-keyshortcuts": hint,
        onmousedown: keepFocus,
        onclick: (event) => this.handlers.choose(choice, inputKind(event)),
      },
      h("span", { "data-t": `choice.${choice}` }),
      h("kbd", { "aria-hidden": "true" }, hint),
    );
  }

  #strengthButtons() {
    const { answerStrength } = this.handlers;
    const back = { type: "button", class: "dl-choice", onmousedown: keepFocus, onclick: () => answerStrength(null) };
    return h(
      "div",
      { class: "dl-choices dl-strengths", role: "group", hidden: true },
      this.strengthQuestion,
      STRENGTHS.map((strength) =>
        h(
          "button",
          {
            type: "button",
            class: "dl-choice dl-main",
            "data-strength": strength,
            onmousedown: keepFocus,
            onclick: () => answerStrength(strength),
          },
          h("span", { "data-t": `strength.${strength}` }),
        ),
      ),
      h("button", back, h("span", { "data-t": "strength.back" })),
    );
  }

  /**
   * Make place for so many images: two to choose from, more to rank.
   *
   * @param {number} size
   */
  arrange(size) {
    if (this.size === size) return;
    this.size = size;
    this.root.dataset.images = String(size);
    this.pair.replaceChildren(...this.frames.slice(0, size).map((frame) => frame.element));
    const set = size > 2;
    for (const frame of this.frames) frame.setLetter(set ? String(frame.index + 1) : LETTERS[frame.index]);
    const choices = choicesFor(set).map(({ choice }) => choice);
    this.buttons.forEach((button, index) => {
      const { choice } = CHOICES[index];
      button.hidden = !choices.includes(choice);
      if (choice === "both_bad") find(button, "span").setAttribute("data-t", textKey(set, "choice.both_bad"));
    });
    fillTexts(this.choices);
  }

  /** All texts that do not change with the pair, in the language of now. */
  retext() {
    fillTexts(this.root);
    markLanguage(this.root);
    markLanguage(this.toasts);
  }

  /**
   * What is voted on: pairs, or duels alone.
   *
   * @param {AssignmentKind} kind
   */
  showKind(kind) {
    this.#kind = kind;
    this.judgeButton.setAttribute("aria-pressed", String(kind === "duels"));
  }

  /**
   * @param {Pair} pair
   * @param {boolean} canUndo
   */
  showPair(pair, canUndo) {
    const set = isSet(pair);
    const { question, comment } = pair.options;
    this.arrange(pair.images.length);
    const isOfVersions = this.#kind === "duels" && question === "overall";
    this.question.textContent = t(isOfVersions ? "question.duel" : textKey(set, `question.${question}`));
    this.question.classList.toggle("dl-special", question !== "overall");
    this.prompt.textContent = pair.prompt;
    this.prompt.title = pair.prompt;
    for (const frame of this.frames.slice(0, this.size)) frame.show(pair);
    this.commentButton.hidden = !comment;
    this.commentButton.classList.toggle("dl-noted", Boolean(pair.comment));
    this.#setBusy(false, canUndo);
  }

  /**
   * Nothing to vote on right now.
   *
   * @param {string} reason
   * @param {boolean} canUndo
   */
  showWaiting(reason, canUndo) {
    this.question.textContent = t(
      this.#kind === "duels" ? "question.duel" : textKey(this.size > 2, "question.overall"),
    );
    this.prompt.textContent = reason;
    for (const frame of this.frames) frame.clear();
    this.#setBusy(true, canUndo);
  }

  /**
   * @param {boolean} busy
   * @param {boolean} canUndo
   */
  #setBusy(busy, canUndo) {
    this.pair.setAttribute("aria-busy", String(busy));
    for (const frame of this.frames) frame.setBusy(busy);
    const buttons = [...this.buttons, this.zoomButton, this.reportButton, this.commentButton];
    for (const button of buttons) button.disabled = busy;
    this.undoButton.disabled = !canUndo;
  }

  /**
   * Ask how much better `side` is in place of the choices; null: the choices again. The focus goes along.
   *
   * @param {Side | null} side
   */
  askStrength(side) {
    const isOpen = side !== null;
    if (isOpen) {
      this.strengthQuestion.textContent = t(`strength.ask_${side}`);
      this.strengths.setAttribute("aria-label", this.strengthQuestion.textContent);
    }
    if (this.strengths.hidden !== isOpen) return; // it is as it is to be
    const hadFocus = (isOpen ? this.root : this.strengths).contains(document.activeElement);
    this.choices.hidden = isOpen;
    this.strengths.hidden = !isOpen;
    if (hadFocus) (isOpen ? find(this.strengths, "button") : this.buttons[0]).focus();
  }

  /**
   * A short sign over the images with these numbers, from 0, that the vote was taken.
   *
   * @param {number[]} indices
   */
  flash(indices) {
    for (const index of indices) this.frames[index].flash();
  }

  /**
   * The votes of this session so far, and the goal.
   *
   * @param {SessionStats} stats
   */
  showGoal({ goal, count, medianSeconds }) {
    this.middle.classList.toggle("dl-aims", goal > 0);
    if (goal === 0) {
      this.goal.textContent = "";
      return;
    }
    const text = count < goal ? t("goal.of", { count, goal }) : t("goal.done", { count });
    const pace = medianSeconds === null ? "" : ` · ${paceText(medianSeconds)}`;
    this.goal.replaceChildren(text, h("span", { class: "dl-pace" }, pace));
    this.goalFill.style.width = `${Math.min(100, (100 * count) / goal)}%`;
  }

  /**
   * @param {string} text
   * @param {boolean} isTrouble
   */
  showSaving(text, isTrouble) {
    this.saving.textContent = text;
    this.saving.classList.toggle("dl-trouble", isTrouble);
    this.goal.hidden = text !== "";
  }

  /** @param {string} name */
  showName(name) {
    this.name.textContent = t("you", { name: name || t("you.anonymous") });
  }

  /**
   * Say it to a screen reader.
   *
   * @param {string} text
   */
  announce(text) {
    this.announcement.textContent = text;
  }

  /**
   * @param {string} text
   * @param {{ text: string, act: () => void } | null} link
   */
  toast(text, link = null) {
    const close = () => void toast.remove();
    const follow = () => {
      close();
      link?.act();
    };
    /** @type {HTMLDivElement} */
    const toast = h(
      "div",
      { class: "dl-toast" },
      h("span", {}, text),
      link && h("button", { type: "button", class: "dl-link", onclick: follow }, link.text),
      h("button", { type: "button", class: "dl-close", "aria-label": t("toast.dismiss"), onclick: close }, "×"),
    );
    this.toasts.append(toast);
    while (this.toasts.children.length > MOST_TOASTS) this.toasts.firstChild?.remove();
    setTimeout(close, TOAST_MS);
  }
}

/** The place of one image: a button as large as it. */
class Frame {
  #image = h("span", { class: "dl-image" });
  #letter = h("span", { class: "dl-letter", "aria-hidden": "true" });
  #place = h("span", { class: "dl-place", "aria-hidden": "true" });

  /**
   * @param {number} index
   * @param {Handlers["chooseImage"]} chooseImage
   */
  constructor(index, chooseImage) {
    this.index = index;
    this.element = h(
      "button",
      {
        type: "button",
        class: "dl-frame dl-loading",
        "data-choice": SIDES[index],
        onmousedown: keepFocus,
        onclick: (event) => chooseImage(index, inputKind(event)),
      },
      this.#image,
      this.#letter,
      this.#place,
      h("span", { class: "dl-tick", "aria-hidden": "true" }, "✓"),
    );
  }

  /** @param {string} letter */
  setLetter(letter) {
    this.#letter.textContent = letter;
  }

  /** @param {Pair} pair */
  show(pair) {
    const image = pair.images[this.index];
    if (this.#image.firstElementChild !== image) this.#image.replaceChildren(image);
    if (isSet(pair)) this.#showPlace(pair);
    else {
      const label = t("image.choose", { letter: LETTERS[this.index], prompt: pair.prompt });
      this.element.setAttribute("aria-label", label);
      this.element.removeAttribute("aria-disabled");
      this.element.classList.remove("dl-placed");
    }
  }

  /**
   * The place that the image of a set has so far.
   *
   * @param {Pair} set
   */
  #showPlace({ picks = [], prompt }) {
    const place = picks.indexOf(this.index);
    const isPlaced = place >= 0;
    this.element.classList.toggle("dl-placed", isPlaced);
    this.#place.textContent = isPlaced ? t(`place.short.${place + 1}`) : "";
    const label = isPlaced ? placeText(this.index, place) : t("set.unplaced", { number: this.index + 1, prompt });
    this.element.setAttribute("aria-label", label);
    this.element.setAttribute("aria-disabled", String(isPlaced));
  }

  clear() {
    this.#image.replaceChildren();
    this.element.classList.remove("dl-placed");
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    this.element.disabled = busy;
    this.element.classList.toggle("dl-loading", busy);
  }

  flash() {
    this.element.classList.remove("dl-chosen");
    void this.element.offsetWidth; // restarts the animation
    this.element.classList.add("dl-chosen");
  }
}

/**
 * @param {string} key of its text
 * @param {() => void} onclick
 */
const smallButton = (key, onclick) =>
  h("button", { type: "button", class: "st-button dl-consent", hidden: true, "data-t": key, onclick });

/**
 * A button in the line below the choices.
 *
 * @param {string} key of its text
 * @param {string} sign
 * @param {() => void} onclick
 * @param {string | null} hint
 */
const tool = (key, sign, onclick, hint = null) =>
  h(
    "button",
    {
      type: "button",
      class: `dl-quiet dl-${key}`,
      "aria-keyshortcuts": hint,
      "data-t-label": key,
      "data-t-title": key,
      onmousedown: keepFocus,
      onclick,
    },
    h("span", { "aria-hidden": "true" }, sign),
    h("span", { class: "dl-tool-name", "aria-hidden": "true", "data-t": key }),
    hint && h("kbd", { "aria-hidden": "true" }, hint),
  );

/**
 * Tells a click of a finger or the mouse from one by a key or an assistive tool.
 *
 * @param {MouseEvent} event
 * @returns {InputKind}
 */
const inputKind = (event) => (event.detail > 0 ? "click" : "press");

/**
 * A button that was clicked does not take the focus, so that Space and the other keys go on meaning what they mean.
 *
 * @param {MouseEvent} event
 */
function keepFocus(event) {
  event.preventDefault();
}
