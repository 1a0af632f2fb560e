// @ts-check
// <dmpo-label>: two images and one question, or three or four to rank. Every vote is taken at once; the outbox tells the
// studio.

import { isDialogOpen } from "../lib/dialog.js";
import { isShown, takesKeys } from "../lib/dom.js";
import { words } from "../lib/lang.js";
import { session } from "../lib/session.js";
import { statusFeed } from "../lib/status.js";
import { storage } from "../lib/storage.js";
import { openKeys } from "./dialogs.js";
import { Gestures } from "./gestures.js";
import { keyCommand } from "./keys.js";
import { refusalText, savingText, waitingText } from "./messages.js";
import { Outbox } from "./outbox.js";
import { isSet, Ranking } from "./rank.js";
import { SessionStats } from "./session-stats.js";
import { SidePanels } from "./side-panels.js";
import { UndoHistory } from "./undo-history.js";
import { LabelView } from "./view.js";
import { VotingSession } from "./voting-session.js";
import { Zoom } from "./zoom.js";

/** @import { Status } from "../lib/types.js" */
/** @import { Command } from "./keys.js" */
/** @import { Handlers } from "./view.js" */

const KIND = "dmpo.kind"; // of what is voted on, kept over a reload
const PRESSED_BY_SPACE = "button:not([role=tab][aria-selected=true]), a, summary"; // with the focus it comes first

// One of each a page, also if Gradio builds the element anew.
const outbox = new Outbox();
const stats = new SessionStats();
const history = new UndoHistory();
const ranking = new Ranking();

/** Joins the state of voting with its view while the element is on the page. */
class LabelWidget {
  /** @type {number | null} */
  #liveVersion = null;
  #listening = new AbortController();

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.voting = new VotingSession({ outbox, history, stats, ranking, kind: storedKind() });
    this.view = new LabelView(root, this.handlers());
    this.zoom = new Zoom(this.view.pair, (on) => this.view.zoomButton.setAttribute("aria-pressed", String(on)));
    this.gestures = new Gestures(this.view.pair, this.zoom, (side) => this.voting.choose(side, "swipe"));
    this.panels = new SidePanels(root, this.view, this.voting, stats);
    document.body.append(this.view.toasts); // seen from every tab
    this.listen();
    this.render();
    this.showSaving();
    this.unsubscribe = statusFeed.listen((status) => this.statusCame(status));
    this.voting.start();
  }

  close() {
    this.#listening.abort();
    this.unsubscribe();
    this.voting.stop();
    this.view.toasts.remove();
  }

  /** @returns {Handlers} */
  handlers() {
    return {
      choose: (choice, by) => this.voting.choose(choice, by),
      chooseImage: (index, by) => this.voting.chooseImage(index, by),
      answerStrength: (strength) => this.voting.answerStrength(strength),
      undo: () => this.voting.undo(),
      zoom: () => this.zoom.toggle(),
      report: () => this.panels.report(),
      comment: () => this.panels.comment(),
      consent: () => this.panels.consent(),
      login: () => this.panels.signIn(),
      keys: () => this.showKeys(),
      judge: () => this.switchKind(),
      personalSettings: () => this.panels.personalSettings(),
    };
  }

  listen() {
    /** @param {EventTarget} target @param {string} name @param {(event: any) => void} listener */
    const on = (target, name, listener) => target.addEventListener(name, listener, { signal: this.#listening.signal });
    on(document, "keydown", (event) => this.keyDown(event));
    on(document, "keyup", (event) => event.key === " " && this.zoom.release());
    on(window, "blur", () => this.zoom.release());
    on(words, "change", () => this.retext());
    on(outbox, "change", () => this.showSaving());
    on(this.voting, "pair", () => this.pairCame());
    on(this.voting, "taken", (event) => this.view.flash(event.detail));
    on(this.voting, "trouble", (event) => this.panels.refused(event.detail));
    on(this.voting, "refused", ({ detail }) => this.view.toast(refusalText(detail, detail.error.status)));
    on(this.voting, "change", (event) => {
      this.render();
      if (event.detail !== null) this.view.announce(event.detail);
    });
  }

  /** Show the state of voting. */
  render() {
    const { state, canUndo, hasVoted, kind, noDuels } = this.voting;
    this.view.showKind(kind);
    this.view.showName(session.displayName);
    this.view.showGoal(stats);
    this.view.askStrength(state.name === "asking-strength" ? state.side : null);
    if (state.name !== "waiting") {
      this.view.showPair(state.pair, canUndo);
      return;
    }
    this.zoom.off();
    const reason = waitingText({
      trouble: this.voting.trouble,
      unsent: outbox.trouble ? outbox.operations.length : 0,
      isUndoing: state.pendingUndoId !== null,
      hasVoted,
      set: this.view.size > 2,
      status: statusFeed.last,
      kind,
      noDuels,
    });
    this.view.showWaiting(reason, canUndo);
  }

  pairCame() {
    this.zoom.nextPair();
    this.gestures.hasSides = !isSet(this.voting.pair);
    this.panels.pairShown();
  }

  showSaving() {
    this.panels.refused(outbox.trouble);
    this.view.showSaving(savingText(outbox.trouble, outbox.operations.length), outbox.trouble !== null);
    this.view.card.update(statusFeed.last, outbox.pendingPreferences);
  }

  retext() {
    this.view.retext();
    this.render();
    this.showSaving();
  }

  /** From pairs to duels alone, and back. */
  switchKind() {
    const kind = this.voting.kind === "duels" ? "label" : "duels";
    storage.setItem(KIND, kind);
    this.voting.switchTo(kind);
  }

  showKeys() {
    openKeys(this.root, this.view.size, this.voting.pair?.options.strength ?? false);
  }

  /** @param {KeyboardEvent} event */
  keyDown(event) {
    const isModified = event.ctrlKey || event.metaKey || event.altKey;
    if (isModified || !isShown(this.root) || isDialogOpen() || takesKeys(event.target)) return;
    const command = keyCommand(event, {
      size: this.voting.pair?.images.length ?? 0,
      isAskingStrength: this.voting.state.name === "asking-strength",
      isZoomed: this.zoom.on,
    });
    if (command === null) return;
    if (command.name === "press-zoom" && event.target instanceof Element && event.target.closest(PRESSED_BY_SPACE)) {
      return;
    }
    this.perform(command);
    event.preventDefault();
  }

  /** @param {Command} command */
  perform(command) {
    const { voting, zoom } = this;
    if (command.name === "choose") voting.choose(command.choice, "key", command.strength);
    else if (command.name === "pick") voting.chooseImage(command.index, "key");
    else if (command.name === "pan") zoom.pan(command.dx, command.dy);
    else if (command.name === "press-zoom") zoom.press();
    else if (command.name === "zoom-off") zoom.off();
    else if (command.name === "cancel-strength") voting.answerStrength(null);
    else if (command.name === "undo") voting.undo();
    else this.showKeys();
  }

  /** @param {Status | null} status */
  statusCame(status) {
    this.view.card.update(status ?? statusFeed.last, outbox.pendingPreferences, status === null);
    if (status === null) return;
    this.voting.studioReached();
    const before = this.#liveVersion;
    this.#liveVersion = status.live_version;
    if (before !== null && before !== status.live_version) this.panels.announce(status.live_version);
  }
}

const storedKind = () => (storage.getItem(KIND) === "duels" ? "duels" : "label");

class DmpoLabel extends HTMLElement {
  /** @type {LabelWidget | null} */
  #widget = null;

  connectedCallback() {
    this.#widget = new LabelWidget(this);
  }

  disconnectedCallback() {
    this.#widget?.close();
    this.#widget = null;
  }

  /**
   * Vote under another name from now on.
   *
   * @param {string} handle
   */
  rename(handle) {
    this.#widget?.panels.rename(handle);
  }
}

customElements.define("dmpo-label", DmpoLabel);
