// <dmpo-label>: two pictures, one question. Everything a person does here is taken at once; the outbox tells the studio.

import { Outbox } from "./outbox.js";
import { PairSupply } from "./pairs.js";
import { RoundCard } from "./round-card.js";
import { h, isShown, openTab, plural, session, statusFeed, takesKeys, versionName, versions } from "./studio.js";

const ANSWERS = [
  { choice: "left", text: "A is better", keys: ["1", "arrowleft"], hint: "1", main: true },
  { choice: "tie", text: "Tie", keys: ["t"], hint: "T" },
  { choice: "both_bad", text: "Both bad", keys: ["b"], hint: "B" },
  { choice: "skip", text: "Skip", keys: ["s"], hint: "S" },
  { choice: "right", text: "B is better", keys: ["2", "arrowright"], hint: "2", main: true },
];
const SAID = { left: "A chosen", right: "B chosen", tie: "Tie", both_bad: "Both bad", skip: "Skipped" };
const CLICK_GUARD_MS = 180; // the second click of a double click must not judge the next pair
const MAX_UNDO = 10; // as many as the studio takes back
const TOAST_MS = 14000;

// One of each a page, also if Gradio builds the element anew.
const outbox = new Outbox();

class DmpoLabel extends HTMLElement {
  connectedCallback() {
    this.build();
    this.history = [];
    this.current = null;
    this.shownAt = 0;
    this.liveVersion = null;
    this.supply = new PairSupply(() => (this.current ? 1 : 0) + outbox.ops.length);
    this.supply.addEventListener("ready", () => this.current === null && this.advance());
    this.supply.addEventListener("empty", () => this.current === null && this.showWaiting());
    this.supply.addEventListener("trouble", (event) => this.current === null && this.showWaiting(event.detail));
    this.onKey = (event) => this.key(event);
    this.onRefused = (event) => this.refused(event.detail);
    this.onSettled = (event) => this.settled(event.detail);
    this.onChange = () => this.showSaving();
    document.addEventListener("keydown", this.onKey);
    outbox.addEventListener("refused", this.onRefused);
    outbox.addEventListener("taken", this.onSettled);
    outbox.addEventListener("undone", this.onSettled);
    outbox.addEventListener("change", this.onChange);
    this.deaf = statusFeed.listen((status) => this.statusCame(status));
    this.supply.start();
  }

  disconnectedCallback() {
    document.removeEventListener("keydown", this.onKey);
    outbox.removeEventListener("refused", this.onRefused);
    outbox.removeEventListener("taken", this.onSettled);
    outbox.removeEventListener("undone", this.onSettled);
    outbox.removeEventListener("change", this.onChange);
    this.deaf?.();
    this.supply?.stop();
    this.toasts?.remove();
  }

  build() {
    this.prompt = h("p", { class: "dl-prompt" });
    this.frames = ["left", "right"].map((side, index) => this.frame(side, "AB"[index]));
    this.buttons = ANSWERS.map((answer) =>
      h(
        "button",
        {
          type: "button",
          class: `dl-answer dl-${answer.choice}${answer.main ? " dl-main" : ""}`,
          "data-choice": answer.choice,
          "aria-keyshortcuts": answer.hint,
          onclick: () => this.vote(answer.choice, "click"),
        },
        h("span", {}, answer.text),
        h("kbd", { "aria-hidden": "true" }, answer.hint),
      ),
    );
    this.undoButton = h(
      "button",
      { type: "button", class: "dl-quiet dl-undo", disabled: true, "aria-keyshortcuts": "Z", onclick: () => this.undo() },
      "↶ Undo ",
      h("kbd", { "aria-hidden": "true" }, "Z"),
    );
    this.saving = h("span", { class: "dl-saving", role: "status" });
    this.said = h("span", { class: "dl-hidden", role: "status", "aria-live": "polite" });
    this.card = new RoundCard();
    this.toasts = h("div", { class: "dl-toasts", role: "status", "aria-live": "polite" });
    this.pair = h("div", { class: "dl-pair" }, this.frames);
    this.replaceChildren(
      h("div", { class: "dl-ask" }, h("p", { class: "dl-question" }, "Which picture do you prefer?"), this.prompt),
      this.pair,
      h("div", { class: "dl-answers", role: "group", "aria-label": "Your answer" }, this.buttons),
      h("div", { class: "dl-foot" }, this.undoButton, this.saving, this.nameField()),
      this.card.element,
      this.said,
    );
    document.body.append(this.toasts); // seen from every tab
    this.setBusy(true);
  }

  /** One side: a button as large as the picture. */
  frame(side, letter) {
    return h(
      "button",
      { type: "button", class: "dl-frame dl-loading", "data-choice": side, onclick: () => this.vote(side, "click") },
      h("span", { class: "dl-picture" }),
      h("span", { class: "dl-letter", "aria-hidden": "true" }, letter),
      h("span", { class: "dl-tick", "aria-hidden": "true" }, "✓"),
    );
  }

  nameField() {
    const input = h("input", {
      class: "dl-name",
      type: "text",
      maxlength: "60",
      placeholder: "anonymous",
      autocomplete: "nickname",
      "aria-label": "Your name (optional)",
    });
    input.value = session.handle;
    input.addEventListener("change", () => this.rename(input.value.trim()));
    input.addEventListener("keydown", (event) => event.key === "Enter" && input.blur());
    return h("label", { class: "dl-who" }, "Voting as", input);
  }

  rename(handle) {
    if (handle === session.handle) return;
    session.rename(handle);
    this.history = [];
    this.current = null;
    this.showWaiting();
    this.supply.reset();
  }

  key(event) {
    if (!isShown(this) || event.repeat || event.ctrlKey || event.metaKey || event.altKey || takesKeys(event.target)) return;
    const key = event.key.toLowerCase();
    const answer = ANSWERS.find((candidate) => candidate.keys.includes(key));
    if (key === "z") this.undo();
    else if (answer) this.vote(answer.choice, "key");
    else return;
    event.preventDefault();
  }

  /** Take an answer: shown as taken at once, sent in the background, and the next pair comes up. */
  vote(choice, by) {
    const elapsed = performance.now() - this.shownAt;
    if (this.current === null || (by === "click" && elapsed < CLICK_GUARD_MS)) return;
    const pair = this.current;
    this.current = null;
    outbox.vote(pair.token, pair.id, choice, elapsed);
    this.history.push(pair);
    if (this.history.length > MAX_UNDO) this.history.shift();
    this.flash(choice);
    this.said.textContent = `${SAID[choice]}.`;
    this.advance();
  }

  /** Bring the last pair back. */
  undo() {
    const pair = this.history.pop();
    if (!pair) return;
    if (this.current) this.supply.putBack(this.current);
    outbox.undo(pair.token, pair.id);
    this.show(pair);
    this.said.textContent = "Vote undone. The pair is back.";
  }

  advance() {
    const pair = this.supply.next();
    if (pair) this.show(pair);
    else this.showWaiting();
  }

  show(pair) {
    this.current = pair;
    this.prompt.textContent = pair.prompt;
    this.prompt.title = pair.prompt;
    this.frames.forEach((frame, index) => {
      frame.querySelector(".dl-picture").replaceChildren(pair.images[index]);
      frame.setAttribute("aria-label", `Picture ${"AB"[index]} is better: ${pair.prompt}`);
    });
    this.setBusy(false);
    this.shownAt = performance.now();
  }

  /** Nothing to show right now, and why. */
  showWaiting(error = null) {
    const phase = statusFeed.last?.renderer.phase;
    const held = outbox.trouble ? outbox.ops.length : 0;
    if (held > 0) this.prompt.textContent = `No connection. ${plural(held, "vote")} kept here, to be sent later.`;
    else if (error) this.prompt.textContent = `${error.message} Trying again…`;
    else if (phase === "failed") this.prompt.textContent = `The model could not be loaded: ${statusFeed.last.renderer.message}`;
    else if (phase === "starting" || phase === "loading") this.prompt.textContent = "The model is warming up; the first pictures are on their way…";
    else if (this.history.length === 0) this.prompt.textContent = "Fetching pictures…";
    else if (statusFeed.last?.round) this.prompt.textContent = "You have judged every pair there is. New ones come after this round.";
    else this.prompt.textContent = "You have judged every pair there is. New ones are being painted…";
    this.setBusy(true);
  }

  setBusy(busy) {
    this.pair.setAttribute("aria-busy", String(busy));
    for (const frame of this.frames) {
      frame.disabled = busy;
      frame.classList.toggle("dl-loading", busy);
      if (busy) frame.querySelector(".dl-picture").replaceChildren();
    }
    for (const button of this.buttons) button.disabled = busy;
    this.undoButton.disabled = this.history === undefined || this.history.length === 0;
  }

  /** A short sign over the pictures that the answer was taken. */
  flash(choice) {
    const marks = { left: [0], right: [1], tie: [0, 1] }[choice] ?? [];
    for (const index of marks) {
      const frame = this.frames[index];
      frame.classList.remove("dl-chosen");
      void frame.offsetWidth; // restarts the animation
      frame.classList.add("dl-chosen");
    }
  }

  showSaving() {
    const waiting = outbox.ops.length;
    const trouble = outbox.trouble;
    this.saving.classList.toggle("dl-trouble", trouble !== null);
    if (trouble && waiting > 0) {
      const why = trouble.status === 0 ? "Offline" : trouble.status === 429 ? "A little too fast" : "The studio is busy";
      this.saving.textContent = `${why} – ${plural(waiting, "vote")} kept here, will retry`;
    } else {
      this.saving.textContent = waiting > 3 ? "Saving…" : "";
    }
    this.card.update(statusFeed.last, outbox.pendingPreferences);
  }

  /** A vote or an undoing was acknowledged: count with the answer rather than wait for the next poll. */
  settled({ kind, answer }) {
    const status = statusFeed.last;
    if (!status) return;
    status.votes_until_round = answer.votes_until_round;
    status.votes += kind === "vote" ? 1 : -1;
  }

  /** The studio said no to something that was shown as taken. */
  refused({ kind, token, error }) {
    if (error.status === 401) {
      session.forget(token);
      this.current = null;
      this.history = [];
      this.showWaiting();
      this.supply.reset();
      this.toast("Your session was not known to the studio any more; a new one was opened.");
    } else if (kind === "undo") {
      this.toast("That vote cannot be undone any more.");
    } else if (error.status === 410) {
      this.toast("That pair had been open for too long, so the vote did not count. Here is another.");
    } else if (error.status === 409) {
      this.toast("That pair had been answered before; the first answer counts.");
    } else {
      this.toast("One vote was not taken: the studio does not know that pair any more.");
    }
  }

  async statusCame(status) {
    this.card.update(status ?? statusFeed.last, outbox.pendingPreferences, status === null);
    if (status === null) return;
    if (outbox.trouble) outbox.hurry();
    if (this.current === null) this.supply.fill();
    const before = this.liveVersion;
    this.liveVersion = status.live_version;
    if (before !== null && before !== status.live_version) await this.announce(status.live_version);
  }

  async announce(version) {
    if (version === 0) {
      this.toast("The base model is live again.");
      return;
    }
    let learned = "";
    try {
      const adapter = (await versions()).get(version);
      if (adapter) learned = ` learned from ${plural(adapter.votes, "vote")} and`;
    } catch {
      // The announcement does without the number.
    }
    this.toast(`${versionName(version)}${learned} is live.`, {
      text: "See Before / after",
      act: () => openTab("Before / after"),
    });
  }

  toast(text, link = null) {
    const close = () => toast.remove();
    const toast = h(
      "div",
      { class: "dl-toast" },
      h("span", {}, text),
      link && h("button", { type: "button", class: "dl-link", onclick: () => (close(), link.act()) }, link.text),
      h("button", { type: "button", class: "dl-close", "aria-label": "Dismiss", onclick: close }, "×"),
    );
    this.toasts.append(toast);
    while (this.toasts.children.length > 3) this.toasts.firstChild.remove();
    setTimeout(close, TOAST_MS);
  }
}

customElements.define("dmpo-label", DmpoLabel);
