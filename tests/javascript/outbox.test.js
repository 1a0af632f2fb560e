// The outbox: no vote is lost, none is counted twice, and the order is the person's.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { deferred, freshPage, pass, record, settle, storage, studio, windowEvents } from "./page.js";
import { Outbox } from "../../dmpo_app/ui/static/label/outbox.js";

beforeEach(freshPage);

let number = 0;
const taken = () => ({ status: 201, json: { vote: ++number, votes_until_round: 3 } });
const stored = () => [...storage.entries.keys()].filter((key) => key.startsWith("dmpo.op."));

test("votes are sent one after the other, in order, with what the API asks for", async () => {
  const first = deferred();
  studio.answer = ({ body }) => (body.assignment === "as_1" ? first.promise : taken());
  const outbox = new Outbox();
  outbox.vote("token", "as_1", "left", 1234.6, { strength: "clearly" });
  outbox.vote("token", "as_2", null, 900, { order: [2, 0, 1] });
  await settle();
  assert.deepEqual(studio.calls, ["POST votes"]);
  first.resolve(taken());
  await settle();
  assert.deepEqual(
    studio.requests.map(({ body, token }) => [body, token]),
    [
      [{ assignment: "as_1", choice: "left", elapsed_ms: 1235, strength: "clearly" }, "token"],
      [{ assignment: "as_2", elapsed_ms: 900, order: [2, 0, 1] }, "token"],
    ],
  );
  assert.deepEqual(outbox.operations, []);
});

test("a vote stays in the storage until it is acknowledged, and a page that comes later sends it", async () => {
  studio.answer = () => null;
  const closed = new Outbox();
  closed.vote("token", "as_1", "tie", 10);
  closed.vote("token", "as_2", "left", 10);
  await settle();
  assert.equal(stored().length, 2);
  studio.requests = [];
  studio.answer = taken;
  const outbox = new Outbox();
  const events = record(outbox, "taken");
  await settle();
  assert.deepEqual(
    studio.requests.map(({ body }) => body.assignment),
    ["as_1", "as_2"],
  );
  assert.deepEqual(
    events.map(([, { assignment }]) => assignment),
    ["as_1", "as_2"],
  );
  assert.deepEqual(stored(), []);
});

test("without a connection it waits twice as long each time, at most 15 seconds, and says why", async () => {
  studio.answer = () => null;
  const outbox = new Outbox();
  outbox.vote("token", "as_1", "left", 10);
  await settle();
  assert.equal(outbox.trouble?.status, 0);
  for (const wait of [500, 1000, 2000, 4000, 8000, 15000, 15000]) {
    const before = studio.requests.length;
    await pass(wait - 1);
    assert.equal(studio.requests.length, before, `asked before ${wait} ms`);
    await pass(1);
    assert.equal(studio.requests.length, before + 1, `not asked after ${wait} ms`);
  }
  studio.answer = taken;
  await pass(15000);
  assert.equal(outbox.trouble, null);
  assert.deepEqual(outbox.operations, []);
});

test("the studio's Retry-After is kept to", async () => {
  studio.answer = () => ({
    status: 429,
    json: { detail: "slow down", code: "too_many" },
    headers: { "Retry-After": "7" },
  });
  const outbox = new Outbox();
  outbox.vote("token", "as_1", "left", 10);
  await settle();
  await pass(6999);
  assert.equal(studio.requests.length, 1);
  await pass(1);
  assert.equal(studio.requests.length, 2);
});

test("it goes on at once when asked to, and when the browser is online again", async () => {
  studio.answer = () => null;
  const outbox = new Outbox();
  outbox.vote("token", "as_1", "left", 10);
  await settle();
  outbox.retryNow();
  await settle();
  assert.equal(studio.requests.length, 2);
  windowEvents.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(studio.requests.length, 3);
});

test("a refused vote is dropped and reported, and the next one is sent", async () => {
  studio.answer = ({ body }) =>
    body.assignment === "as_1" ? { status: 410, json: { detail: "too late", code: "expired" } } : taken();
  const outbox = new Outbox();
  const events = record(outbox, "refused", "taken");
  outbox.vote("token", "as_1", "left", 10);
  outbox.vote("token", "as_2", "right", 10);
  await settle();
  const [[, refusal], [name, { assignment }]] = events;
  assert.deepEqual([refusal.kind, refusal.assignment, refusal.token], ["vote", "as_1", "token"]);
  assert.deepEqual([refusal.error.status, refusal.error.message], [410, "too late"]);
  assert.deepEqual([name, assignment], ["taken", "as_2"]);
  assert.deepEqual(stored(), []);
});

test("a vote that waits for consent is kept and sent once there is some", async () => {
  studio.answer = () => ({ status: 403, json: { detail: "agree first", code: "consent_needed" } });
  const outbox = new Outbox();
  const events = record(outbox, "refused");
  outbox.vote("token", "as_1", "left", 10);
  await settle();
  assert.equal(outbox.trouble?.code, "consent_needed");
  studio.answer = taken;
  outbox.retryNow();
  await settle();
  assert.deepEqual([events, outbox.operations], [[], []]);
});

test("undoing a vote that was never sent asks the studio nothing", async () => {
  const first = deferred();
  studio.answer = () => first.promise;
  const outbox = new Outbox();
  outbox.vote("token", "as_1", "left", 10);
  outbox.vote("token", "as_2", "left", 10);
  outbox.undo("token", "as_2");
  first.resolve(taken());
  await settle();
  assert.deepEqual(studio.calls, ["POST votes"]);
  assert.equal(outbox.hasVote("as_2"), false);
});

test("undoing a vote that was sent deletes it by the number that the studio gave it", async () => {
  studio.answer = () => ({ status: 201, json: { vote: 77, votes_until_round: 3 } });
  const outbox = new Outbox();
  const events = record(outbox, "undone");
  outbox.vote("token", "as_1", "left", 10);
  await settle();
  assert.equal(outbox.hasVote("as_1"), true);
  outbox.undo("token", "as_1");
  await settle();
  assert.deepEqual(studio.calls, ["POST votes", "DELETE votes/77"]);
  assert.equal(events[0][1].assignment, "as_1");
  assert.equal(outbox.hasVote("as_1"), false);
});

test("a vote that is on its way is undone after it arrived", async () => {
  const first = deferred();
  studio.answer = ({ method }) => (method === "POST" ? first.promise : { json: { vote: 5, votes_until_round: 4 } });
  const outbox = new Outbox();
  outbox.vote("token", "as_1", "left", 10);
  await settle();
  outbox.undo("token", "as_1");
  assert.equal(outbox.hasVote("as_1"), false);
  first.resolve({ status: 201, json: { vote: 5, votes_until_round: 3 } });
  await settle();
  assert.deepEqual(studio.calls, ["POST votes", "DELETE votes/5"]);
});

test("after a reload a vote is undone by the number it is remembered under; without one the undo is refused", async () => {
  studio.answer = () => ({ json: { vote: 9, votes_until_round: 4 } });
  const outbox = new Outbox();
  const events = record(outbox, "refused");
  outbox.undo("token", "as_1", 9);
  outbox.undo("token", "as_2");
  await settle();
  assert.deepEqual(studio.calls, ["DELETE votes/9"]);
  assert.deepEqual([events[0][1].kind, events[0][1].assignment, events[0][1].error.status], ["undo", "as_2", 404]);
});

test("only choices and rankings count towards a round", async () => {
  studio.answer = () => null;
  const outbox = new Outbox();
  /** @type {any[]} */
  const choices = ["left", "right", "tie", "both_bad", "skip"];
  for (const choice of choices) outbox.vote("token", `as_${choice}`, choice, 10);
  outbox.vote("token", "as_set", null, 10, { order: [1, 0, 2] });
  outbox.undo("token", "as_other", 3);
  assert.equal(outbox.pendingPreferences, 4);
});

test("a vote is sent even where the storage is full", async () => {
  storage.isFull = true;
  studio.answer = taken;
  const outbox = new Outbox();
  outbox.vote("token", "as_1", "left", 10);
  await settle();
  assert.deepEqual([studio.calls, outbox.operations], [["POST votes"], []]);
});

test("entries that are not the outbox's own do not stop it", async () => {
  storage.setItem("dmpo.op.broken", "{");
  storage.setItem("dmpo.token", "token");
  const outbox = new Outbox();
  assert.deepEqual(outbox.operations, []);
  assert.deepEqual([...storage.entries.keys()], ["dmpo.token"]);
});
