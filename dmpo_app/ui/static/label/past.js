// The last answers, so that they can be undone, also after a reload.

import { storage } from "../lib/studio.js";

const KEPT = "dmpo.past";
export const MAX_UNDO = 10;

export class Past {
  constructor() {
    this.entries = [];
    try {
      const kept = JSON.parse(storage.getItem(KEPT) ?? "[]");
      this.entries = kept
        .filter((entry) => typeof entry.id === "string" && typeof entry.token === "string")
        .slice(-MAX_UNDO);
    } catch {
      storage.removeItem(KEPT); // not one of ours
    }
  }

  get length() {
    return this.entries.length;
  }

  /** `pair`: as it was shown; `counted`: whether the session counted it. */
  push(pair, counted) {
    this.entries = [...this.entries, { id: pair.id, token: pair.token, vote: null, counted, pair }].slice(-MAX_UNDO);
    this.keep();
  }

  /** The latest entry, or undefined. After a reload it has no `pair`. */
  pop() {
    const entry = this.entries.pop();
    this.keep();
    return entry;
  }

  /** The studio took an answer under this number. */
  taken(id, vote) {
    const entry = this.entries.findLast((candidate) => candidate.id === id);
    if (!entry) return;
    entry.vote = vote;
    this.keep();
  }

  clear() {
    this.entries = [];
    this.keep();
  }

  keep() {
    try {
      storage.setItem(KEPT, JSON.stringify(this.entries.map(({ pair, ...kept }) => kept)));
    } catch {
      // Storage is full: undo then ends at the next reload.
    }
  }
}
