// What the studio's elements share: the JSON API, the session, the state of the studio, and building DOM safely.

/** The page's root; four folders above this file, wherever a proxy mounts it. */
const ROOT = new URL("../../../../", import.meta.url);

/** Absolute address of a path the API answered, such as "/api/v1/images/…". */
export const address = (path) => new URL(path.replace(/^\/+/, ""), ROOT).href;

/** Builds an element. Text is always text: strings become text nodes, never markup. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  const present = (child) => child !== null && child !== undefined && child !== false;
  element.append(...children.flat(2).filter(present));
  return element;
}

/** localStorage, or memory where it is blocked. */
export const storage = (() => {
  try {
    localStorage.setItem("dmpo.probe", "1");
    localStorage.removeItem("dmpo.probe");
    return localStorage;
  } catch {
    const kept = new Map();
    return {
      getItem: (key) => kept.get(key) ?? null,
      setItem: (key, value) => void kept.set(key, value),
      removeItem: (key) => void kept.delete(key),
      key: (index) => [...kept.keys()][index] ?? null,
      get length() {
        return kept.size;
      },
    };
  }
})();

/** An answer that is not 2xx, or (status 0) no answer at all. */
export class ApiError extends Error {
  constructor(status, message, retrySeconds = null, code = "") {
    super(message);
    this.status = status;
    this.code = code;
    this.retrySeconds = retrySeconds;
  }

  /** Worth sending again as it is. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** One request to /api/v1, of JSON (`body`) or plain text (`text`). Resolves to the answer's JSON; rejects with ApiError. */
export async function api(method, path, { body, text, token, timeoutMs = 20000 } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  else if (text !== undefined) headers["Content-Type"] = "text/plain; charset=utf-8";
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  let data = null;
  try {
    response = await fetch(new URL(`api/v1/${path}`, ROOT), {
      method,
      headers,
      body: body === undefined ? text : JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMs),
      cache: "no-store",
    });
    data = await response.json().catch(() => null);
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new ApiError(0, late ? "The studio did not answer in time." : "The studio cannot be reached.");
  }
  if (response.ok && data !== null) return data;
  const retry = Number.parseFloat(response.headers.get("Retry-After"));
  const detail = typeof data?.detail === "string" ? data.detail : `The studio answered ${response.status}.`;
  throw new ApiError(response.status, detail, Number.isFinite(retry) ? retry : null, data?.code ?? "");
}

/** Have the browser save a file of the API under `name`. Rejects with ApiError, which says `sorry` if that is given. */
export async function saveFile(path, name, token, sorry = null) {
  const headers = { Authorization: `Bearer ${token}` };
  const response = await fetch(address(path), { headers, cache: "no-store" }).catch(() => null);
  if (!response?.ok) {
    const why = response ? `The studio answered ${response.status}.` : "The studio cannot be reached.";
    throw new ApiError(response?.status ?? 0, sorry ?? why);
  }
  const url = URL.createObjectURL(await response.blob());
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

/** Who votes in this browser. The token survives reloads; a name is optional. */
export const session = {
  opening: null,
  before: null,

  get handle() {
    return storage.getItem("dmpo.handle") ?? "";
  },

  /** The token there is, if there is one. */
  get kept() {
    return storage.getItem("dmpo.token");
  },

  /** What a provider calls who signed in; null: nobody did. */
  get login() {
    return storage.getItem("dmpo.login");
  },

  /** The name to show: of who signed in, or the one that was chosen here. */
  get shown() {
    return this.login ?? this.handle;
  },

  /** The token, opening a session first if there is none. Only one is opened, however many ask. */
  async token() {
    if (this.kept) return this.kept;
    const invite = new URLSearchParams(location.search).get("invite");
    this.opening ??= api("POST", "session", { body: { handle: this.handle, ...(invite && { invite }) } })
      .then((answer) => {
        storage.setItem("dmpo.token", answer.token);
        return answer.token;
      })
      .catch((error) => {
        if (error.code === "invite_needed") this.goBack();
        throw error;
      })
      .finally(() => {
        this.opening = null;
      });
    return this.opening;
  },

  /** Forget a token that the studio no longer takes (or one that is to be left behind). */
  forget(token) {
    if (token && this.kept !== token) return;
    storage.removeItem("dmpo.token");
    storage.removeItem("dmpo.login");
  },

  /** Vote as who signed in from now on. `name` is for them to see, and kept in this browser only. */
  signIn(token, name) {
    this.before = null;
    storage.setItem("dmpo.token", token);
    storage.setItem("dmpo.login", name);
  },

  /** Vote under another name from now on: a new annotator. */
  rename(handle) {
    this.before = { handle: this.handle, token: storage.getItem("dmpo.token") };
    storage.setItem("dmpo.handle", handle);
    this.forget();
  },

  /** Be who one was before the last renaming: an invitation may be used up, and nobody is to lose their place by it. */
  goBack() {
    if (!this.before?.token) return;
    storage.setItem("dmpo.handle", this.before.handle);
    storage.setItem("dmpo.token", this.before.token);
    this.before = null;
  },
};

const POLL_MS = 1500;
const SLOW_POLL_MS = 5000;

/** The state of the studio, polled while anybody listens and the page is visible. */
class StatusFeed {
  constructor() {
    this.listeners = new Set();
    this.last = null;
    this.timer = null;
    document.addEventListener("visibilitychange", () => this.poll());
  }

  /** `listener(status | null)`; null: the studio cannot be reached. Returns what ends the listening. */
  listen(listener) {
    this.listeners.add(listener);
    if (this.last) listener(this.last);
    if (this.timer === null) this.poll();
    return () => this.listeners.delete(listener);
  }

  /** Ask now. */
  async poll() {
    clearTimeout(this.timer);
    this.timer = null;
    if (document.hidden || this.listeners.size === 0) return;
    this.timer = setTimeout(() => {}, 0); // marks a poll under way
    let status = null;
    try {
      status = await api("GET", "status", { timeoutMs: 8000 });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
    this.last = status ?? this.last;
    for (const listener of [...this.listeners]) listener(status);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), status ? POLL_MS : SLOW_POLL_MS);
  }
}

export const statusFeed = new StatusFeed();

/** The versions by number, asked for again only when something may have changed. */
export async function versions() {
  const answer = await api("GET", "adapters");
  return new Map(answer.adapters.map((adapter) => [adapter.version, adapter]));
}

export const versionName = (version) => (version === 0 ? "Base model" : `Version ${version}`);

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** Seconds in words: "8 s", "2 min". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  return seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
}

/** Whether an element is on the tab that is open. */
export const isShown = (element) => element.isConnected && element.getClientRects().length > 0;

/** Whether keys go to something that takes them: a field, a slider. */
export function takesKeys(target) {
  return (
    target instanceof Element && target.closest("input, textarea, select, [contenteditable], [role=slider]") !== null
  );
}

/** Opens one of the page's tabs by its name. */
export function openTab(name) {
  // Where the window is narrow, Gradio moves tabs into a menu.
  for (const tab of document.querySelectorAll("button[role=tab], .overflow-dropdown button")) {
    if (tab.textContent.trim() === name) {
      tab.click();
      return;
    }
  }
}
