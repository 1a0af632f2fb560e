// The parts of a browser that the scripts need, for node: storage, requests, events of the window. Import it first.

import { readFile } from "node:fs/promises";
import { mock } from "node:test";

/** localStorage; `isFull` makes every write fail as a full one does. */
class FakeStorage {
  entries = new Map();
  isFull = false;

  get length() {
    return this.entries.size;
  }

  key(index) {
    return [...this.entries.keys()][index] ?? null;
  }

  getItem(key) {
    return this.entries.get(key) ?? null;
  }

  setItem(key, value) {
    if (this.isFull) throw new DOMException("full", "QuotaExceededError");
    this.entries.set(key, String(value));
  }

  removeItem(key) {
    this.entries.delete(key);
  }
}

export const storage = new FakeStorage();
/** Events of the window. */
export let windowEvents = new EventTarget();

/** The studio: requests that it got, and how it answers them. */
export const studio = {
  /** @type {Array<{ method: string, path: string, query: URLSearchParams, body: any, token: string | null, headers: any }>} */
  requests: [],
  /** @type {(request: any) => any} `{ status, json, headers }`, a promise of it, or null where there is no connection */
  answer: () => ({ status: 404, json: { detail: "no", code: "not_found" } }),

  /** Method and path of every request so far. */
  get calls() {
    return studio.requests.map(({ method, path }) => `${method} ${path}`);
  },
};

/** @param {any} options */
async function fakeFetch(url, options = {}) {
  const { method = "GET", headers = {}, body } = options;
  const { pathname, searchParams } = new URL(url);
  if (pathname.includes("/lang/")) return new Response(await readFile(new URL(url)));
  const token = headers.Authorization?.replace("Bearer ", "") ?? null;
  const json = headers["Content-Type"] === "application/json";
  const path = pathname.split("/api/v1/")[1];
  const request = { method, path, query: searchParams, body: json ? JSON.parse(body) : body, token, headers };
  studio.requests.push(request);
  const answer = await studio.answer(request);
  if (answer === null) throw new TypeError("Failed to fetch");
  const { status = 200, json: data = {}, headers: extra = {} } = answer;
  return new Response(typeof data === "string" ? data : JSON.stringify(data), { status, headers: extra });
}

Object.defineProperty(globalThis, "localStorage", { value: storage, configurable: true });
Object.defineProperty(globalThis, "navigator", { value: { languages: ["en-US"] }, configurable: true });
Object.assign(globalThis, {
  fetch: fakeFetch,
  location: { search: "" },
  document: Object.assign(new EventTarget(), { hidden: false }),
  addEventListener: (name, listener) => windowEvents.addEventListener(name, listener),
});

/** Before each test: an empty storage, a studio that was asked nothing, and a clock that stands still. */
export function freshPage() {
  storage.entries.clear();
  storage.isFull = false;
  windowEvents = new EventTarget();
  studio.requests = [];
  studio.answer = () => ({ status: 404, json: { detail: "no", code: "not_found" } });
  globalThis.location.search = "";
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: Date.UTC(2026, 0, 15, 12) });
}

/** Let everything happen that waits for no clock. */
export async function settle() {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Move the clock, and let everything happen that was due by then. */
export async function pass(milliseconds) {
  mock.timers.tick(milliseconds);
  await settle();
}

/** Details of every event of these names that a target fires, in order, as [name, detail]. */
export function record(target, ...names) {
  const events = [];
  for (const name of names) target.addEventListener(name, (event) => events.push([name, event.detail ?? null]));
  return events;
}

/** A promise, and what fulfils it. */
export function deferred() {
  let resolve;
  const promise = new Promise((done) => (resolve = done));
  return { promise, resolve };
}
