// @ts-check
// Pairs, or sets to rank, fetched ahead with all images decoded, so that the next one is on the screen the moment a vote
// is cast.

import { address, api, ApiError } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { t } from "../lib/lang.js";
import { session } from "../lib/session.js";
import { votingOptions } from "./campaign.js";
import { isSet } from "./rank.js";

/** @import { Assignment, AssignmentKind, NoDuels, Pair } from "../lib/types.js" */
/** @typedef {(assignment: Assignment) => Promise<HTMLImageElement[] | null>} ImageLoader null: one cannot be had */

const AHEAD = 6; // enough for ten votes a second while the studio takes half a second to hand out more
const MOST_OPEN = 16; // the assignments that the studio lets one annotator hold
const RETRY_MS = 1500;
const LONG_RETRY_MS = 15000; // after a refusal that asking again does not change by itself
const SOON_MS = 50;
const MARGIN_MS = 20000; // a pair that expires sooner is not shown any more

/**
 * Fires "ready" when a pair was added, "empty" when the studio has none, "trouble" (detail: ApiError), "missing" when a
 * wanted one (detail: its id) is not open any more.
 */
export class PairSupply extends EventTarget {
  #openElsewhere;
  #hasVote;
  #loadImages;
  /** Assignments that are to come before others, by how late they were asked for. @type {Map<string, number>} */
  #wanted = new Map();
  /** The wanted ones that can be fetched now. @type {Set<string>} */
  #due = new Set();
  #lastPriority = 0;
  /** Assignments that were shown, voted on or are being loaded. @type {Set<string>} */
  #known = new Set();
  #isFilling = false;
  #isStopped = true;
  /** Grows with every new annotator; answers to an older one are dropped. */
  #generation = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;

  /** @type {Pair[]} */
  ready = [];
  /** What is asked for: pairs with whatever is mixed in, or duels alone. @type {AssignmentKind} */
  kind = "label";
  /** The reason why there are no duels, where they were asked for. @type {NoDuels | null} */
  noDuels = null;

  /**
   * @param {object} studio
   * @param {() => number} studio.openElsewhere how many of our assignments are open at the studio and not in `ready`
   * @param {(assignment: string) => boolean} studio.hasVote whether there is a vote that the studio may not know of yet
   * @param {ImageLoader} [studio.loadImages]
   */
  constructor({ openElsewhere, hasVote, loadImages = decodedImages }) {
    super();
    this.#openElsewhere = openElsewhere;
    this.#hasVote = hasVote;
    this.#loadImages = loadImages;
  }

  start() {
    this.#isStopped = false;
    this.fill();
  }

  stop() {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  /**
   * Fetch all anew, as for another annotator.
   *
   * @param {string[]} passedOver assignments that are not shown again
   */
  reset(passedOver = []) {
    this.#generation += 1;
    this.ready = [];
    this.#wanted.clear();
    this.#due.clear();
    this.#known = new Set(passedOver);
    this.noDuels = null;
    this.#isFilling = false;
    this.fill();
  }

  /** The next pair, or null. Expired ones are passed over. */
  next() {
    let pair = this.ready.shift() ?? null;
    while (pair && expiresSoon(pair)) pair = this.ready.shift() ?? null;
    this.fill();
    // Browsers drop decoded images that are not on the screen after a while.
    for (const image of this.ready[0]?.images ?? []) image.decode().catch(() => {});
    return pair;
  }

  /**
   * An assignment that is not here, as after a reload, is to be the next one, once it is open again.
   *
   * @param {string} id
   */
  want(id) {
    this.#wanted.set(id, ++this.#lastPriority);
  }

  /**
   * It is open again if it is wanted: fetch it.
   *
   * @param {string} id
   */
  reopened(id) {
    if (!this.#wanted.has(id)) return;
    this.#due.add(id);
    this.#known.delete(id);
    this.fill();
  }

  /**
   * It will not be open again.
   *
   * @param {string} id
   */
  unwant(id) {
    this.#wanted.delete(id);
    this.#due.delete(id);
  }

  /**
   * Put a pair back as the next one.
   *
   * @param {Pair} pair
   */
  putBack(pair) {
    pair.priority = ++this.#lastPriority;
    this.ready.unshift(pair);
  }

  async fill() {
    if (this.#isFilling || this.#isStopped || (this.ready.length >= AHEAD && this.#due.size === 0)) return;
    clearTimeout(this.#timer);
    this.#isFilling = true;
    const generation = this.#generation;
    try {
      const added = await this.#load(generation);
      if (generation === this.#generation) this.#fillLater(added > 0 || this.#due.size > 0 ? SOON_MS : RETRY_MS);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (generation !== this.#generation) return;
      this.dispatchEvent(new CustomEvent("trouble", { detail: error }));
      const wait = error.isRetryable || error.status === 401 ? RETRY_MS : LONG_RETRY_MS;
      this.#fillLater(Math.max(wait, 1000 * (error.retrySeconds ?? 0)));
    } finally {
      if (generation === this.#generation) this.#isFilling = false;
    }
  }

  /** @param {number} milliseconds */
  #fillLater(milliseconds) {
    clearTimeout(this.#timer);
    if (!this.#isStopped) this.#timer = setTimeout(() => this.fill(), milliseconds);
  }

  /**
   * Ask for what is missing beyond the open ones already in hand. Returns how many pairs are new.
   *
   * @param {number} generation
   */
  async #load(generation) {
    const token = await session.token();
    const due = [...this.#due];
    const { assignments, no_duels: noDuels } = await this.#fetchAssignments(token, due.length > 0);
    if (generation !== this.#generation) return 0;
    this.noDuels = noDuels ?? null;
    const fresh = assignments.filter(({ id }) => !this.#known.has(id) && !this.#hasVote(id));
    for (const id of due) {
      if (assignments.some((assignment) => assignment.id === id)) continue;
      this.unwant(id);
      this.dispatchEvent(new CustomEvent("missing", { detail: id }));
    }
    if (fresh.length === 0) this.dispatchEvent(new Event("empty"));
    const loading = fresh.map((assignment) => ({ assignment, promise: this.#loadImages(assignment) }));
    for (const { id } of fresh) this.#known.add(id);
    let added = 0;
    for (const { assignment, promise } of loading) {
      const images = await promise;
      if (generation !== this.#generation) return 0;
      if (!images) {
        this.#known.delete(assignment.id); // to be tried again
        continue;
      }
      added += 1;
      this.#add(assignment, token, images);
      this.dispatchEvent(new Event("ready"));
    }
    return added;
  }

  /**
   * @param {string} token
   * @param {boolean} all that may be open, because a wanted one is among them
   */
  async #fetchAssignments(token, all) {
    const count = all ? MOST_OPEN : Math.min(MOST_OPEN, this.ready.length + this.#openElsewhere() + AHEAD);
    try {
      return await api("GET assignments", { query: { count, kind: this.kind }, token });
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) session.forget(token);
      throw error;
    }
  }

  /**
   * Behind what came before, unless it is wanted more.
   *
   * @param {Assignment} assignment
   * @param {string} token
   * @param {HTMLImageElement[]} images
   */
  #add(assignment, token, images) {
    const priority = this.#wanted.get(assignment.id) ?? 0;
    const expiresAt = Date.parse(assignment.expires_at);
    /** @type {Pair} */
    const pair = { ...assignment, token, images, expiresAt, priority, options: votingOptions(assignment) };
    this.unwant(pair.id);
    const place = this.ready.findIndex((other) => other.priority < priority);
    if (place < 0) this.ready.push(pair);
    else this.ready.splice(place, 0, pair);
  }
}

/** @param {Pair} pair */
const expiresSoon = (pair) => pair.expiresAt - Date.now() < MARGIN_MS;

/**
 * The images of a pair or set, ready to paint, or null when one cannot be had.
 *
 * @param {Assignment} assignment
 */
async function decodedImages(assignment) {
  const { left, right, more, prompt } = assignment;
  const images = [left, right, ...(more ?? [])].map((url, index) => {
    const letter = isSet(assignment) ? String(index + 1) : "AB"[index];
    const image = h("img", { alt: t("image", { letter, prompt }), draggable: "false", decoding: "sync" });
    image.src = address(url);
    return image;
  });
  try {
    await Promise.all(images.map((image) => image.decode()));
  } catch {
    return null;
  }
  return images;
}
