// @ts-check
// The browser's key-value store: localStorage, or memory where that is blocked.

/** @import { KeyValueStore } from "./types.js" */

/** @returns {KeyValueStore | null} */
function openLocalStorage() {
  try {
    localStorage.setItem("dmpo.probe", "1");
    localStorage.removeItem("dmpo.probe");
    return localStorage;
  } catch {
    return null;
  }
}

/** @returns {KeyValueStore} */
function openMemory() {
  /** @type {Map<string, string>} */
  const entries = new Map();
  return {
    getItem: (key) => entries.get(key) ?? null,
    setItem: (key, value) => void entries.set(key, value),
    removeItem: (key) => void entries.delete(key),
    key: (index) => [...entries.keys()][index] ?? null,
    get length() {
      return entries.size;
    },
  };
}

const lasting = openLocalStorage();
export const storage = lasting ?? openMemory();
/** Whether what is stored outlives a reload; many browsers block that in a frame of another site. */
export const isLasting = lasting !== null;

/**
 * The JSON value under a key; undefined where there is none, or something that is not ours.
 *
 * @param {string} key
 * @returns {any}
 */
export function readJson(key) {
  try {
    return JSON.parse(storage.getItem(key) ?? "null") ?? undefined;
  } catch {
    return undefined;
  }
}

/**
 * Keep a value as JSON. Returns whether there was room for it.
 *
 * @param {string} key
 * @param {unknown} value
 */
export function writeJson(key, value) {
  try {
    storage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
