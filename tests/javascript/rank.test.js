// Ranking a set: best first, the last place fills itself, picks outlive a reload.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { freshPage, storage } from "./page.js";
import { isSet, placeText, Ranking, textKey } from "../../dmpo_app/ui/static/label/rank.js";

beforeEach(freshPage);

/** @returns {any} */
const newSet = (size = 3, id = "as_1") => ({ id, images: Array.from({ length: size }, () => ({})) });

test("the pick before the last ends the ranking, and the last place fills itself", () => {
  const ranking = new Ranking();
  ranking.begin(newSet(4));
  assert.equal(ranking.pick(2), null);
  assert.equal(ranking.pick(0), null);
  assert.deepEqual(ranking.picks, [2, 0]);
  assert.deepEqual(ranking.pick(3), [2, 0, 3, 1]);
});

test("only images of the set without a place can be picked", () => {
  const ranking = new Ranking();
  assert.equal(ranking.isOpen(0), false);
  ranking.begin(newSet());
  ranking.pick(1);
  assert.deepEqual(
    [-1, 0, 1, 2, 3].map((index) => ranking.isOpen(index)),
    [false, true, false, true, false],
  );
});

test("picks are taken back in turn", () => {
  const ranking = new Ranking();
  ranking.begin(newSet(4));
  ranking.pick(3);
  ranking.pick(1);
  assert.deepEqual([ranking.takeBack(), ranking.takeBack(), ranking.takeBack()], [1, 3, null]);
});

test("after a reload the picks of the same set are there, and those of another are not", () => {
  const before = new Ranking();
  before.begin(newSet());
  before.pick(2);
  const same = new Ranking();
  same.begin(newSet());
  assert.deepEqual(same.picks, [2]);
  const other = new Ranking();
  other.begin(newSet(3, "as_2"));
  assert.deepEqual(other.picks, []);
});

test("picks that make no sense are not restored", () => {
  for (const picks of [[0, 0], [7], [-1], ["0"], [0.5], [0, 1, 2], [0, 1, 2, 3], "0", null]) {
    storage.setItem("dmpo.ranking", JSON.stringify({ id: "as_1", picks }));
    const ranking = new Ranking();
    ranking.begin(newSet(4));
    assert.deepEqual(ranking.picks, [], JSON.stringify(picks));
  }
  storage.setItem("dmpo.ranking", "{");
  const ranking = new Ranking();
  ranking.begin(newSet());
  assert.deepEqual(ranking.picks, []);
});

test("a set that an undo brings back has its picks up to the one that ended it", () => {
  const ranking = new Ranking();
  const set = newSet();
  ranking.begin(set);
  ranking.pick(1);
  ranking.pick(0);
  ranking.end();
  assert.equal(storage.getItem("dmpo.ranking"), null);
  ranking.begin(newSet(3, "as_2"));
  ranking.begin(set);
  assert.deepEqual(ranking.picks, [1]);
});

test("the texts of sets and of places", () => {
  assert.deepEqual([isSet({ more: ["x"] }), isSet({ more: [] }), isSet(null)], [true, false, false]);
  assert.deepEqual([textKey(true, "undo"), textKey(false, "undo")], ["set.undo", "undo"]);
  assert.equal(placeText(2, 0), "Image 3: first place");
});
