// @ts-check
// The state of voting, without DOM: the pair that is up for a vote, questions about it, and what an undo brings back.

import { t } from "../lib/lang.js";
import { session } from "../lib/session.js";
import { statusFeed } from "../lib/status.js";
import { choicesFor, SIDES } from "./keys.js";
import { PairSupply } from "./pairs.js";
import { isSet, placeText, textKey } from "./rank.js";

/** @import { ApiError } from "../lib/api.js" */
/** @import { AssignmentKind, Choice, Pair, Side, Status, Strength } from "../lib/types.js" */
/** @import { Acknowledgement, Outbox, Refusal, VoteDetails } from "./outbox.js" */
/** @import { ImageLoader } from "./pairs.js" */
/** @import { Ranking } from "./rank.js" */
/** @import { SessionStats } from "./session-stats.js" */
/** @import { UndoHistory } from "./undo-history.js" */

/**
 * waiting: there is nothing to vote on; with `pendingUndoId` for the assignment that an undo after a reload brings back.
 * showing: a pair, to be voted on.
 * asking-strength: a side of the pair was chosen, and the question is how much better it is.
 * ranking: a set, whose images get their places one by one.
 *
 * @typedef {{ name: "waiting", pendingUndoId: string | null }
 *   | { name: "showing", pair: Pair }
 *   | { name: "asking-strength", pair: Pair, side: Side }
 *   | { name: "ranking", pair: Pair }} VotingState
 *
 * @typedef {"click" | "press" | "key" | "swipe" | "strength"} InputKind a finger or the mouse clicked; a key or an
 *   assistive tool pressed a button; a key of ours; a finger swiped; the question of strength was answered
 *
 * @typedef {object} Parts
 * @property {Outbox} outbox
 * @property {UndoHistory} history
 * @property {SessionStats} stats
 * @property {Ranking} ranking
 * @property {AssignmentKind} [kind] what is voted on: pairs, or duels alone
 * @property {ImageLoader} [loadImages]
 * @property {() => number} [now] in milliseconds
 */

const CLICK_GUARD_MS = 180; // the second click of a double click must not be a vote on the next pair
/** @type {Partial<Record<Choice, number[]>>} */
const CHOSEN_IMAGES = { left: [0], right: [1], tie: [0, 1] };
const NOTHING = /** @type {const} */ ({ name: "waiting", pendingUndoId: null });

/** @param {Choice} choice @returns {choice is Side} */
const isSide = (choice) => choice === "left" || choice === "right";

/**
 * Fires
 * - "change" after anything changed (detail: an announcement for screen readers, or null for none),
 * - "pair" before that, when a pair comes up,
 * - "taken" when a vote was cast (detail: the numbers of the chosen images),
 * - "trouble" when no pairs can be had (detail: ApiError), "refused" when a vote or an undo was (detail: Refusal),
 * - "restart" when it begins anew for another annotator.
 */
export class VotingSession extends EventTarget {
  /** @type {VotingState} */
  #state = NOTHING;
  #shownAt = 0;
  #listening = new AbortController();
  #outbox;
  #history;
  #stats;
  #ranking;
  #supply;
  #now;

  /** The reason why the latest pairs could not be had. @type {ApiError | null} */
  trouble = null;

  /** @param {Parts} parts */
  constructor({ outbox, history, stats, ranking, kind = "label", loadImages, now = () => performance.now() }) {
    super();
    this.#outbox = outbox;
    this.#history = history;
    this.#stats = stats;
    this.#ranking = ranking;
    this.#now = now;
    this.#supply = new PairSupply({
      openElsewhere: () => (this.pair ? 1 : 0) + outbox.operations.length,
      hasVote: (assignment) => outbox.hasVote(assignment),
      loadImages,
    });
    this.#supply.kind = kind;
    this.#listen();
  }

  #listen() {
    /** @param {EventTarget} target @param {string} name @param {(detail: any) => void} listener */
    const on = (target, name, listener) =>
      target.addEventListener(name, (event) => listener(event instanceof CustomEvent ? event.detail : null), {
        signal: this.#listening.signal,
      });
    on(this.#supply, "ready", () => this.#pairReady());
    on(this.#supply, "missing", (id) => this.#giveUp(id));
    on(this.#supply, "empty", () => this.#state.name === "waiting" && this.#changed());
    on(this.#supply, "trouble", (error) => this.#supplyFailed(error));
    on(this.#outbox, "taken", (acknowledgement) => this.#voteTaken(acknowledgement));
    on(this.#outbox, "undone", (acknowledgement) => this.#voteUndone(acknowledgement));
    on(this.#outbox, "refused", (refusal) => this.#refused(refusal));
  }

  start() {
    this.#supply.start();
  }

  stop() {
    this.#listening.abort();
    this.#supply.stop();
  }

  get state() {
    return this.#state;
  }

  /** The pair that is up for a vote, or null. */
  get pair() {
    return this.#state.name === "waiting" ? null : this.#state.pair;
  }

  get kind() {
    return this.#supply.kind;
  }

  /** The reason why there are no duels, where they were asked for. */
  get noDuels() {
    return this.#supply.noDuels;
  }

  get canUndo() {
    return this.hasVoted || this.#ranking.picks.length > 0;
  }

  /** Whether there is a vote that an undo would bring back. */
  get hasVoted() {
    return this.#history.length > 0;
  }

  /**
   * Vote on the pair, or have the question of strength asked first.
   *
   * @param {Choice} choice
   * @param {InputKind} by
   * @param {Strength | null} strength
   */
  choose(choice, by, strength = null) {
    const { pair } = this;
    if (pair === null || this.#isDoubleClick(by)) return;
    if (!choicesFor(isSet(pair)).some((row) => row.choice === choice)) return;
    const asksStrength = isSide(choice) && pair.options.strength;
    if (asksStrength && strength === null) {
      this.#state = { name: "asking-strength", pair, side: choice };
      this.#changed();
      return;
    }
    const announcement = t(textKey(isSet(pair) && choice === "both_bad", `said.${choice}`));
    this.#take(pair, choice, asksStrength ? { strength } : {}, announcement, CHOSEN_IMAGES[choice] ?? []);
  }

  /**
   * An image of a pair is the better one. An image of a set is the best of those without a place; the last place fills
   * itself, and that is the vote.
   *
   * @param {number} index
   * @param {InputKind} by
   */
  chooseImage(index, by) {
    if (this.#state.name !== "ranking") this.choose(SIDES[index], by);
    else if (!this.#isDoubleClick(by) && this.#ranking.isOpen(index)) this.#pick(this.#state.pair, index);
  }

  /**
   * @param {Pair} set
   * @param {number} index
   */
  #pick(set, index) {
    const order = this.#ranking.pick(index);
    if (order === null) {
      this.#changed(placeText(index, this.#ranking.picks.length - 1));
      return;
    }
    const places = order.map((image) => image + 1).join(", ");
    this.#take(set, null, { order }, t("said.ranked", { order: places }), [order[0]]);
  }

  /**
   * How much better the chosen side is; null: back to the choices.
   *
   * @param {Strength | null} strength
   */
  answerStrength(strength) {
    if (this.#state.name !== "asking-strength") return;
    const { pair, side } = this.#state;
    this.#state = { name: "showing", pair };
    if (strength === null) this.#changed();
    else this.choose(side, "strength", strength);
  }

  /** Take the last pick back; where there is none, bring the last pair back. */
  undo() {
    const unplaced = this.#state.name === "ranking" ? this.#ranking.takeBack() : null;
    if (unplaced !== null) {
      this.#changed(t("said.unplaced", { number: unplaced + 1 }));
      return;
    }
    const entry = this.#history.pop();
    if (!entry) return;
    if (this.pair) this.#supply.putBack(this.pair);
    this.#state = { name: "waiting", pendingUndoId: entry.pair ? null : entry.id };
    this.#outbox.undo(entry.token, entry.id, entry.vote);
    if (entry.counted) this.#stats.remove();
    if (entry.pair) this.#show(entry.pair, t(textKey(isSet(entry.pair), "said.undone")));
    else {
      this.#supply.want(entry.id);
      this.#changed();
    }
  }

  /** Another annotator votes, so other pairs. */
  restart() {
    this.#beginAnew();
    this.dispatchEvent(new Event("restart"));
    this.#changed();
    this.#supply.reset();
  }

  /**
   * Vote on another kind from now on. What is open stays so at the studio, and comes again with its kind.
   *
   * @param {AssignmentKind} kind
   */
  switchTo(kind) {
    this.#beginAnew();
    this.#supply.kind = kind;
    this.#supply.reset();
    this.#changed();
  }

  #beginAnew() {
    this.#history.clear();
    this.#ranking.end();
    this.#state = NOTHING;
    this.trouble = null;
  }

  /** Consent was given that was missing: go on. */
  resume() {
    this.trouble = null;
    this.#outbox.retryNow();
    if (this.#state.name === "waiting") this.#changed();
    this.#supply.fill();
  }

  /** All votes are withdrawn: there is nothing left to undo. */
  forgetVotes() {
    this.#history.clear();
    this.#changed();
  }

  /**
   * Show neither this pair nor, if the studio took it out of the pool, another question about it.
   *
   * @param {Pair} pair
   */
  passOver(pair) {
    const current = this.pair;
    if (current === pair) {
      this.#state = NOTHING;
      this.#ranking.end();
    } else if (this.#state.name === "asking-strength") this.#state = { name: "showing", pair: this.#state.pair };
    this.#supply.reset([pair.id, ...(current ? [current.id] : [])]);
    this.#changed();
  }

  /**
   * The pair got a comment, which goes with the vote.
   *
   * @param {Pair} pair
   * @param {string} comment
   */
  setComment(pair, comment) {
    pair.comment = comment;
    if (this.pair === pair) this.#changed();
  }

  /** The studio can be reached: whatever waits for it may go on. */
  studioReached() {
    if (this.#outbox.trouble) this.#outbox.retryNow();
    if (this.#state.name === "waiting" && this.trouble === null) this.#supply.fill();
  }

  /** @param {InputKind} by */
  #isDoubleClick(by) {
    return by === "click" && this.#now() - this.#shownAt < CLICK_GUARD_MS;
  }

  /**
   * Take a vote: shown as taken at once, sent in the background, and the next pair comes up.
   *
   * @param {Pair} pair
   * @param {Choice | null} choice null for a ranking
   * @param {VoteDetails} details
   * @param {string} announcement
   * @param {number[]} chosenImages
   */
  #take(pair, choice, details, announcement, chosenImages) {
    const elapsed = this.#now() - this.#shownAt;
    this.#state = NOTHING;
    this.#ranking.end();
    const comment = pair.comment ? { comment: pair.comment } : {};
    this.#outbox.vote(pair.token, pair.id, choice, elapsed, { ...details, ...comment });
    const counted = choice !== "skip";
    if (counted) this.#stats.add(elapsed);
    this.#history.push(pair, counted);
    this.dispatchEvent(new CustomEvent("taken", { detail: chosenImages }));
    this.#advance(announcement);
  }

  /** A pair came; while one is being brought back, only that one is shown. */
  #pairReady() {
    if (this.#state.name !== "waiting") return;
    const { pendingUndoId } = this.#state;
    if (pendingUndoId === null || this.#supply.ready[0].id === pendingUndoId) this.#advance("");
  }

  /**
   * The pair that an undo was to bring back does not come.
   *
   * @param {string} id
   */
  #giveUp(id) {
    this.#supply.unwant(id);
    if (this.#state.name !== "waiting" || this.#state.pendingUndoId !== id) return;
    this.#state = NOTHING;
    this.#advance("");
  }

  /** @param {string} announcement */
  #advance(announcement) {
    const pair = this.#supply.next();
    if (pair) this.#show(pair, announcement && `${announcement} ${t("said.next", { prompt: pair.prompt })}`);
    else this.#changed(announcement);
  }

  /**
   * @param {Pair} pair
   * @param {string} announcement
   */
  #show(pair, announcement) {
    this.#state = { name: isSet(pair) ? "ranking" : "showing", pair };
    this.trouble = null;
    if (isSet(pair)) this.#ranking.begin(pair);
    this.dispatchEvent(new Event("pair"));
    this.#changed(announcement);
    this.#shownAt = this.#now();
  }

  /** @param {ApiError} error */
  #supplyFailed(error) {
    this.trouble = error;
    this.#changed();
    if (this.#state.name === "waiting") this.dispatchEvent(new CustomEvent("trouble", { detail: error }));
  }

  /** @param {Acknowledgement} acknowledgement */
  #voteTaken({ assignment, answer }) {
    this.#history.voteTaken(assignment, answer.vote);
    countVotes(answer.votes_until_round, 1);
  }

  /** @param {Acknowledgement} acknowledgement */
  #voteUndone({ assignment, answer }) {
    this.#supply.reopened(assignment);
    countVotes(answer.votes_until_round, -1);
  }

  /**
   * The studio refused something that was shown as taken.
   *
   * @param {Refusal} refusal
   */
  #refused(refusal) {
    if (refusal.kind === "undo") this.#giveUp(refusal.assignment);
    if (refusal.error.status === 401) {
      session.forget(refusal.token);
      this.restart();
    }
    this.dispatchEvent(new CustomEvent("refused", { detail: refusal }));
  }

  /** @param {string | null} announcement */
  #changed(announcement = null) {
    this.dispatchEvent(new CustomEvent("change", { detail: announcement }));
  }
}

/**
 * Count with an acknowledgement rather than wait for the next poll.
 *
 * @param {number} untilRound
 * @param {number} added
 */
function countVotes(untilRound, added) {
  /** @type {Status | null} */
  const status = statusFeed.last;
  if (!status) return;
  status.votes_until_round = untilRound;
  status.votes += added;
}
