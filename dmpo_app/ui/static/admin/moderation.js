// @ts-check
// Moderation on the quality tab: annotators are struck and restored, reports of pairs confirmed and cleared.

import { address, api } from "../lib/api.js";
import { openDialog } from "../lib/dialog.js";
import { h } from "../lib/dom.js";
import { plural } from "../lib/text.js";

/** @import { AnnotatorQuality, Report, StruckAnnotator } from "../lib/types.js" */
/** @typedef {(token: string) => Promise<string>} Act resolves to a sentence about its result */

const MOST_REPORTS = 50;
const STRIKE_HELP =
  "None of their votes and reports counts from now on, also those to come, and prompts they proposed are retired. " +
  "Nothing is deleted: restoring them brings all of it back. It is on record in the log of acts.";

export class ModerationPanel {
  /** @param {(act: Act) => void} perform does something with the token, says its result and shows everything anew */
  constructor(perform) {
    this.perform = perform;
    this.element = h("div", {});
  }

  /** @param {AnnotatorQuality} row */
  strikeButton({ name, votes }) {
    const strike = async () => {
      const content = h("p", {}, `${plural(votes, "vote")} of ${name}. ${STRIKE_HELP}`);
      const actions = [
        { key: "Strike", value: "strike", main: true },
        { key: "Cancel", value: "" },
      ];
      if ((await openDialog(this.element, `Strike ${name}?`, content, actions)) !== "strike") return;
      this.perform(async (token) => {
        const struck = await api("POST annotators/{annotator}/strike", { params: { annotator: name }, token });
        const parts = [
          plural(struck.votes, "vote"),
          plural(struck.reports, "report"),
          plural(struck.prompts, "prompt"),
        ];
        return `${name} is struck: ${parts.join(", ")}.`;
      });
    };
    return button("Strike", strike, `Strike ${name}`);
  }

  /**
   * Show the open reports, newest first, and the struck annotators.
   *
   * @param {string} token
   * @param {StruckAnnotator[]} struck
   */
  async show(token, struck) {
    const { reports } = await api("GET reports", { query: { standing: true, limit: MOST_REPORTS }, token });
    this.element.replaceChildren(this.#struckSection(struck), this.#reportsSection(reports));
  }

  /** @param {StruckAnnotator[]} struck */
  #struckSection(struck) {
    if (struck.length === 0) return "";
    const lines = struck.map(({ name, votes, reports, prompts }) => {
      const restore = () =>
        this.perform(async (token) => {
          await api("POST annotators/{annotator}/restore", { params: { annotator: name }, token });
          return `${name} counts again.`;
        });
      const counts = [plural(votes, "vote"), plural(reports, "report"), plural(prompts, "prompt")].join(", ");
      return h("li", {}, h("code", {}, name), ` ${counts} `, button("Restore", restore, `Restore ${name}`));
    });
    return h(
      "section",
      { class: "qu-section" },
      h("h2", {}, "Struck annotators"),
      h("ul", { class: "mo-list" }, lines),
    );
  }

  /** @param {Report[]} reports */
  #reportsSection(reports) {
    const clearAll = async () => {
      const content = h(
        "p",
        {},
        "Every open report is cleared, but for those that were confirmed; their pairs come back.",
      );
      const actions = [
        { key: "Clear all", value: "clear", main: true },
        { key: "Cancel", value: "" },
      ];
      if ((await openDialog(this.element, "Clear all open reports?", content, actions)) === "clear") this.#clear(null);
    };
    return h(
      "section",
      { class: "qu-section" },
      h("h2", {}, "Reported pairs"),
      reports.length === 0 && h("p", { class: "qu-help" }, "No report is open."),
      h(
        "ul",
        { class: "mo-list" },
        reports.map((report) => this.#reportLine(report)),
      ),
      reports.length > 1 && button("Clear all", clearAll),
    );
  }

  /** @param {Report} report */
  #reportLine(report) {
    const { id, annotator, prompt, images, confirmed_at: confirmedAt } = report;
    /** @type {(act: "confirm" | "clear", said: string) => void} */
    const settle = (act, said) =>
      this.perform(async (token) => {
        await api(`POST reports/{report_id}/${act}`, { params: { report_id: id }, token });
        return said;
      });
    return h(
      "li",
      {},
      h(
        "span",
        { class: "mo-images" },
        images.map((url, index) => h("img", { src: address(url), alt: `Image ${index + 1}`, loading: "lazy" })),
      ),
      h("span", { class: "mo-about" }, h("b", {}, prompt), h("small", {}, reportFacts(report))),
      h(
        "span",
        { class: "qu-line" },
        !confirmedAt && button("Confirm", () => settle("confirm", "The pair is out, and its votes do not count.")),
        button("Clear", () => settle("clear", "The report is cleared.")),
        button("Clear all of theirs", () => this.#clear(annotator)),
      ),
    );
  }

  /** @param {string | null} annotator */
  #clear(annotator) {
    this.perform(async (token) => {
      const { cleared } = await api("POST reports/clear", { body: { annotator }, token });
      return `${plural(cleared, "report")} cleared.`;
    });
  }
}

/** @param {Report} report */
function reportFacts({ reason, text, annotator, confirmed_at: confirmedAt, retired, hidden }) {
  const state = retired ? "out, its votes do not count" : hidden ? "hidden, its votes count" : "still shown to others";
  return [reason, text, `by ${annotator}`, confirmedAt && "confirmed", state].filter(Boolean).join(" · ");
}

/**
 * @param {string} label
 * @param {() => void} onclick
 * @param {string | null} name for screen readers, where the label alone says too little
 */
const button = (label, onclick, name = null) =>
  h("button", { type: "button", class: "st-button", onclick, "aria-label": name }, label);
