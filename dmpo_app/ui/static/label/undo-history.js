// @ts-check
// The last votes, so that they can be undone, also after a reload.

import { readJson, writeJson } from "../lib/storage.js";

/** @import { Pair } from "../lib/types.js" */

/**
 * @typedef {object} UndoEntry
 * @property {string} id of the assignment
 * @property {string} token of the session that voted
 * @property {number | null} vote its number, once the studio took it
 * @property {boolean} counted whether the session's statistics count it
 * @property {Pair} [pair] as it was shown; not after a reload
 */

const HISTORY = "dmpo.past";
export const MAX_UNDO = 10;

/** @param {any} entry */
const isEntry = (entry) => typeof entry?.id === "string" && typeof entry?.token === "string";

export class UndoHistory {
  /** @type {UndoEntry[]} */
  #entries;

  constructor() {
    const stored = readJson(HISTORY);
    this.#entries = Array.isArray(stored) ? stored.filter(isEntry).slice(-MAX_UNDO) : [];
  }

  get length() {
    return this.#entries.length;
  }

  /**
   * @param {Pair} pair
   * @param {boolean} counted
   */
  push(pair, counted) {
    this.#entries = [...this.#entries, { id: pair.id, token: pair.token, vote: null, counted, pair }].slice(-MAX_UNDO);
    this.#store();
  }

  /** The latest entry, which is then gone. */
  pop() {
    const entry = this.#entries.pop();
    this.#store();
    return entry;
  }

  /**
   * The studio took the vote on an assignment under this number.
   *
   * @param {string} id
   * @param {number} vote
   */
  voteTaken(id, vote) {
    const entry = this.#entries.findLast((candidate) => candidate.id === id);
    if (!entry) return;
    entry.vote = vote;
    this.#store();
  }

  clear() {
    this.#entries = [];
    this.#store();
  }

  /** Where storage is full, undo ends at the next reload. */
  #store() {
    writeJson(
      HISTORY,
      this.#entries.map(({ pair, ...stored }) => stored),
    );
  }
}
