// @ts-check
// The way to the next round, or the progress of the running one: one card of constant height.

import { h } from "./dom.js";
import { english } from "./lang.js";
import { duration, percent } from "./text.js";

/** @import { Words } from "./lang.js" */
/** @import { Round, Status } from "./types.js" */

export class RoundCard {
  /** @param {Words} words the language it speaks */
  constructor(words = english) {
    this.words = words;
    this.title = h("span", { class: "rc-title" }, words.t("card.looking"));
    this.aside = h("span", { class: "rc-aside" });
    this.fill = h("span", { class: "rc-fill" });
    this.bar = h(
      "div",
      {
        class: "rc-bar",
        role: "progressbar",
        "aria-valuemin": "0",
        "aria-valuemax": "100",
        "aria-label": words.t("card.bar"),
      },
      this.fill,
    );
    this.notes = h("div", { class: "rc-notes" });
    this.element = h(
      "section",
      { class: "rc" },
      h("div", { class: "rc-line" }, this.title, this.aside),
      this.bar,
      this.notes,
    );
  }

  /**
   * @param {Status | null} status
   * @param {number} pending votes of this browser that the studio has not acknowledged; they are counted in
   * @param {boolean} offline
   */
  update(status, pending = 0, offline = false) {
    this.element.classList.toggle("rc-running", status?.round?.status === "running");
    this.element.classList.toggle("rc-offline", offline);
    if (!status) return;
    this.bar.setAttribute("aria-label", this.words.t("card.bar"));
    if (status.round) this.#showRound(status.round, trainerTrouble(status, this.words));
    else this.#showVotes(status, pending);
    if (offline) this.aside.textContent = this.words.t("card.offline");
  }

  /**
   * @param {Status} status
   * @param {number} pending
   */
  #showVotes(status, pending) {
    const { words } = this;
    const left = Math.max(0, status.votes_until_round - pending);
    const done = Math.max(0, status.min_votes - left);
    this.title.textContent = words.t("card.until", { done, count: status.min_votes });
    this.aside.textContent =
      status.live_version === 0 ? words.t("card.base") : words.t("card.version", { version: status.live_version });
    this.#setBar(done / status.min_votes);
    this.#note(trainerTrouble(status, words) ?? lastRoundNote(status, words));
  }

  /**
   * @param {Round} round
   * @param {Note | null} trouble
   */
  #showRound(round, trouble) {
    const { words } = this;
    if (round.status === "queued") {
      this.title.textContent = words.t("card.about");
      this.aside.textContent = "";
      this.#setBar(0);
      this.#note(trouble ?? { text: words.t("card.keep") });
      return;
    }
    this.title.textContent = words.t("card.learning", { count: round.votes });
    this.aside.textContent =
      round.eta_seconds === null ? "" : words.t("card.left", { time: duration(round.eta_seconds) });
    this.#setBar(round.steps > 0 ? round.step / round.steps : 0);
    if (trouble) {
      this.#note(trouble);
      return;
    }
    const chips = [["step", `${round.step} / ${round.steps}`]];
    if (round.loss !== null) chips.push(["loss", round.loss.toPrecision(3)]);
    if (round.margin !== null) chips.push(["margin", round.margin.toFixed(2)]);
    if (round.accuracy !== null) chips.push(["accuracy", percent(round.accuracy)]);
    this.notes.classList.remove("rc-bad");
    this.notes.replaceChildren(
      ...chips.map(([name, value]) =>
        h("span", { class: "rc-chip" }, h("b", {}, words.t(`card.${name}`)), ` ${value}`),
      ),
    );
  }

  /** @param {number} share */
  #setBar(share) {
    const value = Math.round(100 * Math.min(1, Math.max(0, share)));
    this.fill.style.width = `${value}%`;
    this.bar.setAttribute("aria-valuenow", String(value));
  }

  /** @param {Note} note */
  #note({ text, bad = false }) {
    this.notes.classList.toggle("rc-bad", bad);
    this.notes.textContent = text;
    this.notes.title = text;
  }
}

/** @typedef {{ text: string, bad?: boolean }} Note */

/**
 * The reason why rounds do not happen, if there is one.
 *
 * @param {Status} status
 * @param {Words} words
 * @returns {Note | null}
 */
function trainerTrouble(status, words) {
  const { renderer, trainer } = status;
  if (renderer.phase === "failed") return { text: words.t("wait.failed", { message: renderer.message }), bad: true };
  if (!trainer.running && trainer.message) {
    return { text: words.t("card.trainer", { message: trainer.message }), bad: true };
  }
  return null;
}

/**
 * @param {Status} status
 * @param {Words} words
 * @returns {Note}
 */
function lastRoundNote({ last_round: last, votes }, words) {
  if (last && last.status !== "published") {
    const reason = last.reason ?? words.t("card.no_reason");
    const text = words.t("card.last", { status: words.t(`card.${last.status}`), reason });
    return { text, bad: last.status === "failed" };
  }
  if (last?.reason) return { text: words.t("card.early", { reason: last.reason }) };
  return { text: votes === 0 ? words.t("card.teaches") : words.t("card.so_far", { count: votes }) };
}
