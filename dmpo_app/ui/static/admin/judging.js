// @ts-check
// Judging on the progress tab: the comparisons of versions by people's duels in sentences, and the board of versions.

import { h } from "../lib/dom.js";
import { percent, plural, versionName } from "../lib/text.js";

/** @import { Answer } from "../lib/types.js" */

/**
 * @typedef {Answer<"GET judging">} Judging
 * @typedef {Answer<"GET board">} Board
 */

const MODES = {
  publish: "A new version goes live when its round is done; duels between versions only inform.",
  hold: "A new version is held back until people's duels, or votes it has not seen, prove it better than the live one.",
  rollback: "A new version goes live when its round is done; the one before comes back if duels prove it worse.",
};
const MOST_VERDICTS = 3;

/** The section's contents. */
export class JudgingView {
  #comparisons = h("div", { class: "pr-versions" });
  #verdicts = h("ul", { class: "pr-rounds" });
  #board = h("div", { class: "pr-board" });
  element = h("div", {}, this.#comparisons, this.#verdicts, this.#board);

  /**
   * @param {Judging} judging
   * @param {Board} board
   */
  show(judging, board) {
    this.#comparisons.replaceChildren(
      h("p", { class: "pr-which" }, MODES[judging.mode]),
      ...judging.comparisons.map(comparisonCard),
    );
    this.#verdicts.replaceChildren(
      ...judging.verdicts
        .slice(0, MOST_VERDICTS)
        .map(({ action, sentence }) =>
          h("li", { class: `pr-round ${action === "promoted" ? "pr-published" : "pr-failed"}` }, sentence),
        ),
    );
    this.#board.replaceChildren(...(board.rows.length > 0 ? [boardTable(board)] : []));
  }
}

/** The name of a version within a sentence. @param {number} version */
const inSentence = (version) => (version === 0 ? "the base model" : `version ${version}`);

/** @param {Judging["comparisons"][number]} comparison */
function comparisonCard({ version, other_version: other, sentence, consequence }) {
  const otherName = inSentence(other);
  return h(
    "div",
    { class: "pr-version" },
    h(
      "div",
      { class: "pr-about" },
      h("b", {}, `${versionName(version)} against ${otherName}`),
      h("div", {}, sentence),
      h("small", {}, consequence),
    ),
  );
}

/** @param {Board} board */
function boardTable({ rows, anchor, num_judgements: judgements, num_annotators: people, num_prompts: prompts }) {
  const counts = `${plural(judgements, "judgement")} of ${plural(people, "annotator")} on ${plural(prompts, "prompt")}`;
  return h(
    "table",
    {},
    h("caption", {}, `The board, from ${counts}`),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["Version", `Wins against ${inSentence(anchor ?? 0)}`, "Judgements"].map((name) => h("th", {}, name)),
      ),
    ),
    h("tbody", {}, rows.map(boardRow)),
  );
}

/** @param {Board["rows"][number]} row */
function boardRow({ version, num_judgements: judgements, win_rate: rate, win_rate_low: low, win_rate_high: high }) {
  const interval = low === null || high === null ? "" : ` (${percent(low)} to ${percent(high)})`;
  const wins = rate === null ? "not compared yet" : `${percent(rate)}${interval}`;
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, versionName(version)),
    h("td", {}, wins),
    h("td", {}, String(judgements)),
  );
}
