// @ts-check
// Ranking three or four images, best first: the picks so far, kept over a reload.

import { t } from "../lib/lang.js";
import { readJson, storage, writeJson } from "../lib/storage.js";

/** @import { Assignment, Pair } from "../lib/types.js" */

const RANKING = "dmpo.ranking";

/**
 * Whether an assignment is a set to rank rather than a pair.
 *
 * @param {Pick<Assignment, "more"> | null} assignment
 */
export const isSet = (assignment) => (assignment?.more?.length ?? 0) > 0;

/**
 * The key of a text about a pair, or of its form for sets.
 *
 * @param {boolean} set
 * @param {string} key
 */
export const textKey = (set, key) => (set ? `set.${key}` : key);

/**
 * @param {number} index of an image, from 0
 * @param {number} place that it has, from 0
 */
export const placeText = (index, place) => t("set.placed", { number: index + 1, place: t(`place.${place + 1}`) });

/** One set at a time. The picks stay with the set too (`set.picks`), for when an undo brings it back. */
export class Ranking {
  /** @type {Pair | null} */
  #set = null;

  /** @param {Pair} set */
  begin(set) {
    this.#set = set;
    this.#store(set, set.picks ?? storedPicks(set));
  }

  get picks() {
    return this.#set?.picks ?? [];
  }

  /**
   * Whether an image can be picked now.
   *
   * @param {number} index
   */
  isOpen(index) {
    return this.#set !== null && index >= 0 && index < this.#set.images.length && !this.picks.includes(index);
  }

  /**
   * Give the next place to an open image. Returns the whole order, best first, once one image is left; else null.
   *
   * @param {number} index
   */
  pick(index) {
    if (this.#set === null) throw new Error("No set is being ranked.");
    const picks = [...this.picks, index];
    const left = this.#set.images.map((_, number) => number).filter((number) => !picks.includes(number));
    // The pick that ends it is not kept: an undo brings the set back as it was before that one.
    if (left.length <= 1) return [...picks, ...left];
    this.#store(this.#set, picks);
    return null;
  }

  /** Returns the image that lost its place, or null when none has one. */
  takeBack() {
    const index = this.picks.at(-1);
    if (this.#set === null || index === undefined) return null;
    this.#store(this.#set, this.picks.slice(0, -1));
    return index;
  }

  /** The set was ranked or passed over. */
  end() {
    this.#set = null;
    storage.removeItem(RANKING);
  }

  /**
   * Where storage is full, the picks are lost with the page.
   *
   * @param {Pair} set
   * @param {number[]} picks
   */
  #store(set, picks) {
    set.picks = picks;
    writeJson(RANKING, { id: set.id, picks });
  }
}

/**
 * The picks in this set before a reload.
 *
 * @param {Pair} set
 * @returns {number[]}
 */
function storedPicks({ id, images }) {
  const stored = readJson(RANKING);
  if (stored?.id !== id || !Array.isArray(stored.picks)) return [];
  const { picks } = stored;
  const inSet = (/** @type {unknown} */ index) => images.some((_, number) => number === index);
  const isSound = picks.every(inSet) && new Set(picks).size === picks.length && picks.length < images.length - 1;
  return isSound ? picks : [];
}
