// Votes on their way to the studio: kept in the browser's storage until they are acknowledged, sent in order, sent again
// after any failure that may pass. The studio takes the same vote twice as one, so sending again is safe.

import { api, ApiError, storage } from "../lib/studio.js";

const PREFIX = "dmpo.op.";
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;

/** Fires "change" (something was queued, sent or held up), "taken" (detail: {assignment, answer}) and "refused". */
export class Outbox extends EventTarget {
  constructor() {
    super();
    this.sequence = 0;
    this.voteIds = new Map(); // assignment -> id of its vote, for undoing
    this.sending = null;
    this.trouble = null; // the ApiError that holds sending up
    this.waiting = null;
    this.ops = this.restore();
    addEventListener("online", () => this.hurry());
    if (this.ops.length > 0) this.run();
  }

  /** What another page, or this one before a reload, could not send. Doubles do no harm. */
  restore() {
    const keys = [];
    for (let i = 0; i < storage.length; i++) {
      const key = storage.key(i);
      if (key?.startsWith(PREFIX)) keys.push(key);
    }
    const ops = [];
    for (const key of keys.sort()) {
      try {
        ops.push({ ...JSON.parse(storage.getItem(key)), key, tried: true });
      } catch {
        storage.removeItem(key); // not one of ours
      }
    }
    return ops;
  }

  /** `choice`: null for a ranking. `more`: what goes with it: {order, strength, comment}. */
  vote(token, assignment, choice, elapsedMs, more = {}) {
    this.push({ kind: "vote", token, assignment, choice, elapsedMs: Math.round(elapsedMs), more });
  }

  /** Whether an assignment has an answer here, sent or not. */
  answered(assignment) {
    if (this.voteIds.has(assignment)) return true;
    return this.ops.findLast((op) => op.assignment === assignment)?.kind === "vote";
  }

  /** Take the vote on an assignment back. One that was never tried to be sent is simply dropped. */
  undo(token, assignment, voteId = null) {
    const unsent = this.ops.findLast((op) => op.kind === "vote" && op.assignment === assignment);
    if (unsent && !unsent.tried) {
      this.drop(unsent);
      this.changed();
      return;
    }
    this.push({ kind: "undo", token, assignment, vote: this.voteIds.get(assignment) ?? voteId });
  }

  /** Votes that count towards a round and are not acknowledged. */
  get pendingPreferences() {
    const counts = (op) => op.kind === "vote" && (op.more?.order || ["left", "right", "tie"].includes(op.choice));
    return this.ops.filter(counts).length;
  }

  /** Stop waiting for the next try. */
  hurry() {
    this.waiting?.();
  }

  push(op) {
    op.key = `${PREFIX}${Date.now().toString(36).padStart(10, "0")}.${String(this.sequence++).padStart(6, "0")}.${Math.random().toString(36).slice(2, 8)}`;
    this.ops.push(op);
    try {
      const { key, tried, ...kept } = op;
      storage.setItem(key, JSON.stringify(kept));
    } catch {
      // Storage is full: the vote is still in memory and will be sent from there.
    }
    this.changed();
    this.run();
  }

  drop(op) {
    this.ops = this.ops.filter((other) => other !== op);
    storage.removeItem(op.key);
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  run() {
    this.sending ??= this.sendAll().finally(() => {
      this.sending = null;
      if (this.ops.length > 0) this.run();
    });
  }

  async sendAll() {
    let wait = FIRST_WAIT_MS;
    while (this.ops.length > 0) {
      const op = this.ops[0];
      op.tried = true;
      try {
        await this.send(op);
        this.trouble = null;
        wait = FIRST_WAIT_MS;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.passing || error.code === "consent_needed") {
          this.trouble = error;
          this.changed();
          await this.pause(Math.max(wait, 1000 * (error.retrySeconds ?? 0)));
          wait = Math.min(2 * wait, LONGEST_WAIT_MS);
          continue;
        }
        this.drop(op);
        this.trouble = null;
        this.dispatchEvent(new CustomEvent("refused", { detail: { ...op, error } }));
      }
      this.changed();
    }
  }

  async send(op) {
    const { token, assignment, choice, elapsedMs, more } = op;
    if (op.kind === "vote") {
      const body = { assignment, ...(choice !== null && { choice }), elapsed_ms: elapsedMs, ...more };
      const answer = await api("POST", "votes", { body, token });
      this.voteIds.set(assignment, answer.vote);
      this.drop(op);
      this.dispatchEvent(new CustomEvent("taken", { detail: { ...op, answer } }));
      return;
    }
    const vote = op.vote ?? this.voteIds.get(assignment) ?? null;
    if (vote === null) throw new ApiError(404, "That vote was not taken, so it cannot be taken back.");
    const answer = await api("DELETE", `votes/${vote}`, { token });
    this.voteIds.delete(assignment);
    this.drop(op);
    this.dispatchEvent(new CustomEvent("undone", { detail: { ...op, answer } }));
  }

  pause(milliseconds) {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.waiting = null;
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      this.waiting = done;
    });
  }
}
