// @ts-check
// Votes on their way to the studio: kept in the browser's storage until they are acknowledged, sent in order, sent again
// after any failure that may pass. The studio takes the same vote twice as one, so sending again is safe.

import { api, ApiError } from "../lib/api.js";
import { storage } from "../lib/storage.js";

/** @import { Answer, Choice, VoteBody } from "../lib/types.js" */

/**
 * @typedef {{ key: string, tried: boolean, token: string, assignment: string }} Common
 * @typedef {Pick<VoteBody, "order" | "strength" | "comment">} VoteDetails
 * @typedef {Common & { kind: "vote", choice: Choice | null, elapsedMs: number, more: VoteDetails }} VoteOperation
 * @typedef {Common & { kind: "undo", vote: number | null }} UndoOperation `vote`: its number, where it is known
 * @typedef {VoteOperation | UndoOperation} OutboxOperation
 * @typedef {{ assignment: string, answer: Answer<"POST votes"> }} Acknowledgement
 * @typedef {{ kind: "vote" | "undo", token: string, assignment: string, error: ApiError }} Refusal
 */

const PREFIX = "dmpo.op.";
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;
const PREFERENCES = ["left", "right", "tie"];

/**
 * Fires "change" (something was queued, sent or held up), "taken" and "undone" (detail: Acknowledgement) and "refused"
 * (detail: Refusal).
 */
export class Outbox extends EventTarget {
  #sequence = 0;
  /** The numbers of votes by assignment, for undoing. @type {Map<string, number>} */
  #votes = new Map();
  /** @type {Promise<void> | null} */
  #sending = null;
  /** @type {(() => void) | null} */
  #stopWaiting = null;

  /** The error that holds sending up. @type {ApiError | null} */
  trouble = null;

  constructor() {
    super();
    /** @type {OutboxOperation[]} */
    this.operations = restoreOperations();
    addEventListener("online", () => this.retryNow());
    if (this.operations.length > 0) this.#run();
  }

  /**
   * @param {string} token
   * @param {string} assignment
   * @param {Choice | null} choice null for a ranking
   * @param {number} elapsedMs
   * @param {VoteDetails} more
   */
  vote(token, assignment, choice, elapsedMs, more = {}) {
    this.#push({
      ...newOperation(this.#sequence++, token, assignment),
      kind: "vote",
      choice,
      elapsedMs: Math.round(elapsedMs),
      more,
    });
  }

  /**
   * Whether there is a vote on an assignment here, sent or not.
   *
   * @param {string} assignment
   */
  hasVote(assignment) {
    if (this.#votes.has(assignment)) return true;
    return this.operations.findLast((operation) => operation.assignment === assignment)?.kind === "vote";
  }

  /**
   * Take the vote on an assignment back. One that was never tried to be sent is simply dropped.
   *
   * @param {string} token
   * @param {string} assignment
   * @param {number | null} vote its number, if it is known from before a reload
   */
  undo(token, assignment, vote = null) {
    const unsent = this.operations.findLast(
      (operation) => operation.kind === "vote" && operation.assignment === assignment,
    );
    if (unsent && !unsent.tried) {
      this.#drop(unsent);
      this.#changed();
      return;
    }
    const number = this.#votes.get(assignment) ?? vote;
    this.#push({ ...newOperation(this.#sequence++, token, assignment), kind: "undo", vote: number });
  }

  /** Votes that count towards a round and are not acknowledged. */
  get pendingPreferences() {
    return this.operations.filter(isPreference).length;
  }

  /** Stop waiting for the next try. */
  retryNow() {
    this.#stopWaiting?.();
  }

  /** @param {OutboxOperation} operation */
  #push(operation) {
    this.operations.push(operation);
    const { key, tried, ...stored } = operation;
    try {
      storage.setItem(key, JSON.stringify(stored));
    } catch {
      // Storage is full: the vote is still in memory and will be sent from there.
    }
    this.#changed();
    this.#run();
  }

  /** @param {OutboxOperation} operation */
  #drop(operation) {
    this.operations = this.operations.filter((other) => other !== operation);
    storage.removeItem(operation.key);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #run() {
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = null;
      if (this.operations.length > 0) this.#run();
    });
  }

  async #sendAll() {
    let wait = FIRST_WAIT_MS;
    while (this.operations.length > 0) {
      const operation = this.operations[0];
      operation.tried = true;
      try {
        await this.#send(operation);
        this.trouble = null;
        wait = FIRST_WAIT_MS;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.isRetryable || error.code === "consent_needed") {
          this.trouble = error;
          this.#changed();
          await this.#pause(Math.max(wait, 1000 * (error.retrySeconds ?? 0)));
          wait = Math.min(2 * wait, LONGEST_WAIT_MS);
          continue;
        }
        this.#drop(operation);
        this.trouble = null;
        const { kind, token, assignment } = operation;
        this.#tell("refused", /** @type {Refusal} */ ({ kind, token, assignment, error }));
      }
      this.#changed();
    }
  }

  /** @param {OutboxOperation} operation */
  async #send(operation) {
    const { token, assignment } = operation;
    if (operation.kind === "vote") {
      const { choice, elapsedMs, more } = operation;
      const body = { assignment, ...(choice !== null && { choice }), elapsed_ms: elapsedMs, ...more };
      const answer = await api("POST votes", { body, token });
      this.#votes.set(assignment, answer.vote);
      this.#drop(operation);
      this.#tell("taken", /** @type {Acknowledgement} */ ({ assignment, answer }));
      return;
    }
    const vote = operation.vote ?? this.#votes.get(assignment) ?? null;
    if (vote === null) throw new ApiError(404, "That vote was not taken, so it cannot be taken back.");
    const answer = await api("DELETE votes/{vote_id}", { params: { vote_id: vote }, token });
    this.#votes.delete(assignment);
    this.#drop(operation);
    this.#tell("undone", /** @type {Acknowledgement} */ ({ assignment, answer }));
  }

  /**
   * @param {string} event
   * @param {Acknowledgement | Refusal} detail
   */
  #tell(event, detail) {
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }

  /**
   * @param {number} milliseconds
   * @returns {Promise<void>}
   */
  #pause(milliseconds) {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#stopWaiting = null;
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      this.#stopWaiting = done;
    });
  }
}

/**
 * A key that sorts by time, also among the operations of several pages.
 *
 * @param {number} sequence
 * @param {string} token
 * @param {string} assignment
 */
function newOperation(sequence, token, assignment) {
  const time = Date.now().toString(36).padStart(10, "0");
  const random = Math.random().toString(36).slice(2, 8);
  return { key: `${PREFIX}${time}.${String(sequence).padStart(6, "0")}.${random}`, tried: false, token, assignment };
}

/** @param {OutboxOperation} operation */
function isPreference(operation) {
  if (operation.kind !== "vote") return false;
  return Boolean(operation.more?.order) || PREFERENCES.includes(operation.choice ?? "");
}

/**
 * The operations that another page, or this one before a reload, could not send. Doubles do no harm.
 *
 * @returns {OutboxOperation[]}
 */
function restoreOperations() {
  const keys = [];
  for (let i = 0; i < storage.length; i++) {
    const key = storage.key(i);
    if (key?.startsWith(PREFIX)) keys.push(key);
  }
  const operations = [];
  for (const key of keys.sort()) {
    try {
      operations.push({ ...JSON.parse(storage.getItem(key) ?? ""), key, tried: true });
    } catch {
      storage.removeItem(key); // not one of ours
    }
  }
  return operations;
}
