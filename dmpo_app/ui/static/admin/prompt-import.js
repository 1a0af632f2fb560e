// @ts-check
// The form that imports a file of prompts: a preview with counts first, then the import.

import { api, ApiError } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { plural } from "../lib/text.js";

/** @import { Operations } from "../lib/api-types.js" */
/** @import { Child } from "../lib/dom.js" */
/** @import { Answer } from "../lib/types.js" */

/**
 * @typedef {NonNullable<NonNullable<Operations["POST prompts/import"]["query"]>["format"]>} Format
 * @typedef {Answer<"POST prompts/import">} ImportAnswer
 */

const MOST_BYTES = 4 * 1024 * 1024;
const TIMEOUT_MS = 120000;
/** @type {Format[]} */
const FORMATS = ["txt", "csv", "tsv", "jsonl", "json"];
const HELP =
  "A file of text: .txt (a prompt a line), .csv, .tsv, .jsonl or .json, up to 4 MiB. " +
  "Parquet and larger files: dmpo prompts import.";

/**
 * @param {string} label
 * @param {Child} control
 */
const field = (label, control) => h("label", { class: "pm-field" }, h("span", {}, label), control);

/** @param {File} file */
const formatOf = (file) => FORMATS.find((format) => file.name.toLowerCase().endsWith(`.${format}`));

export class PromptImportForm {
  /**
   * @param {() => string} token the administrator's
   * @param {() => void} imported called after prompts were added
   */
  constructor(token, imported) {
    this.token = token;
    this.imported = imported;
    const onchange = () => this.#changed();
    const text = { type: "text", class: "pm-input", autocomplete: "off", oninput: onchange };
    const accept = FORMATS.map((format) => `.${format}`).join(",");
    this.file = h("input", { type: "file", class: "pm-input", accept, onchange });
    this.side = h(
      "select",
      { class: "pm-input", onchange },
      h("option", { value: "0" }, "train on all"),
      h("option", { value: "share" }, "hold out a share"),
      h("option", { value: "1" }, "hold all out"),
    );
    this.share = h("input", {
      type: "number",
      class: "pm-input",
      min: "1",
      max: "99",
      step: "1",
      value: "10",
      oninput: onchange,
    });
    this.shareField = field("Share, %", this.share);
    this.tags = h("input", { ...text, placeholder: "commas between" });
    this.column = h("input", { ...text, placeholder: "prompt, caption…" });
    const send = (/** @type {boolean} */ isDryRun) => () => this.#send(isDryRun);
    this.previewButton = h("button", { type: "button", class: "st-button", onclick: send(true) }, "Preview");
    this.importButton = h(
      "button",
      { type: "button", class: "st-button", disabled: true, onclick: send(false) },
      "Import",
    );
    this.message = h("p", { class: "pm-message", role: "status", "aria-live": "polite" });
    this.refused = h("div", {});
    this.element = h(
      "section",
      { class: "pm-import" },
      h("h2", {}, "Import"),
      h("p", { class: "ad-help" }, HELP),
      h(
        "div",
        { class: "pm-filters" },
        field("File", this.file),
        field("Side", this.side),
        this.shareField,
        field("Tags", this.tags),
        field("Column", this.column),
      ),
      h("div", { class: "pm-acts" }, this.previewButton, this.importButton),
      this.message,
      this.refused,
    );
    this.#changed();
  }

  /** The previewed prompts are not those that would be imported any more. */
  #changed() {
    this.shareField.hidden = this.side.value !== "share";
    this.importButton.disabled = true;
    this.#say("");
    this.refused.replaceChildren();
  }

  /** The problem with the file that was chosen, or null. */
  #fileProblem() {
    const file = this.file.files?.[0];
    if (!file) return "Choose a file first.";
    if (!formatOf(file)) return `A file ending in one of: ${FORMATS.join(", ")}.`;
    return file.size > MOST_BYTES ? "The file is larger than 4 MiB; use dmpo prompts import." : null;
  }

  /** @param {boolean} isDryRun */
  async #send(isDryRun) {
    const problem = this.#fileProblem();
    const file = this.file.files?.[0];
    if (problem !== null || !file) {
      this.#say(problem ?? "", true);
      return;
    }
    const tags = this.tags.value.split(",").map((tag) => tag.trim());
    const query = {
      format: formatOf(file),
      dry_run: isDryRun,
      held_out_share: this.side.value === "share" ? Number(this.share.value) / 100 : Number(this.side.value),
      tag: tags.filter((tag) => tag !== ""),
      column: this.column.value.trim() || null,
    };
    this.previewButton.disabled = this.importButton.disabled = true;
    this.#say("Reading…");
    try {
      // The bytes as they are, so that the studio and not the browser judges whether they are text.
      const content = await file.arrayBuffer();
      const request = { query, content, token: this.token(), timeoutMs: TIMEOUT_MS };
      this.#show(await api("POST prompts/import", request));
      if (!isDryRun) this.imported();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#say(error.message, true);
    } finally {
      this.previewButton.disabled = false;
    }
  }

  /** @param {ImportAnswer} answer */
  #show(answer) {
    this.#say(summary(answer));
    this.importButton.disabled = !(answer.dry_run && answer.new + answer.known > 0);
    this.refused.replaceChildren(...refusedRows(answer));
  }

  /**
   * @param {string} text
   * @param {boolean} bad
   */
  #say(text, bad = false) {
    this.message.textContent = text;
    this.message.classList.toggle("pm-bad", bad);
  }
}

/** @param {ImportAnswer} answer */
function summary(answer) {
  const added = `${plural(answer.new, "prompt")} ${answer.dry_run ? "would be added" : "added"}`;
  const parts = [
    `${added}, ${answer.held_out} of them held out`,
    ...(answer.known > 0 ? [`${answer.known} there already`] : []),
    ...Object.entries(answer.refused).map(([reason, count]) => `${count} refused: ${reason}`),
  ];
  return `${parts.join(" · ")}.`;
}

/** @param {ImportAnswer} answer */
function refusedRows({ rows, refused }) {
  if (rows.length === 0) return [];
  const total = Object.values(refused).reduce((sum, count) => sum + count, 0);
  const title = rows.length < total ? `The first ${rows.length} refused rows` : "Refused rows";
  const lines = rows.map(({ row, reason, text, like }) =>
    h("li", {}, `${row}: ${reason}: `, h("q", {}, text), like ? [", like ", h("q", {}, like)] : null),
  );
  return [h("details", { class: "pm-refused" }, h("summary", {}, title), h("ul", {}, lines))];
}
