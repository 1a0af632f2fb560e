// The supply of pairs: always some ahead, none twice, the ones that an undo brings back first.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { deferred, freshPage, pass, record, settle, storage, studio } from "./page.js";
import { PairSupply } from "../../dmpo_app/ui/static/label/pairs.js";

const HOUR_MS = 3600000;
/** @type {PairSupply[]} */
let supplies = [];
let openElsewhere = 0;
let voted = new Set();
let failing = new Set();
/** The ids of assignments that the studio hands out. */
let open = [];

const assignment = (id, lifetime = HOUR_MS) => ({
  id,
  prompt: `prompt of ${id}`,
  left: `/l/${id}`,
  right: `/r/${id}`,
  more: [],
  question: "overall",
  asks: [],
  expires_at: new Date(Date.now() + lifetime).toISOString(),
});

/** @type {any} */
const loadImages = async ({ id }) =>
  failing.has(id) ? null : [{ decode: async () => {} }, { decode: async () => {} }];

function newSupply() {
  const supply = new PairSupply({ openElsewhere: () => openElsewhere, hasVote: (id) => voted.has(id), loadImages });
  supplies.push(supply);
  return supply;
}

const ids = (supply) => supply.ready.map(({ id }) => id);

beforeEach(() => {
  freshPage();
  storage.setItem("dmpo.token", "token");
  openElsewhere = 0;
  voted = new Set();
  failing = new Set();
  open = ["as_1", "as_2", "as_3"];
  studio.answer = () => ({ json: { assignments: open.map((id) => assignment(id)) } });
});

afterEach(async () => {
  for (const supply of supplies) supply.stop();
  supplies = [];
  await settle();
});

test("it asks for six beyond those in hand, as the annotator, and hands them out in order", async () => {
  openElsewhere = 2;
  const supply = newSupply();
  supply.start();
  await settle();
  const [request] = studio.requests;
  assert.deepEqual([request.path, request.query.get("count"), request.token], ["assignments", "8", "token"]);
  assert.deepEqual(ids(supply), ["as_1", "as_2", "as_3"]);
  const pair = supply.next();
  assert.deepEqual([pair?.id, pair?.token, pair?.images.length], ["as_1", "token", 2]);
  assert.deepEqual(pair?.options, { question: "overall", strength: false, comment: false });
});

test("it asks for the kind that is voted on, and keeps the reason why there are no duels", async () => {
  studio.answer = () => ({ json: { assignments: [], no_duels: "no_version" } });
  const supply = newSupply();
  supply.start();
  await settle();
  assert.equal(studio.requests[0].query.get("kind"), "label");
  supply.kind = "duels";
  supply.reset();
  assert.equal(supply.noDuels, null);
  await settle();
  assert.equal(studio.requests.at(-1)?.query.get("kind"), "duels");
  assert.equal(supply.noDuels, "no_version");
});

test("it never asks for more than the studio lets one annotator hold", async () => {
  openElsewhere = 14;
  const supply = newSupply();
  supply.start();
  await settle();
  assert.equal(studio.requests[0].query.get("count"), "16");
});

test("a pair is not shown twice, nor one that has a vote, though the studio still holds them open", async () => {
  voted.add("as_2");
  const supply = newSupply();
  supply.start();
  await settle();
  assert.deepEqual(ids(supply), ["as_1", "as_3"]);
  supply.next();
  await pass(5000);
  assert.ok(studio.requests.length > 1);
  assert.deepEqual(ids(supply), ["as_3"]);
});

test("pairs that expire within 20 seconds are passed over", async () => {
  studio.answer = () => ({ json: { assignments: [assignment("as_old", 19000), assignment("as_new", 21000)] } });
  const supply = newSupply();
  supply.start();
  await settle();
  assert.equal(supply.next()?.id, "as_new");
  assert.equal(supply.next(), null);
});

test("a pair whose image cannot be had is left out and tried again", async () => {
  failing.add("as_1");
  const supply = newSupply();
  supply.start();
  await settle();
  assert.deepEqual(ids(supply), ["as_2", "as_3"]);
  failing.clear();
  await pass(5000);
  assert.deepEqual(ids(supply), ["as_2", "as_3", "as_1"]);
});

test("it stops asking once six are ready", async () => {
  open = ["as_1", "as_2", "as_3", "as_4", "as_5", "as_6"];
  const supply = newSupply();
  supply.start();
  await settle();
  await pass(60000);
  await pass(60000);
  assert.equal(studio.requests.length, 1);
  supply.next();
  await settle();
  assert.equal(studio.requests.length, 2);
});

test("a wanted assignment comes first once it is open again, and one that does not come is reported", async () => {
  const supply = newSupply();
  const events = record(supply, "missing");
  supply.start();
  await settle();
  supply.want("as_back");
  supply.want("as_gone");
  open = [...open, "as_back"];
  supply.reopened("as_back");
  supply.reopened("as_gone");
  await pass(5000);
  assert.equal(supply.ready[0].id, "as_back");
  assert.deepEqual(events, [["missing", "as_gone"]]);
});

test("a wanted assignment comes again though it was shown before", async () => {
  const supply = newSupply();
  supply.start();
  await settle();
  assert.equal(supply.next()?.id, "as_1");
  await settle();
  supply.want("as_1");
  supply.reopened("as_1");
  await settle();
  assert.equal(supply.next()?.id, "as_1");
});

test("of two wanted ones the one asked for last comes first", async () => {
  const supply = newSupply();
  supply.start();
  await settle();
  supply.want("as_a");
  supply.want("as_b");
  open = [...open, "as_a", "as_b"];
  supply.reopened("as_a");
  supply.reopened("as_b");
  await pass(5000);
  assert.deepEqual(ids(supply).slice(0, 2), ["as_b", "as_a"]);
});

test("a pair that is put back is the next one", async () => {
  const supply = newSupply();
  supply.start();
  await settle();
  const pair = supply.next();
  assert.ok(pair);
  supply.putBack(pair);
  assert.equal(supply.next(), pair);
});

test("after a reset nothing of before comes, not even an answer that was on its way", async () => {
  const slow = deferred();
  studio.answer = () => slow.promise;
  const supply = newSupply();
  supply.start();
  await settle();
  open = ["as_8", "as_9"];
  studio.answer = () => ({ json: { assignments: open.map((id) => assignment(id)) } });
  supply.reset(["as_9"]);
  slow.resolve({ json: { assignments: [assignment("as_1")] } });
  await settle();
  assert.deepEqual(ids(supply), ["as_8"]);
});

test("a token that the studio does not take is forgotten, and a new session is opened", async () => {
  studio.answer = ({ path, token }) => {
    if (path === "session") return { json: { annotator: "an_1", token: "new" } };
    return token === "new"
      ? { json: { assignments: [assignment("as_1")] } }
      : { status: 401, json: { detail: "who?", code: "unknown_session" } };
  };
  const supply = newSupply();
  const events = record(supply, "trouble");
  supply.start();
  await settle();
  assert.equal(events[0][1].status, 401);
  await pass(1500);
  assert.equal(supply.next()?.token, "new");
});

test("after a refusal it asks again in 15 seconds, after a lost connection in 1.5", async () => {
  /** @type {Array<[any, number]>} */
  const rows = [
    [null, 1500],
    [{ status: 403, json: { detail: "no", code: "forbidden" } }, 15000],
  ];
  for (const [answer, wait] of rows) {
    studio.requests = [];
    studio.answer = () => answer;
    const supply = newSupply();
    supply.start();
    await settle();
    await pass(wait - 1);
    assert.equal(studio.requests.length, 1);
    await pass(1);
    assert.equal(studio.requests.length, 2);
    supply.stop();
    await pass(60000);
    assert.equal(studio.requests.length, 2);
  }
});
