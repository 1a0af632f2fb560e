// @ts-check
// The state of the studio, polled while anybody listens and the page is visible; and its versions.

import { api, ApiError } from "./api.js";

/** @import { Adapter, Status } from "./types.js" */
/** @typedef {(status: Status | null) => unknown} StatusListener */

const POLL_MS = 1500;
const SLOW_POLL_MS = 5000;

export class StatusFeed {
  /** @type {Set<StatusListener>} */
  #listeners = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;
  #polling = false;
  #watchesPage = false;

  /** The latest status there was. @type {Status | null} */
  last = null;

  /**
   * Call `listener` with every status; null: the studio cannot be reached. Returns a function that ends it.
   *
   * @param {StatusListener} listener
   */
  listen(listener) {
    if (!this.#watchesPage) document.addEventListener("visibilitychange", () => this.poll());
    this.#watchesPage = true;
    this.#listeners.add(listener);
    if (this.last) listener(this.last);
    if (this.#timer === undefined && !this.#polling) this.poll();
    return () => void this.#listeners.delete(listener);
  }

  /** Ask now. */
  async poll() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (document.hidden || this.#listeners.size === 0) return;
    this.#polling = true;
    /** @type {Status | null} */
    let status = null;
    try {
      status = await api("GET status", { timeoutMs: 8000 });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    } finally {
      this.#polling = false;
    }
    this.last = status ?? this.last;
    for (const listener of [...this.#listeners]) listener(status);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.poll(), status ? POLL_MS : SLOW_POLL_MS);
  }
}

export const statusFeed = new StatusFeed();

/**
 * The versions by number.
 *
 * @returns {Promise<Map<number, Adapter>>}
 */
export async function versions() {
  const { adapters } = await api("GET adapters");
  return new Map(adapters.map((adapter) => [adapter.version, adapter]));
}
