// <dmpo-label>: two pictures, one question. Everything a person does here is taken at once; the outbox tells the studio.

import { asked } from "./campaign.js";
import { dialogOpen } from "./dialog.js";
import { Gestures } from "./gestures.js";
import { Asides } from "./label-asides.js";
import { keysDialog } from "./label-dialogs.js";
import { ANSWERS, LabelView } from "./label-view.js";
import { t, words } from "./lang.js";
import { Outbox } from "./outbox.js";
import { PairSupply } from "./pairs.js";
import { Past } from "./past.js";
import { Sitting } from "./sitting.js";
import { isShown, session, statusFeed, takesKeys } from "./studio.js";
import { Zoom } from "./zoom.js";

const CLICK_GUARD_MS = 180; // the second click of a double click must not judge the next pair
const PRESSED_BY_SPACE = "button:not([role=tab][aria-selected=true]), a, summary"; // what has the focus comes first
const PANS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const PAN_STEP = 0.2;

// One of each a page, also if Gradio builds the element anew.
const outbox = new Outbox();
const sitting = new Sitting();
const past = new Past();

class DmpoLabel extends HTMLElement {
  connectedCallback() {
    this.view = new LabelView(this, this.acts());
    this.zoom = new Zoom(this.view.pair, (on) => this.view.zoomButton.setAttribute("aria-pressed", String(on)));
    this.gestures = new Gestures(this.view.pair, this.zoom, (side) => this.vote(side, "swipe"));
    document.body.append(this.view.toasts); // seen from every tab
    this.asides = new Asides(this, sitting);
    this.current = null;
    this.chosen = null; // the side that was chosen while it is asked how much better it is
    this.shownAt = 0;
    this.liveVersion = null;
    this.bringing = null; // the assignment that an undo after a reload waits for
    this.trouble = null;
    this.supply = new PairSupply(
      () => (this.current ? 1 : 0) + outbox.ops.length,
      (id) => outbox.answered(id),
    );
    this.listening = new AbortController();
    this.listen();
    this.deaf = statusFeed.listen((status) => this.statusCame(status));
    this.showWaiting();
    this.refresh();
    this.supply.start();
  }

  disconnectedCallback() {
    this.listening?.abort();
    this.deaf?.();
    this.supply?.stop();
    this.view?.toasts.remove();
  }

  listen() {
    const { signal } = this.listening;
    const on = (target, name, listener) => target.addEventListener(name, listener, { signal });
    on(document, "keydown", (event) => this.key(event));
    on(document, "keyup", (event) => this.keyUp(event));
    on(window, "blur", () => this.zoom.release());
    on(words, "change", () => this.retext());
    on(outbox, "refused", (event) => this.refused(event.detail));
    on(outbox, "taken", (event) => this.settled(event.detail));
    on(outbox, "undone", (event) => this.settled(event.detail));
    on(outbox, "change", () => this.showSaving());
    this.supply.addEventListener("ready", () => this.pairReady());
    this.supply.addEventListener("missing", (event) => this.giveUp(event.detail));
    this.supply.addEventListener("empty", () => this.current === null && this.showWaiting());
    this.supply.addEventListener("trouble", (event) => this.supplyFailed(event.detail));
  }

  acts() {
    return {
      vote: (choice, by) => this.vote(choice, by),
      strength: (strength) => this.strengthChosen(strength),
      undo: () => this.undo(),
      zoom: () => this.zoom.toggle(),
      report: () => this.asides.report(),
      comment: () => this.asides.comment(),
      consent: () => this.asides.askConsent(),
      login: () => this.asides.signIn(),
      keys: () => keysDialog(this, ANSWERS, this.current?.asked.strength ?? false),
      you: () => this.asides.showYou(),
    };
  }

  /** What depends on the language or the person, but not on the pair. */
  refresh() {
    this.view.showName(session.shown);
    this.view.showGoal(sitting);
    this.showSaving();
  }

  retext() {
    this.view.retext();
    this.refresh();
    if (this.current) this.view.showPair(this.current);
    else this.showWaiting();
  }

  rename(handle) {
    if (handle === session.handle) return;
    session.rename(handle);
    this.view.showName(handle);
    this.startAnew();
  }

  /** Somebody signed in or out. */
  another() {
    this.view.showName(session.shown);
    this.trouble = null;
    this.startAnew();
  }

  /** Another annotator, so other pairs. */
  startAnew() {
    past.clear();
    this.current = this.bringing = null;
    this.asides.forget();
    this.closeStrength();
    this.showWaiting();
    this.supply.reset();
  }

  key(event) {
    if (!isShown(this) || dialogOpen() || event.ctrlKey || event.metaKey || event.altKey || takesKeys(event.target)) return;
    const key = event.key.toLowerCase();
    const answer = ANSWERS.find((candidate) => candidate.keys.includes(key) || candidate.code.includes(event.code));
    if (key === " ") {
      if (event.target.closest?.(PRESSED_BY_SPACE) || this.current === null) return;
      this.zoom.press();
    } else if (event.repeat) return;
    else if (this.zoom.on && event.shiftKey && event.key in PANS) this.zoom.pan(...PANS[event.key].map((way) => way * PAN_STEP));
    else if (key === "z") this.undo();
    else if (key === "?") this.acts().keys();
    else if (key === "escape" && this.chosen) this.strengthChosen(null);
    else if (key === "escape" && this.zoom.on) this.zoom.off();
    else if (answer) this.vote(answer.choice, "key", event.shiftKey ? "slightly" : "clearly");
    else return;
    event.preventDefault();
  }

  keyUp(event) {
    if (event.key === " ") this.zoom.release();
  }

  /** Take an answer: shown as taken at once, sent in the background, and the next pair comes up. */
  vote(choice, by, strength = null) {
    const elapsed = performance.now() - this.shownAt;
    if (this.current === null || (by === "click" && elapsed < CLICK_GUARD_MS)) return;
    const pair = this.current;
    const sided = choice === "left" || choice === "right";
    if (sided && pair.asked.strength && strength === null) {
      this.chosen = choice;
      this.view.askStrength(choice);
      return;
    }
    this.current = null;
    this.closeStrength();
    const more = { ...(sided && pair.asked.strength && { strength }), ...(pair.comment && { comment: pair.comment }) };
    outbox.vote(pair.token, pair.id, choice, elapsed, more);
    const counted = choice !== "skip";
    if (counted) sitting.add(elapsed);
    past.push(pair, counted);
    this.view.flash(choice);
    this.view.showGoal(sitting);
    this.advance(t(`said.${choice}`));
  }

  strengthChosen(strength) {
    const choice = this.chosen;
    this.closeStrength();
    if (strength !== null && choice !== null) this.vote(choice, "strength", strength);
  }

  closeStrength() {
    if (this.chosen === null) return;
    this.chosen = null;
    this.view.askStrength(null);
  }

  /** Bring the last pair back. */
  undo() {
    const entry = past.pop();
    if (!entry) return;
    if (this.current) this.supply.putBack(this.current);
    this.current = null;
    this.closeStrength();
    outbox.undo(entry.token, entry.id, entry.vote);
    if (entry.counted) sitting.remove();
    this.view.showGoal(sitting);
    if (entry.pair) this.show(entry.pair, t("said.undone"));
    else {
      this.bringing = entry.id;
      this.supply.want(entry.id);
      this.showWaiting();
    }
  }

  /** A pair came; while one is being brought back, only that one is shown. */
  pairReady() {
    if (this.current === null && (this.bringing === null || this.supply.ready[0].id === this.bringing)) this.advance();
  }

  /** The pair that an undo was to bring back does not come. */
  giveUp(id) {
    this.supply.unwant(id);
    if (this.bringing !== id) return;
    this.bringing = null;
    this.advance();
  }

  advance(said = "") {
    const pair = this.supply.next();
    if (pair) this.show(pair, said && `${said} ${t("said.next", { prompt: pair.prompt })}`);
    else {
      this.view.said.textContent = said;
      this.showWaiting();
    }
  }

  show(pair, said = "") {
    pair.asked ??= asked(pair);
    this.current = pair;
    this.bringing = null;
    this.trouble = null;
    this.zoom.nextPair();
    this.view.showPair(pair);
    this.view.setBusy(false, past.length > 0);
    this.view.said.textContent = said;
    this.shownAt = performance.now();
    this.asides.pairCame();
  }

  /** Nothing to show right now, and why. */
  showWaiting() {
    this.zoom.off();
    this.view.question.textContent = t("question.overall");
    this.view.prompt.textContent = this.whyWaiting();
    this.view.setBusy(true, past.length > 0);
  }

  whyWaiting() {
    const { renderer, round } = statusFeed.last ?? {};
    const held = outbox.trouble ? outbox.ops.length : 0;
    if (this.trouble?.code === "consent_needed") return t("wait.consent");
    if (this.trouble?.code === "login_needed") return t("wait.login");
    if (held > 0) return t("wait.kept", { count: held });
    if (this.bringing) return t("wait.undoing");
    if (this.trouble) return this.trouble.passing ? t("wait.again", { message: this.trouble.message }) : this.trouble.message;
    if (renderer?.phase === "failed") return t("wait.failed", { message: renderer.message });
    if (renderer?.phase === "starting" || renderer?.phase === "loading") return t("wait.warming");
    if (past.length === 0) return t("wait.fetching");
    return round ? t("wait.round") : t("wait.painted");
  }

  supplyFailed(error) {
    this.trouble = error;
    this.view.showName(session.shown);
    if (this.current !== null) return;
    this.showWaiting();
    this.asides.failed(error);
  }

  showSaving() {
    const waiting = outbox.ops.length;
    const { trouble } = outbox;
    this.asides.failed(trouble);
    const why = { 0: "why.offline", 429: "why.fast" }[trouble?.status] ?? "why.busy";
    if (trouble && waiting > 0) this.view.showSaving(`${t(why)} – ${t("kept", { count: waiting })}`, true);
    else this.view.showSaving(waiting > 3 ? t("saving") : "", false);
    this.view.card.update(statusFeed.last, outbox.pendingPreferences);
  }

  /** A vote or an undoing was acknowledged: count with the answer rather than wait for the next poll. */
  settled({ kind, assignment, answer }) {
    if (kind === "vote") past.taken(assignment, answer.vote);
    else this.supply.reopened(assignment);
    const status = statusFeed.last;
    if (!status) return;
    status.votes_until_round = answer.votes_until_round;
    status.votes += kind === "vote" ? 1 : -1;
  }

  /** What was missing is agreed to: go on. */
  agreed() {
    this.trouble = null;
    outbox.hurry();
    if (this.current === null) this.showWaiting();
    this.supply.fill();
  }

  /** All votes are withdrawn: there is nothing left to undo. */
  withdrawn() {
    past.clear();
    this.view.setBusy(this.current === null, false);
  }

  /** Show neither this pair nor, if the studio took it out of the pool, another question about it. */
  passOver(pair) {
    if (this.current === pair) this.current = null;
    this.closeStrength();
    this.supply.reset([pair.id, this.current?.id].filter(Boolean));
    if (this.current === null) this.showWaiting();
  }

  /** The studio said no to something that was shown as taken. */
  refused({ kind, token, assignment, error }) {
    if (kind === "undo") this.giveUp(assignment);
    if (error.status === 401) {
      session.forget(token);
      this.startAnew();
    }
    const why = { 401: "session", 410: "expired", 409: "answered" }[error.status] ?? "unknown";
    this.view.toast(t(kind === "undo" && error.status !== 401 ? "toast.no_undo" : `toast.${why}`));
  }

  async statusCame(status) {
    this.view.card.update(status ?? statusFeed.last, outbox.pendingPreferences, status === null);
    if (status === null) return;
    if (outbox.trouble) outbox.hurry();
    if (this.current === null && this.trouble === null) this.supply.fill();
    const before = this.liveVersion;
    this.liveVersion = status.live_version;
    if (before !== null && before !== status.live_version) await this.asides.announce(status.live_version);
  }
}

customElements.define("dmpo-label", DmpoLabel);
