// How far it is to the next round, or how the running one goes: one card of constant height.

import { duration, h, plural } from "./studio.js";

const percent = (share) => `${Math.round(100 * share)} %`;

export class RoundCard {
  constructor() {
    this.title = h("span", { class: "rc-title" }, "Looking for the studio…");
    this.aside = h("span", { class: "rc-aside" });
    this.fill = h("span", { class: "rc-fill" });
    this.bar = h(
      "div",
      { class: "rc-bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-label": "Next round" },
      this.fill,
    );
    this.notes = h("div", { class: "rc-notes" });
    this.element = h("section", { class: "rc" }, h("div", { class: "rc-line" }, this.title, this.aside), this.bar, this.notes);
  }

  /** `pending`: votes of this browser that the studio has not acknowledged; they are counted in. */
  update(status, pending = 0, offline = false) {
    this.element.classList.toggle("rc-running", status?.round?.status === "running");
    this.element.classList.toggle("rc-offline", offline);
    if (!status) return;
    if (status.round) this.showRound(status.round);
    else this.showVotes(status, pending);
    if (offline) this.aside.textContent = "no connection, trying again…";
  }

  showVotes(status, pending) {
    const left = Math.max(0, status.votes_until_round - pending);
    const done = Math.max(0, status.min_votes - left);
    this.title.textContent = `${done} of ${plural(status.min_votes, "vote")} until the next round`;
    this.aside.textContent = status.live_version === 0 ? "base model" : `version ${status.live_version}`;
    this.setBar(done / status.min_votes);
    const last = status.last_round;
    const trouble = trainerTrouble(status);
    if (trouble) this.note(trouble, true);
    else if (last && last.status !== "published") this.note(`The last round was ${last.status}: ${last.reason ?? "no reason given"}`, last.status === "failed");
    else if (last?.reason) this.note(`The last round was published early: ${last.reason}`);
    else this.note(status.votes === 0 ? "Every answer teaches the model." : `${plural(status.votes, "vote")} so far`);
  }

  showRound(round) {
    if (round.status === "queued") {
      this.title.textContent = "A round is about to start";
      this.aside.textContent = "";
      this.setBar(0);
      this.note("Keep voting: new votes count for the round after it.");
      return;
    }
    this.title.textContent = `Learning from ${plural(round.votes, "vote")}`;
    this.aside.textContent = round.eta_seconds === null ? "" : `${duration(round.eta_seconds)} left`;
    this.setBar(round.steps > 0 ? round.step / round.steps : 0);
    const chips = [["step", `${round.step} / ${round.steps}`]];
    if (round.loss !== null) chips.push(["loss", round.loss.toPrecision(3)]);
    if (round.margin !== null) chips.push(["margin", round.margin.toFixed(2)]);
    if (round.accuracy !== null) chips.push(["accuracy", percent(round.accuracy)]);
    this.notes.classList.remove("rc-bad");
    this.notes.replaceChildren(...chips.map(([name, value]) => h("span", { class: "rc-chip" }, h("b", {}, name), ` ${value}`)));
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
function trainerTrouble(status) {
  if (status.renderer.phase === "failed") return `The model could not be loaded: ${status.renderer.message}`;
  if (!status.trainer.running && status.trainer.message) return `The trainer is not running: ${status.trainer.message}`;
  return "";
}
