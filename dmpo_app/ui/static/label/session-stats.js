// @ts-check
// Statistics of one person's session on this device: votes, the time each took, the goal, and days in a row.

import { readJson, storage, writeJson } from "../lib/storage.js";

const GOAL = "dmpo.goal";
const SESSION = "dmpo.sitting";
const DAYS = "dmpo.days";
const PAUSE_MS = 30 * 60000; // a longer pause ends a session
const MAX_TIMES = 500;
export const GOALS = [0, 20, 50, 100];

/** @typedef {{ count: number, times: number[], at: number }} SessionState `times` in ms; `at`: of the latest vote */

/** @param {number} time */
function dayNumber(time) {
  const date = new Date(time);
  return Math.round(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86400000);
}

/** @returns {{ last: number, run: number }} the last day with a vote, and days in a row up to it */
const readDays = () => readJson(DAYS) ?? { last: 0, run: 0 };

export class SessionStats {
  /** @type {SessionState} */
  #state;

  /** @param {() => number} now */
  constructor(now = () => Date.now()) {
    this.now = now;
    const stored = readJson(SESSION);
    const goesOn = Array.isArray(stored?.times) && this.now() - stored.at < PAUSE_MS;
    this.#state = goesOn ? stored : { count: 0, times: [], at: 0 };
  }

  get goal() {
    const goal = Number(storage.getItem(GOAL));
    return GOALS.includes(goal) ? goal : 0;
  }

  set goal(votes) {
    writeJson(GOAL, votes);
  }

  get count() {
    return this.#state.count;
  }

  /** Days in a row with a vote, up to today; 0 when the last one was before yesterday. */
  get days() {
    const { last, run } = readDays();
    return dayNumber(this.now()) - last <= 1 ? run : 0;
  }

  /** Median seconds a vote took in this session, or null before the third. */
  get medianSeconds() {
    const sorted = [...this.#state.times].sort((a, b) => a - b);
    const middle = sorted.length >> 1;
    if (sorted.length < 3) return null;
    return (sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2) / 1000;
  }

  /** @param {number} elapsedMs */
  add(elapsedMs) {
    const now = this.now();
    const isOver = now - this.#state.at >= PAUSE_MS;
    const { count, times } = isOver ? { count: 0, times: [] } : this.#state;
    this.#store({ count: count + 1, times: [...times, Math.round(elapsedMs)].slice(-MAX_TIMES), at: now });
    const { last, run } = readDays();
    const today = dayNumber(now);
    if (today !== last) writeJson(DAYS, { last: today, run: today - last === 1 ? run + 1 : 1 });
  }

  /** Take the latest vote back. */
  remove() {
    const { count, times, at } = this.#state;
    this.#store({ count: Math.max(0, count - 1), times: times.slice(0, -1), at });
  }

  /** Where storage is full, the numbers are lost with the page; the votes are not. @param {SessionState} state */
  #store(state) {
    this.#state = state;
    writeJson(SESSION, state);
  }
}
