// Requests to the API: addresses, bodies, errors; and the session that votes.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { deferred, freshPage, settle, storage, studio } from "./page.js";
import { address, api, ApiError } from "../../dmpo_app/ui/static/lib/api.js";
import { session, withSession } from "../../dmpo_app/ui/static/lib/session.js";

beforeEach(freshPage);

const REFUSED = { status: 401, json: { detail: "who?", code: "unknown_session" } };

test("braces of the path are filled in, and a query leaves out what is not given", async () => {
  studio.answer = () => ({ json: {} });
  await api("DELETE votes/{vote_id}", { params: { vote_id: 7 }, token: "token" });
  await api("GET prompts", { query: { search: "a b", tag: null, held_out: false, limit: 5 } });
  await api("POST prompts/import", { query: { tag: ["x", "y"] }, content: "a prompt" });
  assert.deepEqual(studio.calls, ["DELETE votes/7", "GET prompts", "POST prompts/import"]);
  assert.equal(studio.requests[0].token, "token");
  assert.equal(String(studio.requests[1].query), "search=a+b&held_out=false&limit=5");
  assert.equal(String(studio.requests[2].query), "tag=x&tag=y");
  assert.deepEqual([studio.requests[2].body, studio.requests[2].token], ["a prompt", null]);
});

test("a path cannot be left by a parameter", async () => {
  studio.answer = () => ({ json: {} });
  await api("DELETE votes/{vote_id}", { params: { vote_id: /** @type {any} */ ("../admin") } });
  assert.deepEqual(studio.calls, ["DELETE votes/..%2Fadmin"]);
});

test("an address is absolute, below the page's root", () => {
  assert.equal(address("/api/v1/images/x"), address("api/v1/images/x"));
  assert.match(address("/api/v1/images/x"), /^file:.*\/api\/v1\/images\/x$/);
});

test("an error has the studio's words, code and patience", async () => {
  studio.answer = () => ({ status: 503, json: { detail: "busy", code: "busy" }, headers: { "Retry-After": "2.5" } });
  await assert.rejects(api("GET status"), { status: 503, message: "busy", code: "busy", retrySeconds: 2.5 });
  studio.answer = () => ({ status: 502, json: "<html>" });
  await assert.rejects(api("GET status"), { status: 502, message: "The studio answered 502.", retrySeconds: null });
  studio.answer = () => null;
  await assert.rejects(api("GET status"), { status: 0, message: "The studio cannot be reached." });
});

test("errors of the connection, of haste and of the server may be tried again, refusals may not", () => {
  const retryable = [0, 429, 500, 503].map((status) => new ApiError(status, "").isRetryable);
  const final = [400, 401, 403, 404, 409, 410, 422].map((status) => new ApiError(status, "").isRetryable);
  assert.deepEqual([new Set(retryable), new Set(final)], [new Set([true]), new Set([false])]);
});

test("only one session is opened, however many ask, with the name and the invitation", async () => {
  const slow = deferred();
  storage.setItem("dmpo.handle", "Ada");
  globalThis.location.search = "?invite=abc";
  studio.answer = () => slow.promise;
  const tokens = Promise.all([session.token(), session.token()]);
  slow.resolve({ json: { annotator: "an_1", token: "one" } });
  assert.deepEqual(await tokens, ["one", "one"]);
  assert.deepEqual(
    studio.requests.map(({ body }) => body),
    [{ handle: "Ada", invite: "abc" }],
  );
  assert.equal(await session.token(), "one");
  assert.equal(studio.requests.length, 1);
});

test("a session that could not be opened is tried again by the next who asks", async () => {
  studio.answer = () => null;
  await assert.rejects(session.token(), { status: 0 });
  studio.answer = () => ({ json: { annotator: "an_1", token: "one" } });
  assert.equal(await session.token(), "one");
});

test("a request with a session that the studio does not know is made again with a new one, once", async () => {
  storage.setItem("dmpo.token", "old");
  studio.answer = () => ({ json: { annotator: "an_1", token: "new" } });
  const tokens = [];
  const answer = await withSession(async (token) => {
    tokens.push(token);
    if (token === "old") throw new ApiError(401, "who?");
    return "done";
  });
  assert.deepEqual([answer, tokens], ["done", ["old", "new"]]);
  studio.answer = ({ path }) => (path === "session" ? { json: { annotator: "an_1", token: "newer" } } : REFUSED);
  await assert.rejects(
    withSession((token) => api("POST prompts", { body: { text: "x" }, token })),
    { status: 401 },
  );
  assert.equal(studio.calls.filter((call) => call === "POST prompts").length, 2);
});

test("who renames themselves where an invitation is used up stays who they were", async () => {
  storage.setItem("dmpo.handle", "Ada");
  storage.setItem("dmpo.token", "ada's");
  session.rename("Bea");
  assert.deepEqual([session.handle, session.storedToken], ["Bea", null]);
  studio.answer = () => ({ status: 403, json: { detail: "used up", code: "invite_needed" } });
  await assert.rejects(session.token(), { code: "invite_needed" });
  assert.deepEqual([session.handle, session.storedToken], ["Ada", "ada's"]);
});

test("signing in replaces the token and shows the provider's name until the token is forgotten", async () => {
  storage.setItem("dmpo.handle", "Ada");
  session.signIn("token", "Ada L.");
  assert.deepEqual([session.storedToken, session.displayName], ["token", "Ada L."]);
  session.forget("another");
  assert.equal(session.storedToken, "token");
  session.forget("token");
  assert.deepEqual([session.storedToken, session.displayName, session.login], [null, "Ada", null]);
  await settle();
});
