// <dmpo-label>: two pictures and one question, or three or four to rank. Everything a person does here is taken at once; the outbox tells the studio.

import { asked } from "./campaign.js";
import { Gestures } from "./gestures.js";
import { Asides } from "./asides.js";
import { keysDialog } from "./dialogs.js";
import { keyDown, keyUp } from "./keys.js";
import { Sent } from "./sent.js";
import { LabelView, SIDES } from "./view.js";
import { whyWaiting } from "./waiting.js";
import { t, words } from "../lib/lang.js";
import { Outbox } from "./outbox.js";
import { PairSupply } from "./pairs.js";
import { Past } from "./past.js";
import { isSet, placed, Ranking, wordOf } from "./rank.js";
import { Sitting } from "./sitting.js";
import { session, statusFeed } from "../lib/studio.js";
import { Zoom } from "./zoom.js";

const CLICK_GUARD_MS = 180; // the second click of a double click must not judge the next pair

// One of each a page, also if Gradio builds the element anew.
const outbox = new Outbox();
const sitting = new Sitting();
const past = new Past();
const ranking = new Ranking();

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
    on(document, "keydown", (event) => keyDown(this, event));
    on(document, "keyup", (event) => keyUp(this, event));
    on(window, "blur", () => this.zoom.release());
    on(words, "change", () => this.retext());
    this.sent = new Sent(this, outbox, past, on);
    this.supply.addEventListener("ready", () => this.pairReady());
    this.supply.addEventListener("missing", (event) => this.giveUp(event.detail));
    this.supply.addEventListener("empty", () => this.current === null && this.showWaiting());
    this.supply.addEventListener("trouble", (event) => this.supplyFailed(event.detail));
  }

  acts() {
    return {
      vote: (choice, by) => this.vote(choice, by),
      picture: (index, by) => (isSet(this.current) ? this.pick(index, by) : this.vote(SIDES[index], by)),
      strength: (strength) => this.strengthChosen(strength),
      undo: () => this.undo(),
      zoom: () => this.zoom.toggle(),
      report: () => this.asides.report(),
      comment: () => this.asides.comment(),
      consent: () => this.asides.askConsent(),
      login: () => this.asides.signIn(),
      keys: () => this.showKeys(),
      you: () => this.asides.showYou(),
    };
  }

  showKeys() {
    keysDialog(this, this.view.size, this.current?.asked.strength ?? false);
  }

  /** What depends on the language or the person, but not on the pair. */
  refresh() {
    this.view.showName(session.shown);
    this.view.showGoal(sitting);
    this.sent.show();
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
    ranking.end();
    this.current = this.bringing = null;
    this.asides.forget();
    this.closeStrength();
    this.showWaiting();
    this.supply.reset();
  }

  /** Whether there is nothing to answer, or this is the second click on what was answered by the first. */
  early(by) {
    return this.current === null || (by === "click" && performance.now() - this.shownAt < CLICK_GUARD_MS);
  }

  vote(choice, by, strength = null) {
    if (this.early(by)) return;
    const sided = SIDES.includes(choice);
    const { asked } = this.current;
    if (sided && asked.strength && strength === null) {
      this.chosen = choice;
      this.view.askStrength(choice);
      return;
    }
    const said = t(wordOf(isSet(this.current) && choice === "both_bad", `said.${choice}`));
    const marks = { left: [0], right: [1], tie: [0, 1] }[choice] ?? [];
    this.take(choice, sided && asked.strength ? { strength } : {}, said, marks);
  }

  /** A picture of a set is the best of those without a place. The last place fills itself, and that is the answer. */
  pick(index, by) {
    if (this.early(by) || !ranking.open(index)) return;
    const order = ranking.pick(index);
    if (order)
      this.take(null, { order }, t("said.ranked", { order: order.map((place) => place + 1).join(", ") }), [order[0]]);
    else this.placesChanged(placed(index, ranking.picks.length - 1));
  }

  placesChanged(said) {
    this.view.showPair(this.current);
    this.view.setBusy(false, this.undoable);
    this.view.said.textContent = said;
  }

  get undoable() {
    return past.length > 0 || ranking.picks.length > 0;
  }

  /** Take an answer: shown as taken at once, sent in the background, and the next pair comes up. */
  take(choice, asked, said, marks) {
    const pair = this.current;
    const elapsed = performance.now() - this.shownAt;
    this.current = null;
    this.closeStrength();
    ranking.end();
    outbox.vote(pair.token, pair.id, choice, elapsed, { ...asked, ...(pair.comment && { comment: pair.comment }) });
    const counted = choice !== "skip";
    if (counted) sitting.add(elapsed);
    past.push(pair, counted);
    this.view.flash(marks);
    this.view.showGoal(sitting);
    this.advance(said);
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

  /** Take the last pick back; where there is none, bring the last pair back. */
  undo() {
    const unplaced = this.current ? ranking.takeBack() : null;
    if (unplaced !== null) {
      this.placesChanged(t("said.unplaced", { number: unplaced + 1 }));
      return;
    }
    const entry = past.pop();
    if (!entry) return;
    if (this.current) this.supply.putBack(this.current);
    this.current = null;
    this.closeStrength();
    ranking.set = null;
    outbox.undo(entry.token, entry.id, entry.vote);
    if (entry.counted) sitting.remove();
    this.view.showGoal(sitting);
    if (entry.pair) this.show(entry.pair, t(wordOf(isSet(entry.pair), "said.undone")));
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
    if (isSet(pair)) ranking.begin(pair);
    this.gestures.sided = !isSet(pair);
    this.view.showPair(pair);
    this.view.setBusy(false, this.undoable);
    this.view.said.textContent = said;
    this.shownAt = performance.now();
    this.asides.pairCame();
  }

  /** Nothing to show right now, and why. */
  showWaiting() {
    this.zoom.off();
    const set = this.view.size > 2;
    const held = outbox.trouble ? outbox.ops.length : 0;
    this.view.question.textContent = t(wordOf(set, "question.overall"));
    this.view.prompt.textContent = whyWaiting({
      trouble: this.trouble,
      held,
      bringing: this.bringing,
      judged: past.length > 0,
      set,
    });
    this.view.setBusy(true, past.length > 0);
  }

  supplyFailed(error) {
    this.trouble = error;
    this.view.showName(session.shown);
    if (this.current !== null) return;
    this.showWaiting();
    this.asides.failed(error);
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
    this.view.setBusy(this.current === null, this.undoable);
  }

  /** Show neither this pair nor, if the studio took it out of the pool, another question about it. */
  passOver(pair) {
    if (this.current === pair) {
      this.current = null;
      ranking.end();
    }
    this.closeStrength();
    this.supply.reset([pair.id, this.current?.id].filter(Boolean));
    if (this.current === null) this.showWaiting();
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
