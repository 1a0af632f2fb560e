// The words of the label widget in the person's language: one file a language in lang/, English for what one lacks.

import { storage } from "./studio.js";

const CODES = ["en", "de", "fr", "es"];
const KEPT = "dmpo.language";

const load = async (code) => (await fetch(new URL(`../lang/${code}.json`, import.meta.url))).json();

/** The language kept on this device, else the first of the browser's that there is, else English. */
function preferred() {
  const wished = [storage.getItem(KEPT), ...(navigator.languages ?? [])].filter(Boolean);
  return wished.map((tag) => tag.toLowerCase().split("-")[0]).find((code) => CODES.includes(code)) ?? "en";
}

/** Fires "change" when another language was chosen. */
class Words extends EventTarget {
  constructor(english) {
    super();
    this.english = english;
    this.table = english;
    this.code = "en";
  }

  /** [code, name in that language] of every language. */
  async languages() {
    const names = { en: this.english.name, [this.code]: this.table.name };
    return Promise.all(CODES.map(async (code) => [code, names[code] ?? (await load(code)).name]));
  }

  /** Speak another language from now on. Raises what `fetch` raises; then the old one stays. */
  async speak(code) {
    this.table = code === "en" ? this.english : await load(code);
    this.code = code;
    this.dispatchEvent(new Event("change"));
  }

  /** The same, and remember it on this device. */
  async choose(code) {
    await this.speak(code);
    storage.setItem(KEPT, code);
  }

  /** A text with its {values} filled in. `count` also picks the form that goes with a number. */
  t(key, values = {}) {
    const text = this.found(key, values.count);
    return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  }

  found(key, count) {
    for (const [table, code] of [
      [this.table, this.code],
      [this.english, "en"],
    ]) {
      const form = typeof count === "number" ? `${key}_${new Intl.PluralRules(code).select(count)}` : key;
      const text = table[form] ?? table[key] ?? table[`${key}_other`];
      if (text !== undefined) return text;
    }
    return key;
  }

  /** Digits as this language writes them. */
  number(value, digits = 0) {
    return value.toLocaleString(this.code, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }
}

/** The one set of words of the page, and English alone, for what is not translated. */
export const words = new Words(await load("en"));
export const english = new Words(words.english);

try {
  await words.speak(preferred());
} catch {
  // A language that cannot be fetched: English is there.
}

export const t = (key, values) => words.t(key, values);

/** Fill in what stands under `root` with data-t (text), data-t-label (aria-label) or data-t-title. */
export function fill(root) {
  for (const [mark, write] of [
    ["data-t", (element, text) => (element.textContent = text)],
    ["data-t-label", (element, text) => element.setAttribute("aria-label", text)],
    ["data-t-title", (element, text) => (element.title = text)],
  ]) {
    for (const element of root.querySelectorAll(`[${mark}]`)) write(element, t(element.getAttribute(mark)));
  }
}

/** Say that what stands under `root` is in the language of now. */
export function mark(root) {
  root.lang = words.code;
  root.dir = t("dir");
}
