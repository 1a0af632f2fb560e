// The state of voting: from a pair that comes up to the vote that is sent, and back again.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { deferred, freshPage, pass, record, settle, storage, studio } from "./page.js";
import { Outbox } from "../../dmpo_app/ui/static/label/outbox.js";
import { Ranking } from "../../dmpo_app/ui/static/label/rank.js";
import { SessionStats } from "../../dmpo_app/ui/static/label/session-stats.js";
import { UndoHistory } from "../../dmpo_app/ui/static/label/undo-history.js";
import { VotingSession } from "../../dmpo_app/ui/static/label/voting-session.js";
import { statusFeed } from "../../dmpo_app/ui/static/lib/status.js";

/** Assignments that the studio holds open for us, and votes that it took. */
let open = [];
let votes = [];
let now = 0;
/** @type {VotingSession[]} */
let sessions = [];

const assignment = (id, more = {}) => ({
  id,
  prompt: `prompt of ${id}`,
  left: "/l",
  right: "/r",
  more: [],
  question: "overall",
  asks: [],
  expires_at: new Date(Date.now() + 3600000).toISOString(),
  ...more,
});
const newSet = (id) => assignment(id, { more: ["/3"] });
const image = { decode: async () => {} };
/** @type {any} */
const loadImages = async ({ more }) => Array.from({ length: 2 + more.length }, () => image);

/** A studio that takes votes, undoes them and hands out what is open. */
function takingStudio({ method, path, body }) {
  if (method === "GET") return { json: { assignments: open } };
  if (method === "POST") {
    votes.push({ ...body, number: votes.length + 1 });
    return { status: 201, json: { vote: votes.length, votes_until_round: 4 - votes.length } };
  }
  const number = Number(path.split("/")[1]);
  const [undone] = votes.splice(
    votes.findIndex((vote) => vote.number === number),
    1,
  );
  return { json: { vote: number, undone: true, votes_until_round: 4 - votes.length, assignment: undone.assignment } };
}

/** A session as after loading the page; `parts` has what it was made of. */
async function begin() {
  const parts = {
    outbox: new Outbox(),
    history: new UndoHistory(),
    stats: new SessionStats(),
    ranking: new Ranking(),
  };
  const session = new VotingSession({ ...parts, loadImages, now: () => now });
  const events = record(session, "change", "pair", "taken", "refused", "trouble", "restart");
  sessions.push(session);
  session.start();
  await settle();
  now += 1000;
  return { session, events, parts };
}

const named = (events, name) => events.filter(([event]) => event === name).map(([, detail]) => detail);
const announcements = (events) => named(events, "change").filter((text) => text !== null && text !== "");
/** The pair that is up for a vote. @param {VotingSession} session */
function current({ pair }) {
  assert.ok(pair);
  return pair;
}
const shown = (session) => session.pair?.id ?? session.state.name;

beforeEach(() => {
  freshPage();
  storage.setItem("dmpo.token", "token");
  open = [assignment("as_1"), assignment("as_2"), assignment("as_3")];
  votes = [];
  now = 0;
  studio.answer = takingStudio;
  statusFeed.last = null;
});

afterEach(async () => {
  for (const session of sessions) session.stop();
  sessions = [];
  await settle();
});

test("it waits until a pair is there, shows it, and a vote brings the next one up at once", async () => {
  const { session, events, parts } = await begin();
  assert.deepEqual([session.state.name, session.pair?.id], ["showing", "as_1"]);
  now += 800;
  session.choose("right", "key");
  assert.equal(shown(session), "as_2");
  assert.deepEqual(named(events, "taken"), [[1]]);
  assert.deepEqual(announcements(events), ["B chosen. Next: prompt of as_2"]);
  assert.deepEqual([parts.stats.count, session.canUndo], [1, true]);
  await settle();
  assert.deepEqual(votes, [{ assignment: "as_1", choice: "right", elapsed_ms: 1800, number: 1 }]);
});

test("another kind is voted on after a switch, and an undo does not reach back over it", async () => {
  const { session } = await begin();
  session.choose("left", "key");
  await settle();
  open = [assignment("as_9")];
  session.switchTo("duels");
  assert.deepEqual([session.state.name, session.kind, session.canUndo], ["waiting", "duels", false]);
  await settle();
  assert.equal(shown(session), "as_9");
  assert.equal(studio.requests.at(-1)?.query.get("kind"), "duels");
  session.choose("tie", "key");
  session.undo();
  assert.equal(shown(session), "as_9");
});

test("nothing is voted on while there is nothing to vote on", async () => {
  open = [];
  const { session } = await begin();
  assert.equal(session.state.name, "waiting");
  session.choose("left", "key");
  session.chooseImage(0, "key");
  session.answerStrength("clearly");
  session.undo();
  await settle();
  assert.deepEqual([session.state, votes], [{ name: "waiting", pendingUndoId: null }, []]);
});

test("after the last pair it waits, and goes on when there is another one", async () => {
  open = [assignment("as_1")];
  const { session } = await begin();
  session.choose("tie", "key");
  assert.deepEqual([session.state.name, session.hasVoted], ["waiting", true]);
  open = [assignment("as_9")];
  await pass(1500);
  assert.equal(shown(session), "as_9");
});

test("the second click of a double click is no vote on the next pair; a key is", async () => {
  const { session } = await begin();
  session.chooseImage(0, "click");
  now += 100;
  session.chooseImage(0, "click");
  assert.equal(shown(session), "as_2");
  session.choose("left", "key");
  assert.equal(shown(session), "as_3");
  now += 181;
  session.chooseImage(1, "click");
  await settle();
  assert.deepEqual(
    votes.map(({ choice }) => choice),
    ["left", "left", "right"],
  );
});

test("the second click of a double click picks no image of the next set", async () => {
  open = [newSet("as_1"), newSet("as_2")];
  const { session } = await begin();
  session.chooseImage(0, "click");
  session.chooseImage(1, "click");
  now += 100;
  session.chooseImage(1, "click");
  assert.deepEqual([shown(session), session.pair?.picks], ["as_2", []]);
});

test("a skip is sent and can be undone, but counts in no statistics", async () => {
  const { session, parts } = await begin();
  session.choose("skip", "key");
  await settle();
  assert.deepEqual([votes[0].choice, parts.stats.count, session.canUndo], ["skip", 0, true]);
  session.undo();
  assert.deepEqual([shown(session), parts.stats.count], ["as_1", 0]);
});

test("where it is asked how much better, a side waits for that answer and a tie does not", async () => {
  open = [assignment("as_1", { asks: ["strength"] }), assignment("as_2", { asks: ["strength"] })];
  const { session } = await begin();
  session.chooseImage(1, "click");
  assert.deepEqual(session.state, { name: "asking-strength", pair: current(session), side: "right" });
  assert.equal(shown(session), "as_1");
  session.answerStrength(null);
  assert.equal(session.state.name, "showing");
  session.choose("left", "swipe");
  session.answerStrength("slightly");
  session.choose("tie", "key");
  await settle();
  assert.deepEqual(
    votes.map(({ choice, strength }) => [choice, strength]),
    [
      ["left", "slightly"],
      ["tie", undefined],
    ],
  );
});

test("a key says both, the side and how much better it is, where that is asked for", async () => {
  open = [assignment("as_1", { asks: ["strength"] }), assignment("as_2")];
  const { session } = await begin();
  session.choose("left", "key", "slightly");
  session.choose("left", "key", "slightly");
  await settle();
  assert.deepEqual(
    votes.map(({ strength }) => strength),
    ["slightly", undefined],
  );
});

test("another choice while it is asked how much better takes the question's place", async () => {
  open = [assignment("as_1", { asks: ["strength"] }), assignment("as_2")];
  const { session } = await begin();
  session.choose("left", "click");
  session.choose("both_bad", "key");
  assert.deepEqual([session.state.name, shown(session)], ["showing", "as_2"]);
  await settle();
  assert.deepEqual([votes.length, votes[0].choice], [1, "both_bad"]);
});

test("a comment goes with the vote on its pair and with no other", async () => {
  const { session, events } = await begin();
  const before = events.length;
  session.setComment(current(session), "the boat is not red");
  assert.equal(events.length, before + 1);
  session.choose("left", "key");
  session.choose("left", "key");
  await settle();
  assert.deepEqual(
    votes.map(({ comment }) => comment),
    ["the boat is not red", undefined],
  );
});

test("a set is ranked pick by pick, the last place fills itself, and only all-bad and skip are choices", async () => {
  open = [newSet("as_1"), assignment("as_2")];
  const { session, events } = await begin();
  assert.equal(session.state.name, "ranking");
  session.choose("left", "key");
  session.choose("tie", "key");
  session.chooseImage(2, "key");
  session.chooseImage(2, "key");
  assert.deepEqual([shown(session), session.pair?.picks], ["as_1", [2]]);
  session.chooseImage(0, "key");
  assert.equal(shown(session), "as_2");
  assert.deepEqual(announcements(events), ["Image 3: first place", "Ranked: 3, 1, 2. Next: prompt of as_2"]);
  assert.deepEqual(named(events, "taken"), [[2]]);
  await settle();
  assert.deepEqual([votes[0].order, "choice" in votes[0]], [[2, 0, 1], false]);
});

test("all bad is a vote on a set too", async () => {
  open = [newSet("as_1")];
  const { session, events } = await begin();
  session.chooseImage(1, "key");
  session.choose("both_bad", "key");
  await settle();
  assert.deepEqual([votes[0].choice, votes[0].order], ["both_bad", undefined]);
  assert.equal(announcements(events).at(-1), "All bad.");
});

test("undo takes back pick by pick, then brings the last set back without the pick that ended it", async () => {
  open = [newSet("as_1"), newSet("as_2")];
  const { session, events } = await begin();
  session.chooseImage(1, "key");
  session.chooseImage(0, "key");
  session.chooseImage(2, "key");
  session.undo();
  assert.deepEqual([shown(session), session.pair?.picks], ["as_2", []]);
  assert.equal(announcements(events).at(-1), "Image 3 has no place any more.");
  session.undo();
  assert.deepEqual([shown(session), session.pair?.picks], ["as_1", [1]]);
  await settle();
  assert.deepEqual(votes, []);
});

test("undo brings the last pair back, and the one that was shown comes right after it", async () => {
  const { session, events, parts } = await begin();
  session.choose("left", "key");
  await settle();
  session.undo();
  assert.deepEqual([shown(session), parts.stats.count, session.canUndo], ["as_1", 0, false]);
  assert.equal(announcements(events).at(-1), "Vote undone. The pair is back.");
  await settle();
  assert.deepEqual(votes, []);
  session.choose("right", "key");
  assert.equal(shown(session), "as_2");
});

test("after a reload undo brings a pair back from the studio, and shows no other one meanwhile", async () => {
  const before = await begin();
  before.session.choose("left", "key");
  await settle();
  before.session.stop();
  open = [assignment("as_2"), assignment("as_3")];
  const { session, parts } = await begin();
  assert.equal(shown(session), "as_2");
  session.undo();
  assert.deepEqual(session.state, { name: "waiting", pendingUndoId: "as_1" });
  open = [...open, assignment("as_1")];
  await pass(2000);
  assert.deepEqual([shown(session), parts.stats.count, votes], ["as_1", 0, []]);
  session.choose("tie", "key");
  assert.equal(shown(session), "as_2");
});

test("a pair that comes while another one is being brought back is not shown before it", async () => {
  const before = await begin();
  before.session.choose("left", "key");
  await settle();
  before.session.stop();
  open = [assignment("as_2")];
  const { session } = await begin();
  const undone = deferred();
  studio.answer = (request) => (request.method === "DELETE" ? undone.promise : takingStudio(request));
  session.undo();
  open = [assignment("as_2"), assignment("as_7")];
  await pass(2000);
  await pass(2000);
  assert.deepEqual(session.state, { name: "waiting", pendingUndoId: "as_1" });
  open = [...open, assignment("as_1")];
  undone.resolve({ json: { vote: 1, undone: true, votes_until_round: 4 } });
  await settle();
  await pass(2000);
  assert.equal(shown(session), "as_1");
});

test("where the pair does not come back, it goes on with the next one", async () => {
  const before = await begin();
  before.session.choose("left", "key");
  await settle();
  before.session.stop();
  open = [assignment("as_2")];
  const { session } = await begin();
  session.undo();
  assert.equal(session.state.name, "waiting");
  await settle();
  await pass(2000);
  assert.equal(shown(session), "as_2");
});

test("where an undo is refused, it goes on with the next pair and says so", async () => {
  const before = await begin();
  before.session.choose("left", "key");
  await settle();
  before.session.stop();
  open = [assignment("as_2"), assignment("as_3")];
  const refuse = { status: 409, json: { detail: "a round learned from it", code: "too_late" } };
  studio.answer = (request) => (request.method === "DELETE" ? refuse : takingStudio(request));
  const { session, events } = await begin();
  session.undo();
  await settle();
  assert.deepEqual([shown(session), named(events, "refused")[0].kind], ["as_2", "undo"]);
  open = [...open, assignment("as_1")];
  await pass(5000);
  session.choose("skip", "key");
  assert.equal(shown(session), "as_3", "the pair that was to come back is not more urgent than others any more");
});

test("a session that the studio does not know is replaced: all begins anew, without a history", async () => {
  studio.answer = (request) => {
    if (request.path === "session") return { json: { annotator: "an_2", token: "new" } };
    if (request.token !== "new" && request.method === "POST") return { status: 401, json: { detail: "", code: "" } };
    return takingStudio(request);
  };
  const { session, events } = await begin();
  session.choose("left", "key");
  await settle();
  assert.deepEqual([named(events, "restart").length, session.hasVoted, session.pair?.token], [1, false, "new"]);
  assert.equal(named(events, "refused")[0].error.status, 401);
});

test("trouble with getting pairs is told while there is none, and forgotten when one comes", async () => {
  studio.answer = () => ({ status: 403, json: { detail: "agree first", code: "consent_needed" } });
  const { session, events } = await begin();
  assert.deepEqual([named(events, "trouble").length, session.trouble?.code], [1, "consent_needed"]);
  session.studioReached();
  await settle();
  assert.equal(studio.calls.length, 1, "a refusal is not asked again at every poll");
  studio.answer = takingStudio;
  session.resume();
  await settle();
  assert.deepEqual([shown(session), session.trouble], ["as_1", null]);
});

test("trouble that passes by itself is forgotten with the first pair", async () => {
  studio.answer = () => null;
  const { session } = await begin();
  assert.equal(session.trouble?.status, 0);
  studio.answer = takingStudio;
  await pass(1500);
  assert.deepEqual([shown(session), session.trouble], ["as_1", null]);
});

test("a vote that waits for consent is sent when there is some", async () => {
  const { session } = await begin();
  studio.answer = () => ({ status: 403, json: { detail: "agree first", code: "consent_needed" } });
  session.choose("left", "key");
  await settle();
  studio.answer = takingStudio;
  session.resume();
  await settle();
  assert.equal(votes.length, 1);
});

test("votes that are held up go on as soon as the studio can be reached", async () => {
  const { session, parts } = await begin();
  studio.answer = () => null;
  session.choose("left", "key");
  await settle();
  assert.equal(parts.outbox.trouble?.status, 0);
  studio.answer = takingStudio;
  session.studioReached();
  await settle();
  assert.equal(votes.length, 1);
});

test("acknowledgements count towards the round before the next poll does", async () => {
  statusFeed.last = /** @type {any} */ ({ votes: 10, votes_until_round: 4 });
  const { session } = await begin();
  session.choose("left", "key");
  await settle();
  assert.deepEqual(statusFeed.last, { votes: 11, votes_until_round: 3 });
  session.undo();
  await settle();
  assert.deepEqual(statusFeed.last, { votes: 10, votes_until_round: 4 });
});

test("a pair that is passed over is not shown again, though the studio still holds it open", async () => {
  const { session } = await begin();
  session.passOver(current(session));
  await pass(2000);
  assert.equal(shown(session), "as_2");
  session.choose("skip", "key");
  session.choose("skip", "key");
  await pass(2000);
  assert.equal(session.state.name, "waiting");
});

test("passing over a pair that is gone already leaves the one that is shown", async () => {
  const { session } = await begin();
  const reported = current(session);
  session.choose("left", "key");
  session.passOver(reported);
  await pass(2000);
  assert.equal(shown(session), "as_2");
  session.choose("skip", "key");
  assert.equal(shown(session), "as_3", "it does not come a second time");
});

test("another annotator gets other pairs and cannot undo what was not theirs", async () => {
  const { session, events } = await begin();
  session.choose("left", "key");
  await settle();
  open = [assignment("as_8")];
  session.restart();
  assert.deepEqual([session.state.name, session.canUndo], ["waiting", false]);
  await settle();
  session.undo();
  assert.deepEqual([shown(session), named(events, "restart").length], ["as_8", 1]);
});

test("an answer that was on its way when a pair was passed over hides no pair from what is asked for after it", async () => {
  const { session } = await begin();
  const slow = deferred();
  studio.answer = () => slow.promise;
  session.choose("skip", "key"); // asks for more
  await settle();
  studio.answer = takingStudio;
  open = [...open, assignment("as_4")];
  session.passOver(current(session));
  slow.resolve({ json: { assignments: open } });
  await pass(5000);
  assert.equal(shown(session), "as_3");
  session.choose("skip", "key");
  assert.equal(shown(session), "as_4");
});

test("withdrawn votes cannot be undone", async () => {
  const { session } = await begin();
  session.choose("left", "key");
  session.forgetVotes();
  assert.equal(session.canUndo, false);
  session.undo();
  assert.equal(shown(session), "as_2");
});
