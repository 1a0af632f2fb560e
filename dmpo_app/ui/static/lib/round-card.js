// How far it is to the next round, or how the running one goes: one card of constant height.

import { english } from "./lang.js";
import { duration, h } from "./studio.js";

const percent = (share) => `${Math.round(100 * share)} %`;

export class RoundCard {
  /** `words`: in which language it speaks. */
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

  /** `pending`: votes of this browser that the studio has not acknowledged; they are counted in. */
  update(status, pending = 0, offline = false) {
    this.element.classList.toggle("rc-running", status?.round?.status === "running");
    this.element.classList.toggle("rc-offline", offline);
    if (!status) return;
    this.bar.setAttribute("aria-label", this.words.t("card.bar"));
    if (status.round) this.showRound(status.round);
    else this.showVotes(status, pending);
    if (offline) this.aside.textContent = this.words.t("card.offline");
  }

  showVotes(status, pending) {
    const { words } = this;
    const left = Math.max(0, status.votes_until_round - pending);
    const done = Math.max(0, status.min_votes - left);
    this.title.textContent = words.t("card.until", { done, count: status.min_votes });
    this.aside.textContent =
      status.live_version === 0 ? words.t("card.base") : words.t("card.version", { version: status.live_version });
    this.setBar(done / status.min_votes);
    const last = status.last_round;
    const trouble = trainerTrouble(status, words);
    if (trouble) this.note(trouble, true);
    else if (last && last.status !== "published") {
      const reason = last.reason ?? words.t("card.no_reason");
      this.note(words.t("card.last", { status: words.t(`card.${last.status}`), reason }), last.status === "failed");
    } else if (last?.reason) this.note(words.t("card.early", { reason: last.reason }));
    else this.note(status.votes === 0 ? words.t("card.teaches") : words.t("card.so_far", { count: status.votes }));
  }

  showRound(round) {
    const { words } = this;
    if (round.status === "queued") {
      this.title.textContent = words.t("card.about");
      this.aside.textContent = "";
      this.setBar(0);
      this.note(words.t("card.keep"));
      return;
    }
    this.title.textContent = words.t("card.learning", { count: round.votes });
    this.aside.textContent =
      round.eta_seconds === null ? "" : words.t("card.left", { time: duration(round.eta_seconds) });
    this.setBar(round.steps > 0 ? round.step / round.steps : 0);
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

  setBar(share) {
    const value = Math.round(100 * Math.min(1, Math.max(0, share)));
    this.fill.style.width = `${value}%`;
    this.bar.setAttribute("aria-valuenow", String(value));
  }

  note(text, bad = false) {
    this.notes.classList.toggle("rc-bad", bad);
    this.notes.textContent = text;
    this.notes.title = text;
  }
}

/** What keeps rounds from happening, in words, or "". */
function trainerTrouble(status, words) {
  if (status.renderer.phase === "failed") return words.t("wait.failed", { message: status.renderer.message });
  if (!status.trainer.running && status.trainer.message)
    return words.t("card.trainer", { message: status.trainer.message });
  return "";
}
