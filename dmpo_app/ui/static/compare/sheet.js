// @ts-check
// <dmpo-sheet>: one row a version, one column a prompt and seed, so that scrolling down shows how the model changed.

import { address, api, ApiError } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { statusFeed, versions } from "../lib/status.js";
import { plural, versionName } from "../lib/text.js";

/** @import { Adapter, Answer, Status } from "../lib/types.js" */

/**
 * @typedef {Answer<"GET contact-sheet">["rows"][number]} SheetRow
 * @typedef {Map<number, Adapter>} Adapters by version
 * @typedef {{ key: string, prompt: string, seed: number }} Column
 */

const RETRY_MS = 4000;

/** @param {{ prompt: string, seed: number }} image */
const columnKey = ({ prompt, seed }) => `${seed}\n${prompt}`;

class DmpoSheet extends HTMLElement {
  #grid = h("div", { class: "ds-scroll", tabindex: "0", role: "region", "aria-label": "Contact sheet, scrolls" });
  #note = h("p", { class: "ds-note", role: "status" }, "Loading…");
  #unsubscribe = () => {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;
  #versionsState = "";
  #shown = "";

  connectedCallback() {
    this.replaceChildren(this.#note, this.#grid);
    this.#unsubscribe = statusFeed.listen((status) => status && this.#statusCame(status));
  }

  disconnectedCallback() {
    this.#unsubscribe();
    clearTimeout(this.#timer);
  }

  /** @param {Status} status */
  #statusCame(status) {
    const versionsState = `${status.live_version}/${status.last_round?.id ?? 0}`;
    if (versionsState === this.#versionsState) return;
    this.#versionsState = versionsState;
    this.#load();
  }

  async #load() {
    clearTimeout(this.#timer);
    let isComplete = false;
    try {
      const [{ rows }, adapters] = await Promise.all([api("GET contact-sheet"), versions()]);
      this.#show(rows, adapters);
      const numColumns = Math.max(0, ...rows.map((row) => row.images.length));
      const filled = new Map(rows.map((row) => [row.version, row.images.length]));
      isComplete = numColumns > 0 && [...adapters.keys()].every((version) => filled.get(version) === numColumns);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#note.textContent = error.message;
    }
    // Rows are rendered when the model has time; load again until every version has all of its images.
    if (!isComplete && this.isConnected) this.#timer = setTimeout(() => this.#load(), RETRY_MS);
  }

  /**
   * @param {SheetRow[]} rows
   * @param {Adapters} adapters
   */
  #show(rows, adapters) {
    const columns = columnsFor(rows);
    const states = [...adapters.values()].map((adapter) => [adapter.version, adapter.state]);
    const shown = JSON.stringify([columns, rows.map((row) => [row.version, row.images.length]), states]);
    if (shown === this.#shown) return; // new addresses of the same images: keep those that are loaded
    this.#shown = shown;
    this.#note.textContent =
      rows.length === 0
        ? "The first row is rendered as soon as the model has time."
        : "The same prompts and seeds under every version, the newest on top.";
    const newestFirst = [...rows].sort((a, b) => b.version - a.version);
    const lines = newestFirst.map((row) => versionLine(row, columns, adapters.get(row.version)));
    this.#grid.replaceChildren(...(rows.length > 0 ? [headLine(columns), ...lines] : []));
    this.style.setProperty("--columns", String(Math.max(1, columns.length)));
  }
}

/**
 * Every prompt and seed of the rows, once.
 *
 * @param {SheetRow[]} rows
 * @returns {Column[]}
 */
function columnsFor(rows) {
  const images = rows.flatMap((row) => row.images);
  const columns = new Map(images.map(({ prompt, seed }) => [columnKey({ prompt, seed }), { prompt, seed }]));
  return [...columns].map(([key, column]) => ({ key, ...column }));
}

/** @param {Column[]} columns */
function headLine(columns) {
  const cells = columns.map(({ prompt, seed }) =>
    h(
      "div",
      { class: "ds-column", title: `${prompt} (seed ${seed})` },
      h("span", {}, prompt),
      h("small", {}, `seed ${seed}`),
    ),
  );
  return h("div", { class: "ds-row ds-head" }, h("div", { class: "ds-name" }), cells);
}

/**
 * @param {SheetRow} row
 * @param {Column[]} columns
 * @param {Adapter | undefined} adapter
 */
function versionLine(row, columns, adapter) {
  const name = versionName(row.version);
  const images = new Map(row.images.map((image) => [columnKey(image), image]));
  const cells = columns.map(({ key, prompt, seed }) => {
    const image = images.get(key);
    const alt = `${name}: ${prompt}, seed ${seed}`;
    return h(
      "div",
      { class: "ds-cell" },
      image && h("img", { src: address(image.url), alt, loading: "lazy", decoding: "async" }),
    );
  });
  const about = row.version === 0 ? "before any vote" : plural(adapter?.votes ?? 0, "vote");
  const state = adapter?.state_words;
  const badge = state && h("span", { class: `st-badge${adapter.live ? "" : " st-pale"}` }, state);
  return h(
    "div",
    { class: "ds-row" },
    h("div", { class: "ds-name" }, h("b", {}, name), h("small", {}, about), badge),
    cells,
  );
}

customElements.define("dmpo-sheet", DmpoSheet);
