// Statistics of a session: counts, pace, goal and days in a row, over reloads and pauses.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { freshPage, storage } from "./page.js";
import { SessionStats } from "../../dmpo_app/ui/static/label/session-stats.js";

const MINUTE = 60000;
const DAY = 24 * 60 * MINUTE;
let now = 0;
const newStats = () => new SessionStats(() => now);

beforeEach(() => {
  freshPage();
  now = new Date(2026, 2, 10, 12).getTime();
});

test("the median time is known from the third vote on", () => {
  const stats = newStats();
  const medians = [4000, 1000, 2000, 9000].map((elapsed) => {
    stats.add(elapsed);
    return stats.medianSeconds;
  });
  assert.deepEqual(medians, [null, null, 2, 3]);
});

test("an undone vote is counted neither in number nor in time", () => {
  const stats = newStats();
  for (const elapsed of [1000, 2000, 3000, 60000]) stats.add(elapsed);
  stats.remove();
  assert.deepEqual([stats.count, stats.medianSeconds], [3, 2]);
  for (let i = 0; i < 5; i++) stats.remove();
  assert.equal(stats.count, 0);
});

test("a session goes on after a reload and ends with a pause of half an hour", () => {
  newStats().add(1000);
  now += 29 * MINUTE;
  const reloaded = newStats();
  assert.equal(reloaded.count, 1);
  reloaded.add(1000);
  now += 30 * MINUTE;
  assert.equal(newStats().count, 0);
  reloaded.add(1000); // a page that was left open
  assert.equal(reloaded.count, 1);
});

test("days in a row with a vote, up to today", () => {
  const stats = newStats();
  const days = [];
  for (const wait of [0, DAY, DAY, 0, 3 * DAY]) {
    now += wait;
    stats.add(1000);
    days.push(stats.days);
  }
  assert.deepEqual(days, [1, 2, 3, 3, 1]);
  now += DAY;
  assert.equal(stats.days, 1);
  now += DAY;
  assert.equal(stats.days, 0);
});

test("only goals of the list are kept", () => {
  const stats = newStats();
  assert.equal(stats.goal, 0);
  stats.goal = 50;
  assert.equal(newStats().goal, 50);
  storage.setItem("dmpo.goal", "51");
  assert.equal(stats.goal, 0);
});

test("neither foreign entries nor a full storage stop the counting", () => {
  storage.setItem("dmpo.sitting", "{");
  storage.setItem("dmpo.days", "[");
  storage.isFull = true;
  const stats = newStats();
  stats.add(1000);
  assert.equal(stats.count, 1);
});
