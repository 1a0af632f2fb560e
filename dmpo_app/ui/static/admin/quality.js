// @ts-check
// <dmpo-quality>: the quality of the votes, for administrators: agreement, checks, and the weight of each annotator.

import { AdminTokenField } from "../lib/admin-token.js";
import { api, ApiError, saveFile } from "../lib/api.js";
import { barChart } from "../lib/chart.js";
import { h } from "../lib/dom.js";
import { percent, plural } from "../lib/text.js";
import { DataImportForm } from "./data-import.js";

/** @import { AnnotatorQuality, DamagedPair, QualityReport, Share } from "../lib/types.js" */

/**
 * @typedef {[name: string, value: string, note: string]} Tile
 *
 * @typedef {object} Column
 * @property {string} name
 * @property {string} about
 * @property {(row: AnnotatorQuality) => string | number} text
 * @property {(row: AnnotatorQuality) => Share} [share] whose interval is shown on demand
 */

/** @type {Array<[format: string, name: string]>} */
const FORMATS = [
  ["votes-jsonl", "Raw votes, JSON lines"],
  ["votes-csv", "Raw votes, CSV"],
  ["pick-a-pic", "Pick-a-Pic"],
  ["open-image-preferences", "Open image preferences"],
  ["chosen-rejected", "Prompt, chosen, rejected"],
];
const MOST_ROWS = 200;
const MOST_BARS = 100;
const REPORT_TIMEOUT_MS = 60000;

/** @param {number | null} value */
const number = (value) => (value === null ? "–" : value.toFixed(2));
/** @param {number | null} ms */
const seconds = (ms) => (ms === null ? "–" : `${(ms / 1000).toFixed(1)} s`);
/** @param {Share} share */
const short = ({ value }) => (value === null ? "–" : percent(value));
/** @param {Share} share */
const interval = ({ low, high, trials }) => `${percent(low ?? 0)} to ${percent(high ?? 1)} of ${trials}`;
/** @param {number | null} p */
const certainty = (p) => (p === null ? "" : p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`);

class DmpoQuality extends HTMLElement {
  #token = new AdminTokenField("Administrator's token, to see the quality of votes");
  #save = h(
    "button",
    { type: "button", class: "st-button", onclick: () => this.#downloadTable(), disabled: true },
    "Download CSV",
  );
  #message = h("p", { class: "qu-message", role: "status", "aria-live": "polite" });
  #damage = h("div", { class: "qu-damage", "aria-live": "polite" });
  #content = h("div", { class: "qu-content" });
  #imports = new DataImportForm(() => this.#token.value);
  #format = h(
    "select",
    { class: "qu-format", "aria-label": "Format of the votes" },
    FORMATS.map(([value, name]) => h("option", { value }, name)),
  );

  connectedCallback() {
    const help = "For administrators. Annotators appear under hashed names, which differ from studio to studio.";
    const about = "A zip with card and manifest, without images; dmpo export adds them.";
    this.replaceChildren(
      h("p", { class: "qu-help" }, help),
      h(
        "form",
        { class: "qu-line", onsubmit: (event) => this.#show(event) },
        this.#token.input,
        h("button", { type: "submit", class: "st-button" }, "Show"),
        this.#save,
      ),
      h(
        "form",
        { class: "qu-line", onsubmit: (event) => this.#downloadVotes(event) },
        this.#format,
        h("button", { type: "submit", class: "st-button" }, "Download votes"),
        h("span", { class: "qu-help" }, about),
      ),
      this.#message,
      this.#damage,
      this.#content,
      this.#imports.element,
    );
  }

  /** @param {SubmitEvent} event */
  async #show(event) {
    event.preventDefault();
    const report = await this.#attempt((token) => api("GET quality", { token, timeoutMs: REPORT_TIMEOUT_MS }));
    if (!report) return;
    const { votes, annotators, pairs } = report;
    this.#imports.refresh();
    await this.#showDamage();
    this.#save.disabled = annotators.length === 0;
    if (votes === 0) {
      this.#say("No votes yet.");
      this.#content.replaceChildren();
      return;
    }
    this.#say(`${plural(votes, "vote")} by ${plural(annotators.length, "annotator")} on ${plural(pairs, "pair")}.`);
    this.#content.replaceChildren(tiles(report), ...charts(report), table(annotators));
  }

  /** The pairs whose files are damaged, if there are any; beside the report, so that a failure here hides nothing. */
  async #showDamage() {
    try {
      const { out_of_pool: count, pairs } = await api("GET damage", { token: this.#token.value });
      this.#damage.replaceChildren(...(pairs.length > 0 ? [damageSection(count, pairs)] : []));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#damage.replaceChildren(h("p", { class: "qu-message qu-bad" }, error.message));
    }
  }

  async #downloadTable() {
    const isSaved = await this.#attempt(async (token) => {
      await saveFile("GET quality/annotators.csv", "annotators.csv", { token });
      return true;
    });
    if (isSaved) this.#say("The table is downloaded.");
  }

  /** @param {SubmitEvent} event */
  async #downloadVotes(event) {
    event.preventDefault();
    const { value: format } = this.#format;
    const isSaved = await this.#attempt(async (token) => {
      await saveFile("GET exports/{format}", `${format}.zip`, { params: { format }, token });
      return true;
    });
    if (isSaved) this.#say("The votes are downloaded.");
  }

  /**
   * The result of a request, or null; the page then says the reason.
   *
   * @template Result
   * @param {(token: string) => Promise<Result>} request
   */
  async #attempt(request) {
    const token = this.#token.value;
    if (token === "") {
      this.#say("Enter the administrator's token first.", true);
      this.#token.input.focus();
      return null;
    }
    this.#say("Looking at the votes…");
    try {
      return await request(token);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#say(error.message, true);
      return null;
    }
  }

  /**
   * @param {string} text
   * @param {boolean} bad
   */
  #say(text, bad = false) {
    this.#message.textContent = text;
    this.#message.classList.toggle("qu-bad", bad);
  }
}

/**
 * @param {number} count the pairs that are out of the pool
 * @param {DamagedPair[]} pairs
 */
function damageSection(count, pairs) {
  const about =
    `${plural(count, "pair")} out of the pool: images are missing or damaged. They come back by themselves once ` +
    "the files are whole; dmpo verify --repair fetches them from the backup.";
  const rows = pairs.map(({ pair, prompt, lost }) =>
    h("li", {}, `Pair ${pair}, “${prompt}”: ${lost === "images" ? "images" : "latents, which are made anew"}`),
  );
  return h("section", { class: "qu-section" }, h("h2", {}, "Damaged files"), h("p", {}, about), h("ul", {}, rows));
}

/** @param {QualityReport} report */
function tiles(report) {
  const { alpha, max_annotator_share: cap } = report;
  const alphaNote = alpha
    ? `${number(alpha.low)} to ${number(alpha.high)}; 1 is full, 0 is chance`
    : "no pair was voted on by several";
  /** @type {Tile[]} */
  const all = [
    ["Agreement, Krippendorff's α", alpha ? number(alpha.value) : "–", alphaNote],
    ["Voted on by several", plural(report.overlapping_pairs, "pair"), `of ${report.pairs}`],
    tile("As most others voted", report.agreement),
    tile("Repeats voted alike", report.repeats, "none were shown"),
    tile("Gold pairs right", report.gold, "none were shown"),
    tile("Image on the left", report.left, "none", certainty(report.left_p)),
    tile("Ties", report.ties),
    tile("Under 0.6 s", report.fast, "no times known"),
    ["Median time", seconds(report.median_ms), "from showing a pair to the vote"],
    [
      "Reliability",
      report.weights_in_use ? "weighs votes" : "off",
      cap === null ? "no cap on one annotator" : `one annotator weighs ${percent(cap)} at most`,
    ],
  ];
  return h(
    "div",
    { class: "qu-tiles" },
    all.map(([name, value, note]) =>
      h("div", { class: "qu-tile" }, h("small", {}, name), h("b", {}, value), h("small", {}, note)),
    ),
  );
}

/**
 * @param {string} name
 * @param {Share} share
 * @param {string} none the note where there were no trials
 * @param {string} more
 * @returns {Tile}
 */
function tile(name, share, none = "none", more = "") {
  const note = share.value === null ? none : [interval(share), more].filter((part) => part !== "").join(", ");
  return [name, short(share), note];
}

/** @param {QualityReport} report */
function charts({ time_edges_ms: edges, time_counts: counts, median_ms: median, annotators }) {
  const times = counts.map((count, index) => {
    const until = index + 1 < edges.length ? `to ${seconds(edges[index + 1])}` : "or more";
    return { value: count, title: `${seconds(edges[index])} ${until}: ${plural(count, "vote")}` };
  });
  const rows = annotators.slice(0, MOST_BARS);
  const weights = [...rows]
    .sort((a, b) => b.weight - a.weight)
    .map(({ weight, name, votes }) => ({
      value: weight,
      title: `${name}: weight ${number(weight)}, ${plural(votes, "vote")}`,
    }));
  const light = rows.filter(({ weight }) => weight < 0.5).length;
  const timeLabel = `Votes by the time they took: median ${seconds(median)}`;
  const weightLabel = `Weights of ${plural(rows.length, "annotator")}, the mean vote being 1: ${light} below one half`;
  return [
    chart("Time per vote", barChart(times, timeLabel), ["0 s", "1.5 s", "20 s and more"]),
    chart("Weight of each annotator", barChart(weights, weightLabel), [
      "the most reliable",
      `${light} below 0.5`,
      "the least",
    ]),
  ];
}

/**
 * @param {string} title
 * @param {Node} drawing
 * @param {string[]} axis
 */
function chart(title, drawing, axis) {
  const labels = axis.map((text) => h("span", {}, text));
  return h(
    "section",
    { class: "qu-section" },
    h("h2", {}, title),
    h("div", { class: "qu-chart" }, drawing, h("div", { class: "qu-axis" }, labels)),
  );
}

/**
 * @param {string} name
 * @param {string} about
 * @param {(row: AnnotatorQuality) => Share} share
 * @returns {Column}
 */
const shareColumn = (name, about, share) => ({ name, about, text: (row) => short(share(row)), share });

/** @type {Column[]} */
const COLUMNS = [
  { name: "Annotator", about: "a hashed name", text: (row) => row.name },
  { name: "Votes", about: "all of them, skips included", text: (row) => row.votes },
  shareColumn("Agrees", "with the choice of most others on the pair", (row) => row.agreement),
  shareColumn("Repeats", "voted as the first time", (row) => row.repeats),
  shareColumn("Gold", "right on pairs whose better image is known", (row) => row.gold),
  shareColumn("Left", "for the image on the left", (row) => row.left),
  { name: "Median", about: "time per vote", text: (row) => seconds(row.median_ms) },
  { name: "Ties", about: "share of ties", text: (row) => short(row.ties) },
  { name: "Weight", about: "by reliability; the mean vote is 1", text: (row) => number(row.weight) },
  { name: "Counts", about: "weight of a vote in rounds as set now", text: (row) => number(row.counts) },
  { name: "Share", about: "of all votes, as they count now", text: (row) => percent(row.vote_share) },
  {
    name: "Stands out",
    about: "tests are corrected for the number of annotators",
    text: (row) => row.flags.join(", "),
  },
];

/** @param {AnnotatorQuality[]} annotators */
function table(annotators) {
  const head = COLUMNS.map(({ name, about }) => h("th", { scope: "col", title: about }, name));
  const rows = annotators.slice(0, MOST_ROWS).map((row) =>
    h(
      "tr",
      {},
      COLUMNS.map((column, index) => cell(row, column, index === 0)),
    ),
  );
  const more = annotators.length - rows.length;
  const frame = { class: "qu-scroll", tabindex: "0", role: "region", "aria-label": "Annotators, a table that scrolls" };
  return h(
    "section",
    { class: "qu-section" },
    h("h2", {}, "Annotators"),
    h("div", frame, h("table", { class: "qu-table" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows))),
    more > 0 && h("p", { class: "qu-help" }, `and ${more} more; the CSV file holds them all`),
  );
}

/**
 * @param {AnnotatorQuality} row
 * @param {Column} column
 * @param {boolean} isHead
 */
function cell(row, { name, text, share }, isHead) {
  if (isHead) return h("th", { scope: "row" }, text(row));
  const value = share?.(row);
  const title = value && value.value !== null ? interval(value) : null;
  return h("td", { title, class: name === "Stands out" ? "qu-flags" : null }, String(text(row)));
}

customElements.define("dmpo-quality", DmpoQuality);
