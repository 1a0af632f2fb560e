// Ranking three or four pictures, best first: what is picked so far, kept over a reload, and its signs on the pictures.

import { t } from "../lib/lang.js";
import { storage } from "../lib/studio.js";

const KEPT = "dmpo.ranking";

export const isSet = (item) => (item?.more?.length ?? 0) > 0;

/** The key of a text about a pair, or of its form for sets. */
export const wordOf = (set, key) => (set ? `set.${key}` : key);

/** Which picture, from 0, a key stands for; -1: none. The numbers also where a layout has them behind Shift. */
export function pictureOfKey(event, size) {
  const number = Number(
    /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1] ?? (event.key.length === 1 ? event.key : NaN),
  );
  return number >= 1 && number <= size ? number - 1 : -1;
}

/** One set at a time. What is picked stays with the set too (`picks`), for when an undo brings it back. */
export class Ranking {
  constructor() {
    this.set = null;
  }

  begin(set) {
    this.set = set;
    this.keep(set.picks ?? restored(set));
  }

  get picks() {
    return this.set?.picks ?? [];
  }

  open(index) {
    return index >= 0 && index < this.set.images.length && !this.picks.includes(index);
  }

  /** Give the next place to an open picture. Returns the whole order, best first, once one picture is left; else null. */
  pick(index) {
    const places = this.set.images.map((_, place) => place);
    const picked = [...this.picks, index];
    const left = places.filter((place) => !picked.includes(place));
    // The pick that ends it is not kept: an undo brings the set back as it was before that one.
    if (left.length <= 1) return [...picked, ...left];
    this.keep(picked);
    return null;
  }

  /** Returns the picture that lost its place, or null when none has one. */
  takeBack() {
    if (this.picks.length === 0) return null;
    const index = this.picks.at(-1);
    this.keep(this.picks.slice(0, -1));
    return index;
  }

  /** The set was answered or passed over, or is not shown any more. */
  end() {
    this.set = null;
    storage.removeItem(KEPT);
  }

  keep(picks) {
    this.set.picks = picks;
    try {
      storage.setItem(KEPT, JSON.stringify({ id: this.set.id, picks }));
    } catch {
      // Storage is full: what is picked is then lost with the page.
    }
  }
}

/** What was picked of this set before a reload. */
function restored({ id, images }) {
  try {
    const kept = JSON.parse(storage.getItem(KEPT));
    const inSet = (place) => Number.isInteger(place) && place >= 0 && place < images.length;
    const sound = kept?.id === id && new Set(kept.picks).size === kept.picks.length && kept.picks.every(inSet);
    return sound && kept.picks.length < images.length - 1 ? kept.picks : [];
  } catch {
    return []; // not one of ours
  }
}

export const placed = (index, place) => t("set.placed", { number: index + 1, place: t(`place.${place + 1}`) });

/** Show on the frames which place each picture has, and say it to a screen reader. */
export function showPlaces(frames, { picks, prompt }) {
  frames.forEach((frame, index) => {
    const place = picks.indexOf(index);
    frame.classList.toggle("dl-placed", place >= 0);
    frame.querySelector(".dl-place").textContent = place < 0 ? "" : t(`place.short.${place + 1}`);
    frame.setAttribute(
      "aria-label",
      place < 0 ? t("set.unplaced", { number: index + 1, prompt }) : placed(index, place),
    );
    frame.setAttribute("aria-disabled", String(place >= 0));
  });
}
