// <dmpo-quality>: how good the votes are, for administrators: agreement, checks, and what each annotator's votes count.

import { AdminTokenField } from "../lib/admin-token.js";
import { barChart } from "../lib/chart.js";
import { DataImportForm } from "./data-import.js";
import { api, ApiError, h, plural, saveFile } from "../lib/studio.js";

const CSV = "/api/v1/quality/annotators.csv";
const FORMATS = [
  ["votes-jsonl", "Raw votes, JSON lines"],
  ["votes-csv", "Raw votes, CSV"],
  ["pick-a-pic", "Pick-a-Pic"],
  ["open-image-preferences", "Open image preferences"],
  ["chosen-rejected", "Prompt, chosen, rejected"],
];
const MOST_ROWS = 200;
const MOST_BARS = 100;

const percent = (share) => `${Math.round(100 * share)} %`;
const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));
const seconds = (ms) => (ms === null ? "–" : `${(ms / 1000).toFixed(1)} s`);
const short = (share) => (share.value === null ? "–" : percent(share.value));
const range = (share) => `${percent(share.low)} to ${percent(share.high)} of ${share.trials}`;
const certainty = (p) => (p === null ? "" : p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`);

class DmpoQuality extends HTMLElement {
  connectedCallback() {
    this.token = new AdminTokenField("Administrator's token, to see the quality of votes");
    this.save = h(
      "button",
      { type: "button", class: "st-button", onclick: () => this.download(), disabled: true },
      "Download CSV",
    );
    this.message = h("p", { class: "qu-message", role: "status", "aria-live": "polite" });
    this.content = h("div", { class: "qu-content" });
    this.taking = new DataImportForm(() => this.token.value);
    this.format = h(
      "select",
      { class: "qu-format", "aria-label": "Format of the votes" },
      FORMATS.map(([value, name]) => h("option", { value }, name)),
    );
    const show = (event) => {
      event.preventDefault();
      this.show();
    };
    this.replaceChildren(
      h(
        "p",
        { class: "qu-help" },
        "For administrators. Annotators appear under hashed names, which differ from studio to studio.",
      ),
      h(
        "form",
        { class: "qu-line", onsubmit: show },
        this.token.input,
        h("button", { type: "submit", class: "st-button" }, "Show"),
        this.save,
      ),
      h(
        "form",
        { class: "qu-line", onsubmit: (event) => this.downloadVotes(event) },
        this.format,
        h("button", { type: "submit", class: "st-button" }, "Download votes"),
        h("span", { class: "qu-help" }, "A zip with card and manifest, without pictures; dmpo export adds them."),
      ),
      this.message,
      this.content,
      this.taking.element,
    );
  }

  async show() {
    const report = await this.attempt((token) => api("GET", "quality", { token, timeoutMs: 60000 }));
    if (!report) return;
    this.taking.refresh();
    this.save.disabled = report.annotators.length === 0;
    this.say(
      report.votes === 0
        ? "No votes yet."
        : `${plural(report.votes, "vote")} by ${plural(report.annotators.length, "annotator")} on ${plural(report.pairs, "pair")}.`,
    );
    if (report.votes === 0) this.content.replaceChildren();
    else this.content.replaceChildren(tiles(report), ...charts(report), table(report));
  }

  async download() {
    const saved = await this.attempt((token) => saveFile(CSV, "annotators.csv", token).then(() => true));
    if (saved) this.say("The table is downloaded.");
  }

  async downloadVotes(event) {
    event.preventDefault();
    const { value } = this.format;
    const saved = await this.attempt((token) =>
      saveFile(`/api/v1/exports/${value}`, `${value}.zip`, token).then(() => true),
    );
    if (saved) this.say("The votes are downloaded.");
  }

  /** What `ask(token)` resolves to, or null; why not is said on the page. */
  async attempt(ask) {
    const token = this.token.value;
    if (token === "") {
      this.say("Enter the administrator's token first.", true);
      this.token.input.focus();
      return null;
    }
    this.say("Looking at the votes…");
    try {
      return await ask(token);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.say(error.message, true);
      return null;
    }
  }

  say(text, bad = false) {
    this.message.textContent = text;
    this.message.classList.toggle("qu-bad", bad);
  }
}

function tiles(report) {
  const { alpha } = report;
  const shown = [
    [
      "Agreement, Krippendorff's α",
      alpha ? number(alpha.value) : "–",
      alpha ? `${number(alpha.low)} to ${number(alpha.high)}; 1 is full, 0 is chance` : "no pair was judged by several",
    ],
    ["Judged by several", plural(report.overlapping_pairs, "pair"), `of ${report.pairs}`],
    tile("As most others answered", report.agreement),
    tile("Repeats answered alike", report.repeats, "none were shown"),
    tile("Gold pairs right", report.gold, "none were shown"),
    tile("Image on the left", report.left, "none", certainty(report.left_p)),
    tile("Ties", report.ties),
    tile("Under 0.6 s", report.fast, "no times known"),
    ["Median time", seconds(report.median_ms), "from showing to answer"],
    [
      "Reliability",
      report.weights_in_use ? "weighs votes" : "off",
      report.max_annotator_share === null
        ? "no cap on one annotator"
        : `one annotator weighs ${percent(report.max_annotator_share)} at most`,
    ],
  ];
  return h(
    "div",
    { class: "qu-tiles" },
    shown.map(([name, value, note]) =>
      h("div", { class: "qu-tile" }, h("small", {}, name), h("b", {}, value), h("small", {}, note)),
    ),
  );
}

function tile(name, share, none = "none", more = "") {
  return [name, short(share), share.value === null ? none : [range(share), more].filter(Boolean).join(", ")];
}

function charts(report) {
  const edges = report.time_edges_ms;
  const times = report.time_counts.map((count, index) => {
    const until = index + 1 < edges.length ? `to ${seconds(edges[index + 1])}` : "or more";
    return { value: count, title: `${seconds(edges[index])} ${until}: ${plural(count, "vote")}` };
  });
  const known = report.annotators.slice(0, MOST_BARS);
  const weights = [...known]
    .sort((a, b) => b.weight - a.weight)
    .map((row) => ({
      value: row.weight,
      title: `${row.name}: weight ${number(row.weight)}, ${plural(row.votes, "vote")}`,
    }));
  const light = known.filter((row) => row.weight < 0.5).length;
  return [
    chart("Time per vote", barChart(times, `Votes by the time they took: median ${seconds(report.median_ms)}`), [
      "0 s",
      "1.5 s",
      "20 s and more",
    ]),
    chart(
      "Weight of each annotator",
      barChart(
        weights,
        `Weights of ${plural(known.length, "annotator")}, the mean vote being 1: ${light} below one half`,
      ),
      ["the most reliable", `${light} below 0.5`, "the least"],
    ),
  ];
}

function chart(title, picture, axis) {
  return h(
    "section",
    { class: "qu-section" },
    h("h2", {}, title),
    h(
      "div",
      { class: "qu-chart" },
      picture,
      h(
        "div",
        { class: "qu-axis" },
        axis.map((text) => h("span", {}, text)),
      ),
    ),
  );
}

const COLUMNS = [
  ["Annotator", "a hashed name", (row) => row.name],
  ["Votes", "all of them, skips included", (row) => row.votes],
  ["Agrees", "with what most others answered on the pair", (row) => short(row.agreement), (row) => row.agreement],
  ["Repeats", "answered as the first time", (row) => short(row.repeats), (row) => row.repeats],
  ["Gold", "right on pairs whose answer is known", (row) => short(row.gold), (row) => row.gold],
  ["Left", "for the image on the left", (row) => short(row.left), (row) => row.left],
  ["Median", "time per vote", (row) => seconds(row.median_ms)],
  ["Ties", "share of ties", (row) => short(row.ties), (row) => row.ties],
  ["Weight", "by reliability; the mean vote is 1", (row) => number(row.weight)],
  ["Counts", "what a vote counts in rounds as set now", (row) => number(row.counts)],
  ["Share", "of all votes, as they count now", (row) => percent(row.vote_share)],
  ["Stands out", "tests are corrected for the number of annotators", (row) => row.flags.join(", ")],
];

function table(report) {
  const head = h(
    "tr",
    {},
    COLUMNS.map(([name, about]) => h("th", { scope: "col", title: about }, name)),
  );
  const rows = report.annotators.slice(0, MOST_ROWS).map((row) => {
    const cells = COLUMNS.map(([name, , said, share], index) => {
      const interval = share?.(row);
      const title = interval && interval.value !== null ? range(interval) : null;
      return index === 0
        ? h("th", { scope: "row" }, said(row))
        : h("td", { title, class: name === "Stands out" ? "qu-flags" : null }, String(said(row)));
    });
    return h("tr", {}, cells);
  });
  const more = report.annotators.length - rows.length;
  return h(
    "section",
    { class: "qu-section" },
    h("h2", {}, "Annotators"),
    h(
      "div",
      { class: "qu-scroll", tabindex: "0", role: "region", "aria-label": "Annotators, a table that scrolls" },
      h("table", { class: "qu-table" }, h("thead", {}, head), h("tbody", {}, rows)),
    ),
    more > 0 && h("p", { class: "qu-help" }, `and ${more} more; the CSV file holds them all`),
  );
}

customElements.define("dmpo-quality", DmpoQuality);
