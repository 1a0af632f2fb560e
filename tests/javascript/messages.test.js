// Sentences about the state of voting: the most pressing reason is the one that is said.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { freshPage } from "./page.js";
import { ApiError } from "../../dmpo_app/ui/static/lib/api.js";
import { refusalText, savingText, waitingText } from "../../dmpo_app/ui/static/label/messages.js";

beforeEach(freshPage);

const status = (phase, more = {}) => ({ renderer: { phase, message: "no such file" }, round: null, ...more });
const reason = (more) =>
  waitingText({
    trouble: null,
    unsent: 0,
    isUndoing: false,
    hasVoted: false,
    set: false,
    status: status("ready"),
    ...more,
  });

test("consent and signing in come before all else, then votes that are kept, then an undo, then trouble", () => {
  const all = { unsent: 2, isUndoing: true, status: status("failed") };
  const refused = (code) => new ApiError(403, "no", null, code);
  assert.match(reason({ ...all, trouble: refused("consent_needed") }), /agree to how votes are used/);
  assert.match(reason({ ...all, trouble: refused("login_needed") }), /^Sign in/);
  const lost = new ApiError(0, "The studio cannot be reached.");
  assert.equal(reason({ ...all, trouble: lost }), "No connection. 2 votes kept here, to be sent later.");
  assert.equal(reason({ ...all, unsent: 0, trouble: lost }), "Bringing the pair back…");
  const quiet = { status: status("failed") };
  assert.equal(reason({ ...quiet, trouble: lost }), "The studio cannot be reached. Trying again…");
  assert.equal(reason({ ...quiet, trouble: new ApiError(403, "This link is used up.") }), "This link is used up.");
  assert.equal(reason(quiet), "The model could not be loaded: no such file");
});

test("a studio without pairs says whether it warms up, fetches, learns or paints", () => {
  assert.match(reason({ status: status("loading") }), /warming up/);
  assert.match(reason({ status: status("starting") }), /warming up/);
  assert.equal(reason({ status: null }), "Fetching images…");
  assert.match(reason({ hasVoted: true }), /^You have voted on every pair there is\. New ones are being rendered/);
  const learning = { hasVoted: true, status: status("ready", { round: {} }) };
  assert.match(reason(learning), /New ones come after this round/);
  assert.match(reason({ ...learning, set: true }), /^You have ranked all images/);
});

test("a person without duels is told of a missing version first, then of the model, then of what there is", () => {
  const duels = (noDuels, more = {}) => reason({ kind: "duels", noDuels, ...more });
  assert.match(duels("no_version", { status: status("loading") }), /^There are no two versions to compare now/);
  assert.match(duels("making", { status: status("loading") }), /warming up/);
  assert.equal(duels("making"), "Images of both versions are being made…");
  assert.match(duels("all_judged"), /^You have judged every image/);
  assert.equal(duels(null), "Fetching images…");
});

test("kept votes are told with the reason, a few on their way are not mentioned", () => {
  assert.equal(savingText(new ApiError(0, ""), 1), "Offline – 1 vote kept here, will retry");
  assert.equal(savingText(new ApiError(429, ""), 2), "A little too fast – 2 votes kept here, will retry");
  assert.equal(savingText(new ApiError(503, ""), 2), "The studio is busy – 2 votes kept here, will retry");
  assert.deepEqual([savingText(new ApiError(0, ""), 0), savingText(null, 3), savingText(null, 4)], ["", "", "Saving…"]);
});

test("a refusal says what became of the vote", () => {
  const texts = [401, 409, 410, 404].map((code) => refusalText({ kind: "vote" }, code));
  assert.match(texts[0], /session was not known/);
  assert.match(texts[1], /voted on before/);
  assert.match(texts[2], /open for too long/);
  assert.match(texts[3], /does not know those images/);
  assert.match(refusalText({ kind: "undo" }, 404), /cannot be undone/);
  assert.equal(refusalText({ kind: "undo" }, 401), texts[0]);
});
