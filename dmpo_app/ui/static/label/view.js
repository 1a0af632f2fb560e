// What the label widget looks like: builds its elements, all of which have their place before the first pair is there.

import { fill, mark, t, words } from "../lib/lang.js";
import { isSet, showPlaces, wordOf } from "./rank.js";
import { RoundCard } from "../lib/round-card.js";
import { h } from "../lib/studio.js";

export const ANSWERS = [
  { choice: "left", keys: ["1", "arrowleft"], code: ["Digit1", "Numpad1"], hint: "1", shown: ["1", "←"], main: true },
  { choice: "tie", keys: ["t"], code: [], hint: "T", shown: ["T"] },
  { choice: "both_bad", keys: ["b"], code: [], hint: "B", shown: ["B"] },
  { choice: "skip", keys: ["s"], code: [], hint: "S", shown: ["S"] },
  { choice: "right", keys: ["2", "arrowright"], code: ["Digit2", "Numpad2"], hint: "2", shown: ["2", "→"], main: true },
];

export const SIDES = ["left", "right"];
const LETTERS = ["A", "B"];
const MOST_PICTURES = 4;
const OF_SETS = ["both_bad", "skip"];

/** The answers there are beside choosing pictures, to a pair or to a set that is ranked. */
export const answersTo = (set) => ANSWERS.filter((answer) => !set || OF_SETS.includes(answer.choice));

export class LabelView {
  /** `acts`: {vote(choice, by), picture(index, by), strength(value), undo(), zoom(), report(), comment(), consent(), login(), keys(), you()}. */
  constructor(root, acts) {
    this.root = root;
    this.acts = acts;
    this.question = h("p", { class: "dl-question" });
    this.prompt = h("p", { class: "dl-prompt", dir: "auto" });
    this.consent = h("button", {
      type: "button",
      class: "st-button dl-consent",
      hidden: true,
      "data-t": "consent.read",
      onclick: acts.consent,
    });
    this.login = h("button", {
      type: "button",
      class: "st-button dl-consent",
      hidden: true,
      "data-t": "login.in",
      onclick: acts.login,
    });
    this.frames = Array.from({ length: MOST_PICTURES }, (_, index) => this.frame(index));
    this.size = 0;
    this.buttons = ANSWERS.map((answer) => this.answer(answer));
    this.answers = h("div", { class: "dl-answers", role: "group", "data-t-label": "answers" }, this.buttons);
    this.how = h("p", { class: "dl-how" });
    this.strengths = h(
      "div",
      { class: "dl-answers dl-strengths", role: "group", hidden: true },
      this.how,
      ["slightly", "clearly"].map((strength) => this.strengthButton(strength)),
      h(
        "button",
        { type: "button", class: "dl-answer", onmousedown: keepFocus, onclick: () => acts.strength(null) },
        h("span", { "data-t": "strength.back" }),
      ),
    );
    this.undoButton = this.tool("undo", "↶", "Z", acts.undo);
    this.zoomButton = this.tool("zoom", "⤢", null, acts.zoom);
    this.zoomButton.setAttribute("aria-pressed", "false");
    this.reportButton = this.tool("report", "⚑", null, acts.report);
    this.commentButton = this.tool("comment", "✎", null, acts.comment);
    this.reportButton.hidden = this.commentButton.hidden = true;
    this.keysButton = this.tool("keys", "?", null, acts.keys);
    this.saving = h("span", { class: "dl-saving", role: "status" });
    this.goalBar = h("span", { class: "dl-goal-fill" });
    this.goal = h("span", { class: "dl-goal" });
    this.who = h("span", { class: "dl-who-name" });
    this.youButton = h(
      "button",
      { type: "button", class: "dl-quiet dl-you", onmousedown: keepFocus, onclick: acts.you },
      this.who,
      h("span", { "aria-hidden": "true" }, "⚙"),
    );
    this.said = h("span", { class: "dl-hidden", role: "status", "aria-live": "polite" });
    this.card = new RoundCard(words);
    this.pair = h("div", { class: "dl-pair" });
    this.toasts = h("div", { class: "dl-toasts", role: "status", "aria-live": "polite" });
    root.replaceChildren(
      h("div", { class: "dl-ask" }, this.question, this.prompt, this.consent, this.login),
      this.pair,
      this.answers,
      this.strengths,
      h(
        "div",
        { class: "dl-foot" },
        [this.undoButton, this.zoomButton, this.reportButton, this.commentButton, this.keysButton],
        h(
          "span",
          { class: "dl-middle" },
          this.saving,
          this.goal,
          h("span", { class: "dl-goal-bar", "aria-hidden": "true" }, this.goalBar),
        ),
        this.youButton,
      ),
      this.card.element,
      this.said,
    );
    this.arrange(Number(root.dataset.pictures) || 2);
    this.retext();
  }

  /** Make place for so many pictures: two to choose from, more to rank. */
  arrange(size) {
    if (this.size === size) return;
    this.size = size;
    this.root.dataset.pictures = String(size);
    this.pair.replaceChildren(...this.frames.slice(0, size));
    const set = size > 2;
    this.frames.forEach(
      (frame, index) => (frame.querySelector(".dl-letter").textContent = set ? String(index + 1) : LETTERS[index]),
    );
    const offered = answersTo(set).map((answer) => answer.choice);
    for (const button of this.buttons) {
      const { choice } = button.dataset;
      button.hidden = !offered.includes(choice);
      if (choice === "both_bad") button.firstElementChild.setAttribute("data-t", wordOf(set, "answer.both_bad"));
    }
    fill(this.answers);
  }

  /** Everything that does not change with the pair, in the language of now. */
  retext() {
    fill(this.root);
    mark(this.root);
    mark(this.toasts);
  }

  /** One picture: a button as large as it. */
  frame(index) {
    return h(
      "button",
      {
        type: "button",
        class: "dl-frame dl-loading",
        "data-choice": SIDES[index],
        onmousedown: keepFocus,
        onclick: (event) => this.acts.picture(index, by(event)),
      },
      h("span", { class: "dl-picture" }),
      h("span", { class: "dl-letter", "aria-hidden": "true" }),
      h("span", { class: "dl-place", "aria-hidden": "true" }),
      h("span", { class: "dl-tick", "aria-hidden": "true" }, "✓"),
    );
  }

  answer({ choice, hint, main }) {
    return h(
      "button",
      {
        type: "button",
        class: `dl-answer dl-${choice}${main ? " dl-main" : ""}`,
        "data-choice": choice,
        "aria-keyshortcuts": hint,
        onmousedown: keepFocus,
        onclick: (event) => this.acts.vote(choice, by(event)),
      },
      h("span", { "data-t": `answer.${choice}` }),
      h("kbd", { "aria-hidden": "true" }, hint),
    );
  }

  strengthButton(strength) {
    const onclick = () => this.acts.strength(strength);
    return h(
      "button",
      { type: "button", class: "dl-answer dl-main", "data-strength": strength, onmousedown: keepFocus, onclick },
      h("span", { "data-t": `strength.${strength}` }),
    );
  }

  tool(key, sign, hint, onclick) {
    return h(
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
  }

  showPair(pair) {
    const set = isSet(pair);
    this.arrange(pair.images.length);
    this.question.textContent = t(wordOf(set, `question.${pair.asked.question}`));
    this.question.classList.toggle("dl-special", pair.asked.question !== "overall");
    this.prompt.textContent = pair.prompt;
    this.prompt.title = pair.prompt;
    pair.images.forEach((image, index) => {
      const frame = this.frames[index];
      const picture = frame.querySelector(".dl-picture");
      if (picture.firstElementChild !== image) picture.replaceChildren(image);
      if (!set) frame.setAttribute("aria-label", t("picture.choose", { letter: LETTERS[index], prompt: pair.prompt }));
    });
    if (set) showPlaces(this.frames.slice(0, this.size), pair);
    else for (const frame of this.frames) frame.removeAttribute("aria-disabled");
    this.commentButton.hidden = !pair.asked.comment;
    this.commentButton.classList.toggle("dl-noted", Boolean(pair.comment));
  }

  setBusy(busy, undoable) {
    this.pair.setAttribute("aria-busy", String(busy));
    for (const frame of this.frames) {
      frame.disabled = busy;
      frame.classList.toggle("dl-loading", busy);
      if (!busy) continue;
      frame.querySelector(".dl-picture").replaceChildren();
      frame.classList.remove("dl-placed");
    }
    for (const button of [...this.buttons, this.zoomButton, this.reportButton, this.commentButton])
      button.disabled = busy;
    this.undoButton.disabled = !undoable;
  }

  /** Ask how much better `side` is in place of the answers; null: the answers again. The focus goes along. */
  askStrength(side) {
    const focused = document.activeElement;
    const from = side === null ? this.strengths : this.root;
    this.answers.hidden = side !== null;
    this.strengths.hidden = side === null;
    if (side !== null) {
      this.how.textContent = t(`strength.ask_${side}`);
      this.strengths.setAttribute("aria-label", this.how.textContent);
    }
    if (from.contains(focused)) (side === null ? this.buttons[0] : this.strengths.querySelector("button")).focus();
  }

  /** A short sign over the pictures with these numbers, from 0, that the answer was taken. */
  flash(marks) {
    for (const index of marks) {
      const frame = this.frames[index];
      frame.classList.remove("dl-chosen");
      void frame.offsetWidth; // restarts the animation
      frame.classList.add("dl-chosen");
    }
  }

  /** `sitting`: the votes of this session so far, and the goal. */
  showGoal(sitting) {
    const { goal, count, medianSeconds: pace } = sitting;
    this.goal.parentElement.classList.toggle("dl-aims", goal > 0);
    if (goal === 0) {
      this.goal.textContent = "";
      return;
    }
    const text = count < goal ? t("goal.of", { count, goal }) : t("goal.done", { count });
    this.goal.replaceChildren(
      text,
      h("span", { class: "dl-pace" }, pace === null ? "" : ` · ${t("pace", { seconds: words.number(pace, 1) })}`),
    );
    this.goalBar.style.width = `${Math.min(100, (100 * count) / goal)}%`;
  }

  showSaving(text, trouble) {
    this.saving.textContent = text;
    this.saving.classList.toggle("dl-trouble", trouble);
    this.goal.hidden = text !== "";
  }

  showName(name) {
    this.who.textContent = t("you", { name: name || t("you.anonymous") });
  }

  toast(text, link = null, milliseconds = 14000) {
    const close = () => toast.remove();
    const toast = h(
      "div",
      { class: "dl-toast" },
      h("span", {}, text),
      link && h("button", { type: "button", class: "dl-link", onclick: () => (close(), link.act()) }, link.text),
      h("button", { type: "button", class: "dl-close", "aria-label": t("toast.dismiss"), onclick: close }, "×"),
    );
    this.toasts.append(toast);
    while (this.toasts.children.length > 3) this.toasts.firstChild.remove();
    setTimeout(close, milliseconds);
  }
}

/** Whether a finger or the mouse clicked, or a key or an assistive tool did. */
const by = (event) => (event.detail > 0 ? "click" : "press");

/** A button that was clicked does not take the focus, so that Space and the other keys go on meaning what they mean. */
function keepFocus(event) {
  event.preventDefault();
}
