// Pairs, or sets to rank, fetched ahead with all images decoded, so that the next one is on the screen the moment a vote is cast.

import { t } from "../lib/lang.js";
import { isSet } from "./rank.js";
import { address, api, ApiError, h, session } from "../lib/studio.js";

const AHEAD = 6; // enough for ten answers a second while the studio takes half a second to hand out more
const MOST_OPEN = 16; // what the studio lets one annotator hold
const RETRY_MS = 1500;
const LONG_RETRY_MS = 15000; // after a refusal that asking again does not change by itself
const MARGIN_MS = 20000; // a pair that expires sooner is not shown any more

/**
 * Fires "ready" when a pair was added, "empty" when the studio has none, "trouble" (detail: ApiError), "missing" when a
 * wanted one (detail: its id) is not open any more.
 */
export class PairSupply extends EventTarget {
  /**
   * `openElsewhere()`: how many assignments of ours are open on the studio's side and not in `ready`;
   * `answered(id)`: whether one has an answer already that the studio may not know of yet.
   */
  constructor(openElsewhere, answered) {
    super();
    this.openElsewhere = openElsewhere;
    this.answered = answered;
    this.wanted = new Map(); // assignments that are to come before others, by how late they were asked for
    this.due = new Set(); // those of them that can be fetched now
    this.asks = 0;
    this.ready = [];
    this.known = new Set(); // assignments that were shown, answered or are being loaded
    this.filling = false;
    this.timer = null;
    this.stopped = true;
    this.round = 0; // grows with every new session; what was asked for before is dropped
  }

  start() {
    this.stopped = false;
    this.fill();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  /** Fetch all anew, as for another annotator; what is `passedOver` is not shown again. */
  reset(passedOver = []) {
    this.round += 1;
    this.ready = [];
    this.wanted.clear();
    this.due.clear();
    this.known = new Set(passedOver);
    this.filling = false;
    this.fill();
  }

  /** The next pair, or null. Expired ones are passed over. */
  next() {
    let pair = this.ready.shift() ?? null;
    while (pair && this.expired(pair)) pair = this.ready.shift() ?? null;
    this.fill();
    // Browsers drop decoded images that are not on the screen after a while.
    for (const image of this.ready[0]?.images ?? []) image.decode().catch(() => {});
    return pair;
  }

  /** An assignment that is not here, as after a reload, is to be the next one, once it is open again. */
  want(id) {
    this.wanted.set(id, ++this.asks);
  }

  /** It is open again if it is wanted: fetch it. */
  reopened(id) {
    if (!this.wanted.has(id)) return;
    this.due.add(id);
    this.known.delete(id);
    this.fill();
  }

  /** It will not be open again. */
  unwant(id) {
    this.wanted.delete(id);
    this.due.delete(id);
  }

  /** Put a pair back as the next one. */
  putBack(pair) {
    pair.rank = ++this.asks;
    this.ready.unshift(pair);
  }

  expired(pair) {
    return pair.expiresAt - Date.now() < MARGIN_MS;
  }

  async fill() {
    if (this.filling || this.stopped || (this.ready.length >= AHEAD && this.due.size === 0)) return;
    clearTimeout(this.timer);
    this.filling = true;
    const round = this.round;
    try {
      const added = await this.load(round);
      if (round === this.round) this.later(added > 0 || this.due.size > 0 ? 50 : RETRY_MS);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (round !== this.round) return;
      this.dispatchEvent(new CustomEvent("trouble", { detail: error }));
      const wait = error.passing || error.status === 401 ? RETRY_MS : LONG_RETRY_MS;
      this.later(Math.max(wait, 1000 * (error.retrySeconds ?? 0)));
    } finally {
      if (round === this.round) this.filling = false;
    }
  }

  later(milliseconds) {
    clearTimeout(this.timer);
    if (!this.stopped) this.timer = setTimeout(() => this.fill(), milliseconds);
  }

  /** Ask for what is missing beyond the open ones already in hand. Returns how many pairs are new. */
  async load(round) {
    const token = await session.token();
    const due = [...this.due];
    let answer;
    try {
      const count = due.length > 0 ? MOST_OPEN : Math.min(MOST_OPEN, this.ready.length + this.openElsewhere() + AHEAD);
      answer = await api("GET", `assignments?count=${count}`, { token });
    } catch (error) {
      if (error.status === 401) session.forget(token);
      throw error;
    }
    const fresh = answer.assignments.filter((item) => !this.known.has(item.id) && !this.answered(item.id));
    for (const id of due) {
      if (answer.assignments.some((item) => item.id === id)) continue;
      this.unwant(id);
      this.dispatchEvent(new CustomEvent("missing", { detail: id }));
    }
    if (fresh.length === 0) this.dispatchEvent(new Event("empty"));
    const loading = fresh.map((item) => [item, decoded(item, token)]);
    for (const item of fresh) this.known.add(item.id);
    let added = 0;
    for (const [item, promise] of loading) {
      const pair = await promise;
      if (round !== this.round) return 0;
      if (!pair) {
        this.known.delete(item.id); // to be tried again
        continue;
      }
      added += 1;
      this.add(pair);
      this.dispatchEvent(new Event("ready"));
    }
    return added;
  }

  /** Behind what came before, unless it is wanted more. */
  add(pair) {
    pair.rank = this.wanted.get(pair.id) ?? 0;
    this.unwant(pair.id);
    const place = this.ready.findIndex((other) => (other.rank ?? 0) < pair.rank);
    if (place < 0) this.ready.push(pair);
    else this.ready.splice(place, 0, pair);
  }
}

/** A pair or set with its images ready to paint, or null when an image cannot be had. */
async function decoded(item, token) {
  const urls = [item.left, item.right, ...(item.more ?? [])];
  const images = urls.map((url, index) => {
    const letter = isSet(item) ? String(index + 1) : "AB"[index];
    const image = h("img", {
      alt: t("picture", { letter, prompt: item.prompt }),
      draggable: "false",
      decoding: "sync",
    });
    image.src = address(url);
    return image;
  });
  try {
    await Promise.all(images.map((image) => image.decode()));
  } catch {
    return null;
  }
  return { ...item, token, images, expiresAt: Date.parse(item.expires_at) };
}
