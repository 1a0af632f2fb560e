// @ts-check
// The form that imports a data set: it is sent or named, previewed with counts, and then imported.

import { api, ApiError } from "../lib/api.js";
import { h } from "../lib/dom.js";

/** @import { Child } from "../lib/dom.js" */
/** @import { Answer, ImportProgress } from "../lib/types.js" */
/** @typedef {(token: string) => Promise<Answer<"GET imports">>} ImportRequest */

const ENDINGS = [".parquet", ".jsonl", ".json", ".zip"];
const MOST_BYTES = 4 * 2 ** 30;
const LONGEST_UPLOAD_MS = 6 * 3600 * 1000;
const STOP_TIMEOUT_MS = 60000;
const POLL_MS = 700;
/** @type {Array<ImportProgress["phase"] | undefined>} */
const BUSY = ["receiving", "reading", "taking_in"];
/** @type {Array<[use: ImportProgress["use"], text: string]>} */
const USES = [
  ["both", "pairs and votes"],
  ["votes", "votes, to train on"],
  ["pairs", "pairs, to be voted on here"],
];
const HELP =
  "Pick-a-Pic, HPD, Label Studio, Argilla and others, told by their columns: .parquet, .jsonl or .json, or a .zip of " +
  "such files with their images, up to 4 GiB; or a data set of the Hugging Face hub.";

/**
 * @param {string} label
 * @param {Child} control
 */
const field = (label, control) => h("label", { class: "di-field" }, h("span", {}, label), control);
/** @param {number} value */
const count = (value) => value.toLocaleString("en");
/** @param {number} number @param {string} word */
const many = (number, word) => `${count(number)} ${number === 1 ? word : `${word}s`}`;
/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

export class DataImportForm {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;

  /** @param {() => string} getToken the administrator's */
  constructor(getToken) {
    this.getToken = getToken;
    this.file = h("input", { type: "file", class: "di-input", accept: ENDINGS.join(",") });
    this.hub = h("input", {
      type: "text",
      class: "di-input",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "owner/name",
    });
    this.use = h(
      "select",
      { class: "di-input" },
      USES.map(([value, text]) => h("option", { value }, text)),
    );
    this.previewButton = h("button", { type: "submit", class: "st-button" }, "Preview");
    this.importButton = this.#button("Import", (token) => api("POST imports/take-in", { token }));
    this.importButton.disabled = true;
    this.stopButton = this.#button("Stop", (token) => api("DELETE imports", { token, timeoutMs: STOP_TIMEOUT_MS }));
    this.stopButton.hidden = true;
    this.message = h("p", { class: "di-message", role: "status", "aria-live": "polite" });
    this.bar = h("progress", { class: "di-bar", hidden: true, "aria-label": "Progress of the import" });
    this.leftOut = h("div", {});
    const onsubmit = (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      this.#send();
    };
    this.element = h(
      "section",
      { class: "qu-section" },
      h("h2", {}, "Import pairs and votes"),
      h("p", { class: "qu-help" }, HELP),
      h(
        "form",
        { onsubmit },
        h(
          "div",
          { class: "di-fields" },
          field("File", this.file),
          field("Or from the hub", this.hub),
          field("Import", this.use),
        ),
        h("div", { class: "qu-line" }, this.previewButton, this.importButton, this.stopButton),
      ),
      this.message,
      this.bar,
      this.leftOut,
    );
  }

  /**
   * @param {string} text
   * @param {ImportRequest} request
   */
  #button(text, request) {
    return h("button", { type: "button", class: "st-button", onclick: () => this.#ask(request) }, text);
  }

  /** Show what is under way, for example after the page was loaded anew. */
  async refresh() {
    await this.#ask((token) => api("GET imports", { token }));
  }

  /** The problem with what was chosen, or null. */
  #problem() {
    const file = this.file.files?.[0];
    const hub = this.hub.value.trim();
    if (!file && hub === "") return "Choose a file, or name a data set of the hub.";
    if (!file) return null;
    if (hub !== "") return "A file or a data set of the hub, not both.";
    const name = file.name.toLowerCase();
    if (!ENDINGS.some((ending) => name.endsWith(ending))) return `A file ending in one of: ${ENDINGS.join(", ")}.`;
    return file.size > MOST_BYTES ? "The file is larger than 4 GiB; use dmpo import." : null;
  }

  async #send() {
    const problem = this.#problem();
    if (problem !== null) {
      this.#say(problem, true);
      return;
    }
    const file = this.file.files?.[0];
    const as = USES[this.use.selectedIndex][0];
    if (!file) {
      await this.#ask((token) => api("POST imports/hub", { query: { name: this.hub.value.trim(), as }, token }));
      return;
    }
    const query = { name: file.name, as };
    const timeoutMs = LONGEST_UPLOAD_MS;
    const sent = this.#ask((token) => api("POST imports", { query, content: file, token, timeoutMs }));
    if (this.getToken() !== "") this.#wait(); // how much has arrived
    await sent;
  }

  /**
   * Ask the API as an administrator, and show the progress that it answers.
   *
   * @param {ImportRequest} request
   */
  async #ask(request) {
    const token = this.getToken();
    if (token === "") {
      this.#say("Enter the administrator's token first.", true);
      return;
    }
    this.previewButton.disabled = this.importButton.disabled = true;
    try {
      this.#show((await request(token)).current);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.previewButton.disabled = false;
      this.#say(error.message, true);
    }
  }

  #wait() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }

  async #poll() {
    try {
      this.#show((await api("GET imports", { token: this.getToken() })).current);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.isRetryable) this.#wait();
      else this.#say(error.message, true);
    }
  }

  /** @param {ImportProgress | null} progress null: no import is under way */
  #show(progress) {
    const phase = progress?.phase;
    const isBusy = BUSY.includes(phase);
    this.previewButton.disabled = isBusy;
    this.importButton.disabled = !(progress && phase === "previewed" && progress.pairs + progress.votes > 0);
    this.stopButton.hidden = phase === undefined || phase === "done" || phase === "failed";
    this.stopButton.textContent = isBusy ? "Stop" : "Discard";
    const share = progress && isBusy ? shareDone(progress) : null;
    this.bar.hidden = share === null;
    this.bar.value = share ?? 0;
    this.#say(progress ? progressText(progress) : "", phase === "failed");
    this.leftOut.replaceChildren(...(progress && progress.left_out_rows.length > 0 ? [leftOutRows(progress)] : []));
    if (isBusy) this.#wait();
    else clearTimeout(this.#timer);
  }

  /**
   * @param {string} text
   * @param {boolean} bad
   */
  #say(text, bad = false) {
    this.message.textContent = text;
    this.message.classList.toggle("qu-bad", bad);
  }
}

/**
 * The share that is done, from 0 to 1; null: nobody knows how much there is.
 *
 * @param {ImportProgress} progress
 */
function shareDone({ phase, num_bytes: arrived, total_bytes: bytes, rows, total_rows: all }) {
  if (phase === "receiving" && bytes > 0) return arrived / bytes;
  return phase === "taking_in" && all > 0 ? rows / all : null;
}

/** @param {ImportProgress} progress */
function progressText(progress) {
  const { phase, name, rows, pairs, votes, problem } = progress;
  if (phase === "failed") return `${name}: ${problem}.`.replace(/\.\.$/, ".");
  if (phase === "receiving") return `${name}: ${receivedText(progress)} received…`;
  if (phase === "reading") return `${name}: reading, ${many(rows, "row")} so far…`;
  if (phase === "taking_in") {
    return `${name}: ${many(rows, "row")}, ${many(pairs, "pair")} and ${many(votes, "vote")} imported…`;
  }
  return summary(progress);
}

/** @param {ImportProgress} progress */
const receivedText = ({ num_bytes: arrived, total_bytes: total }) =>
  total > 0 ? `${megabytes(arrived)} of ${megabytes(total)}` : megabytes(arrived);

/**
 * A previewed import, or one that is done.
 *
 * @param {ImportProgress} progress
 */
function summary({ phase, name, format, rows, pairs, votes, ties, unlabelled, duplicates, is_resumed, left_out }) {
  const isDone = phase === "done";
  const leftOut = Object.values(left_out).reduce((sum, number) => sum + number, 0);
  const outcome = isDone ? "imported" : "would be added";
  const before = rows === 0 ? "all of it was imported before" : "a part was imported before";
  const parts = [
    `${name}, ${format}: ${many(pairs, "pair")} and ${many(votes, "vote")} ${outcome}`,
    is_resumed && !isDone && before,
    ties > 0 && `${count(ties)} of them ties`,
    unlabelled > 0 && `${count(unlabelled)} without a vote`,
    duplicates > 0 && `${count(duplicates)} there already`,
    leftOut > 0 && `${count(leftOut)} left out`,
  ];
  return `${parts.filter((part) => part !== false).join(" · ")}.`;
}

/** @param {ImportProgress} progress */
function leftOutRows({ left_out, left_out_rows }) {
  const reasons = Object.entries(left_out).map(([reason, number]) => h("li", {}, `${count(number)}: ${reason}`));
  const rows = left_out_rows.map(({ row, reason }) => h("li", {}, `row ${row}: ${reason}`));
  return h(
    "details",
    { class: "di-left" },
    h("summary", {}, "What is left out, and why"),
    h("ul", {}, reasons),
    h("p", { class: "qu-help" }, "The first of them:"),
    h("ul", {}, rows),
  );
}
