// One sitting of one person on this device: how many votes, how long each took, the goal, and days in a row.

import { storage } from "../lib/studio.js";

const GOAL = "dmpo.goal";
const SITTING = "dmpo.sitting";
const DAYS = "dmpo.days";
const PAUSE_MS = 30 * 60000; // a longer pause ends a sitting
const MAX_TIMES = 500;
export const GOALS = [0, 20, 50, 100];

function read(key, fallback) {
  try {
    return JSON.parse(storage.getItem(key)) ?? fallback;
  } catch {
    return fallback; // not one of ours
  }
}

function keep(key, value) {
  try {
    storage.setItem(key, JSON.stringify(value));
  } catch {
    // Storage is full: the numbers of this sitting are then lost with the page, the votes are not.
  }
}

const dayOf = (time) => {
  const date = new Date(time);
  return Math.round(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86400000);
};

export class Sitting {
  constructor(now = () => Date.now()) {
    this.now = now;
    const fresh = { count: 0, times: [], at: 0 };
    const kept = read(SITTING, fresh);
    this.state = Array.isArray(kept.times) && this.now() - kept.at < PAUSE_MS ? kept : fresh;
  }

  get goal() {
    const goal = Number(storage.getItem(GOAL));
    return GOALS.includes(goal) ? goal : 0;
  }

  set goal(votes) {
    keep(GOAL, votes);
  }

  get count() {
    return this.state.count;
  }

  /** Days in a row with a vote, up to today; 0 when the last one was before yesterday. */
  get days() {
    const { last, run } = read(DAYS, { last: 0, run: 0 });
    return dayOf(this.now()) - last <= 1 ? run : 0;
  }

  /** Median seconds a vote took in this sitting, or null before the third. */
  get medianSeconds() {
    const sorted = [...this.state.times].sort((a, b) => a - b);
    const middle = sorted.length >> 1;
    if (sorted.length < 3) return null;
    return (sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2) / 1000;
  }

  add(elapsedMs) {
    const now = this.now();
    const long = now - this.state.at >= PAUSE_MS;
    const { count, times } = long ? { count: 0, times: [] } : this.state;
    this.state = { count: count + 1, times: [...times, Math.round(elapsedMs)].slice(-MAX_TIMES), at: now };
    keep(SITTING, this.state);
    const { last, run } = read(DAYS, { last: 0, run: 0 });
    const today = dayOf(now);
    if (today !== last) keep(DAYS, { last: today, run: today - last === 1 ? run + 1 : 1 });
  }

  /** Take the latest vote back. */
  remove() {
    const { count, times, at } = this.state;
    this.state = { count: Math.max(0, count - 1), times: times.slice(0, -1), at };
    keep(SITTING, this.state);
  }
}
