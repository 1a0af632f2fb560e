// @ts-check
// The texts of the label widget in the person's language: one file a language in lang/, English for what one lacks.

import { storage } from "./storage.js";

/** @import { Values } from "./types.js" */
/** @typedef {Record<string, string>} Table */

const CODES = ["en", "de", "fr", "es"];
const LANGUAGE = "dmpo.language";

/**
 * @param {string} code
 * @returns {Promise<Table>}
 */
const load = async (code) => (await fetch(new URL(`../lang/${code}.json`, import.meta.url))).json();

/** The language kept on this device, else the first of the browser's that there is, else English. */
function preferredLanguage() {
  const tags = [storage.getItem(LANGUAGE), ...(navigator.languages ?? [])];
  const codes = tags.map((tag) => (tag ?? "").toLowerCase().split("-")[0]);
  return codes.find((code) => CODES.includes(code)) ?? "en";
}

/** Fires "change" when another language was chosen. */
export class Words extends EventTarget {
  code = "en";

  /** @param {Table} english */
  constructor(english) {
    super();
    this.english = english;
    this.table = english;
  }

  /**
   * [code, name in that language] of every language.
   *
   * @returns {Promise<Array<[string, string]>>}
   */
  async languages() {
    /** @type {Record<string, string>} */
    const names = { en: this.english.name, [this.code]: this.table.name };
    return Promise.all(CODES.map(async (code) => [code, names[code] ?? (await load(code)).name]));
  }

  /**
   * Speak another language from now on. Raises what `fetch` raises; then the old one stays.
   *
   * @param {string} code
   */
  async speak(code) {
    this.table = code === "en" ? this.english : await load(code);
    this.code = code;
    this.dispatchEvent(new Event("change"));
  }

  /**
   * The same, and remember it on this device.
   *
   * @param {string} code
   */
  async choose(code) {
    await this.speak(code);
    storage.setItem(LANGUAGE, code);
  }

  /**
   * A text with its {values} filled in. `count` also picks the form that goes with a number.
   *
   * @param {string} key
   * @param {Values} values
   */
  t(key, values = {}) {
    const text = this.#text(key, values.count);
    return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  }

  /**
   * @param {string} key
   * @param {string | number | undefined} count
   */
  #text(key, count) {
    for (const { table, code } of [this, { table: this.english, code: "en" }]) {
      const form = typeof count === "number" ? `${key}_${new Intl.PluralRules(code).select(count)}` : key;
      const text = table[form] ?? table[key] ?? table[`${key}_other`];
      if (text !== undefined) return text;
    }
    return key;
  }

  /**
   * Digits as this language writes them.
   *
   * @param {number} value
   * @param {number} digits behind the point
   */
  number(value, digits = 0) {
    return value.toLocaleString(this.code, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }
}

/** The one set of words of the page, and English alone, for what is not translated. */
export const words = new Words(await load("en"));
export const english = new Words(words.english);

try {
  await words.speak(preferredLanguage());
} catch {
  // A language that cannot be fetched: English is there.
}

/**
 * @param {string} key
 * @param {Values} [values]
 */
export const t = (key, values) => words.t(key, values);

/** @type {Array<[string, (element: HTMLElement, text: string) => void]>} */
const TEXT_ATTRIBUTES = [
  ["data-t", (element, text) => (element.textContent = text)],
  ["data-t-label", (element, text) => element.setAttribute("aria-label", text)],
  ["data-t-title", (element, text) => (element.title = text)],
];

/**
 * Fill in the text of everything under `root` with data-t (content), data-t-label (aria-label) or data-t-title.
 *
 * @param {HTMLElement} root
 */
export function fillTexts(root) {
  for (const [attribute, write] of TEXT_ATTRIBUTES) {
    for (const element of root.querySelectorAll(`[${attribute}]`)) {
      write(/** @type {HTMLElement} */ (element), t(element.getAttribute(attribute) ?? ""));
    }
  }
}

/**
 * Say that everything under `root` is in the language of now.
 *
 * @param {HTMLElement} root
 */
export function markLanguage(root) {
  root.lang = words.code;
  root.dir = t("dir");
}
