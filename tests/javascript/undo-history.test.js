// The history that undo goes back in: ten votes, also after a reload.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { freshPage, storage } from "./page.js";
import { MAX_UNDO, UndoHistory } from "../../dmpo_app/ui/static/label/undo-history.js";

beforeEach(freshPage);

/** @returns {any} */
const newPair = (id) => ({ id, token: `token of ${id}`, images: [] });

test("the latest vote comes first, with its pair", () => {
  const history = new UndoHistory();
  const pair = newPair("as_2");
  history.push(newPair("as_1"), true);
  history.push(pair, false);
  assert.deepEqual(history.pop(), { id: "as_2", token: "token of as_2", vote: null, counted: false, pair });
  assert.equal(history.pop()?.id, "as_1");
  assert.equal(history.pop(), undefined);
});

test("after a reload the entries are there, with their numbers and without their pairs", () => {
  const history = new UndoHistory();
  history.push(newPair("as_1"), true);
  history.voteTaken("as_1", 41);
  history.voteTaken("as_other", 42);
  assert.deepEqual(new UndoHistory().pop(), { id: "as_1", token: "token of as_1", vote: 41, counted: true });
});

test("the last ten are kept, here and in the storage", () => {
  const history = new UndoHistory();
  for (let i = 0; i < MAX_UNDO + 3; i++) history.push(newPair(`as_${i}`), true);
  assert.deepEqual([MAX_UNDO, history.length, new UndoHistory().length], [10, 10, 10]);
  let oldest;
  for (let entry = history.pop(); entry; entry = history.pop()) oldest = entry.id;
  assert.equal(oldest, "as_3");
});

test("a popped entry is gone for the next page too, and so is everything after clear()", () => {
  const history = new UndoHistory();
  history.push(newPair("as_1"), true);
  history.push(newPair("as_2"), true);
  history.pop();
  assert.equal(new UndoHistory().length, 1);
  history.clear();
  assert.deepEqual([history.length, new UndoHistory().length], [0, 0]);
});

test("foreign entries are left out", () => {
  for (const text of ["{", "7", '"x"', '[{"id": 1, "token": "t"}, null, {"id": "as_1"}]']) {
    storage.setItem("dmpo.past", text);
    assert.equal(new UndoHistory().length, 0, text);
  }
});

test("undo works within the page where the storage is full", () => {
  storage.isFull = true;
  const history = new UndoHistory();
  history.push(newPair("as_1"), true);
  assert.equal(history.pop()?.id, "as_1");
});
