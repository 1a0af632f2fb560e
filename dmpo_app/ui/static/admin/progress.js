// @ts-check
// <dmpo-progress>: votes over time, the round with its curves, every version, and the acts of an administrator.

import { address, api, ApiError } from "../lib/api.js";
import { barChart, lineChart } from "../lib/chart.js";
import { h, isShown } from "../lib/dom.js";
import { RoundCard } from "../lib/round-card.js";
import { statusFeed, versions } from "../lib/status.js";
import { percent, plural, versionName } from "../lib/text.js";
import { AdminPanel } from "./admin.js";
import { JudgingView } from "./judging.js";

/** @import { LineOptions, Point } from "../lib/chart.js" */
/** @import { Child } from "../lib/dom.js" */
/** @import { Adapter, Answer, Round, Status } from "../lib/types.js" */

/**
 * @typedef {(value: number) => string} Format
 * @typedef {Answer<"GET rounds/{round_id}/progress">["points"][number]} ProgressPoint
 * @typedef {Answer<"GET history">["hours"]} Hours
 * @typedef {object} HealthChart
 * @property {string} key
 * @property {string} name
 * @property {string} about
 * @property {number | null} mark the level to draw
 * @property {Format} format
 */

const MOST_HOURS = 48;
const LEAST_HOURS = 12;
const HOUR_MS = 3600000;
const MIN_GAP_MS = 2500;
const MOST_ROUNDS = 20;
/** @type {Record<string, string>} */
const TRAINER_PHASES = { waiting: "waiting for votes", training: "learning" };
/** @type {Record<Status["mode"], string>} */
const MODES = { cpu: "the processor", gpu: "a GPU of its own", zerogpu: "GPU minutes that people lend" };
/** @type {Format} */
const whole = (value) => String(Math.round(value));
/** @type {Format} */
const threeDigits = (value) => value.toPrecision(3);
/** @type {Format} */
const times = (value) => `× ${value.toFixed(2)}`;
/** @type {Record<string, [name: string, format: Format]>} */
const METRICS = {
  held_out_votes: ["held-out votes", whole],
  held_out_accuracy: ["held-out accuracy", percent],
  held_out_probability: ["probability of the voted side", percent],
  held_out_margin: ["held-out margin", (value) => value.toFixed(2)],
  held_out_loss: ["held-out loss", threeDigits],
  step: ["best step", whole],
};

const OVER_BASE = "of its images, over the base model's";
const GAIN = "how much smaller the error on chosen images is than the base model's; below 0 it has risen";

/** The curves beside loss and margin. @type {HealthChart[]} */
const HEALTH = [
  {
    key: "held_out_probability",
    name: "Held-out votes",
    about: "mean probability of the voted side, which chooses the step; half is chance",
    mark: 0.5,
    format: percent,
  },
  { key: "chosen_gain", name: "Chosen images", about: GAIN, mark: 0, format: (value) => value.toPrecision(2) },
  {
    key: "rejected_gain",
    name: "Rejected images",
    about: "the same for the other images",
    mark: 0,
    format: (value) => value.toPrecision(2),
  },
  {
    key: "past_target",
    name: "Past the target",
    about: "share of pairs whose margin is beyond the one that their votes ask for",
    mark: null,
    format: percent,
  },
  {
    key: "grad_norm",
    name: "Gradient norm",
    about: "before it is scaled down",
    mark: null,
    format: threeDigits,
  },
  {
    key: "adapter_norm",
    name: "Adapter norm",
    about: "size of all that the adapter adds to the weights",
    mark: null,
    format: threeDigits,
  },
  { key: "saturation", name: "Saturation", about: OVER_BASE, mark: 1, format: times },
  { key: "contrast", name: "Contrast", about: OVER_BASE, mark: 1, format: times },
  { key: "sharpness", name: "Sharpness", about: OVER_BASE, mark: 1, format: times },
  {
    key: "diversity",
    name: "Diversity",
    about: "between images of one prompt, over the base model's",
    mark: 1,
    format: times,
  },
];

class DmpoProgress extends HTMLElement {
  #card = new RoundCard();
  #tiles = h("div", { class: "pr-tiles" });
  #curves = h("div", { class: "pr-curves" });
  #health = new Health();
  #votes = h("div", { class: "pr-chart" });
  #judging = new JudgingView();
  #versions = h("div", { class: "pr-versions" });
  #rounds = h("ol", { class: "pr-rounds" });
  #admin = new AdminPanel(() => this.refresh());
  /** 0: not since the tab was opened. */
  #refreshedAt = 0;
  #unsubscribe = () => {};

  connectedCallback() {
    this.replaceChildren(
      this.#tiles,
      section("The round", this.#card.element, this.#curves, this.#health.element),
      section("Votes over time", this.#votes),
      section("Judged by people", this.#judging.element),
      section("Versions", this.#versions),
      section("Rounds so far", this.#rounds),
      section("Administration", this.#admin.element),
    );
    this.#refreshedAt = 0;
    this.#unsubscribe = statusFeed.listen((status) => status && this.#statusCame(status));
  }

  disconnectedCallback() {
    this.#unsubscribe();
  }

  /** @param {Status} status */
  #statusCame(status) {
    if (!isShown(this)) {
      this.#refreshedAt = 0;
      return;
    }
    this.#card.update(status);
    this.#tiles.replaceChildren(...statusTiles(status).map(tile));
    if (this.#refreshedAt === 0 || performance.now() - this.#refreshedAt > MIN_GAP_MS) this.refresh();
  }

  /** Ask for everything anew. */
  async refresh() {
    this.#refreshedAt = performance.now();
    try {
      const [{ hours }, adapters, { rounds }, judging, board] = await Promise.all([
        api("GET history"),
        versions(),
        api("GET rounds"),
        api("GET judging"),
        api("GET board"),
      ]);
      this.#votes.replaceChildren(...voteChart(hours));
      this.#judging.show(judging, board);
      this.#showVersions([...adapters.values()]);
      this.#showRounds(rounds);
      await this.#showCurves(
        rounds.findLast((round) => round.status === "running") ?? rounds.findLast((round) => round.step > 0),
      );
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // the header says that the studio cannot be reached
    }
  }

  /** @param {Round | undefined} round */
  async #showCurves(round) {
    if (!round) {
      this.#curves.replaceChildren();
      this.#health.hide();
      return;
    }
    const { points } = await api("GET rounds/{round_id}/progress", { params: { round_id: round.id } });
    this.#curves.replaceChildren(...roundCurves(round, points));
    this.#health.show(round, points);
  }

  /** @param {Adapter[]} adapters */
  #showVersions(adapters) {
    const newestFirst = adapters.sort((a, b) => b.version - a.version);
    this.#versions.replaceChildren(...newestFirst.map((adapter) => this.#versionRow(adapter)));
  }

  /** @param {Adapter} adapter */
  #versionRow(adapter) {
    const unproven = { class: "st-badge st-pale", title: "Too few held-out votes to judge it by" };
    const withdrawn = { class: "st-badge st-pale", title: takenBackHint(adapter) };
    const metrics = metricChips(adapter);
    return h(
      "div",
      { class: `pr-version${adapter.live ? " pr-live" : ""}` },
      h(
        "div",
        { class: "pr-about" },
        h(
          "div",
          {},
          h("b", {}, versionName(adapter.version)),
          adapter.state_words && h("span", { class: `st-badge${adapter.live ? "" : " st-pale"}` }, adapter.state_words),
          !adapter.proven && h("span", unproven, "not yet proven"),
          adapter.taken_back > 0 &&
            h("span", withdrawn, `learned from ${plural(adapter.taken_back, "vote")} taken back`),
        ),
        h("small", {}, adapterFacts(adapter)),
        adapter.verdict && h("small", {}, adapter.verdict.sentence, " ", adapter.verdict.caution),
        metrics.length > 0 && h("div", { class: "pr-metrics" }, metrics),
        adapter.learned.map((sentence) => h("p", { class: "pr-learned" }, sentence)),
      ),
      h(
        "div",
        { class: "pr-acts" },
        adapter.download && h("a", { class: "st-button", href: address(adapter.download), download: true }, "Download"),
        !adapter.live && this.#admin.liveButton(adapter.version),
      ),
    );
  }

  /** @param {Round[]} rounds */
  #showRounds(rounds) {
    const newestFirst = [...rounds].reverse().slice(0, MOST_ROUNDS);
    this.#rounds.replaceChildren(...newestFirst.map(roundLine));
    if (newestFirst.length === 0) this.#rounds.append(h("li", { class: "pr-empty" }, "None yet."));
  }
}

/**
 * @param {string} title
 * @param {Child[]} content
 */
const section = (title, ...content) =>
  h("section", { class: "pr-section" }, h("h2", { class: "pr-title" }, title), ...content);

/**
 * @param {Status} status
 * @returns {Array<[name: string, value: string]>}
 */
function statusTiles(status) {
  const { renderer, trainer, encoding } = status;
  const phases = { starting: "starting", loading: "loading the model", ready: "ready", stopped: "stopped" };
  const isDownloading = renderer.phase === "loading" && renderer.message.startsWith("downloading");
  const phase = renderer.phase === "failed" || isDownloading ? renderer.message : phases[renderer.phase];
  const device = renderer.device && status.mode !== "zerogpu" ? ` on ${renderer.device}` : "";
  const activity = trainer.phase || (status.round ? "training" : "waiting");
  /** @type {Array<[string, string]>} */
  const tiles = [
    ["Votes", String(status.votes)],
    ["Until the next round", String(status.votes_until_round)],
    ["Live", versionName(status.live_version)],
    ["Pairs waiting", String(status.pool)],
    ["Renderer", phase + device],
    ["Trainer", trainer.running ? (TRAINER_PHASES[activity] ?? activity) : trainer.message || "not running"],
    ["Runs on", MODES[status.mode]],
  ];
  if (encoding) tiles.push(["Imported pairs encoded", `${encoding.done} of ${encoding.total}`]);
  if (status.last_error) tiles.push(["Last error", status.last_error]);
  return tiles;
}

/** @param {[name: string, value: string]} tile */
const tile = ([name, value]) =>
  h("div", { class: `pr-tile${name === "Last error" ? " pr-bad" : ""}` }, h("small", {}, name), h("b", {}, value));

/** @param {Hours} hours */
function voteChart(hours) {
  if (hours.length === 0) return [h("p", { class: "pr-empty" }, "No votes yet.")];
  const counts = new Map(hours.map(({ hour, votes }) => [Math.floor(Date.parse(hour) / HOUR_MS), votes]));
  const last = Math.floor(Date.now() / HOUR_MS);
  const since = last - Math.min(...counts.keys()) + 1;
  const length = Math.min(MOST_HOURS, Math.max(LEAST_HOURS, since));
  const bars = Array.from({ length }, (_, index) => {
    const hour = last - length + 1 + index;
    const value = counts.get(hour) ?? 0;
    const start = new Date(hour * HOUR_MS).toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" });
    return { value, title: `${start}: ${plural(value, "vote")}` };
  });
  const total = bars.reduce((sum, bar) => sum + bar.value, 0);
  const most = Math.max(...bars.map((bar) => bar.value));
  const axis = [`${length} h ago`, `${plural(total, "vote")}, at most ${most} an hour`, "now"];
  return [
    barChart(bars, `Votes an hour over the last ${length} hours: ${total} in all`),
    h(
      "div",
      { class: "pr-axis" },
      axis.map((text) => h("span", {}, text)),
    ),
  ];
}

/**
 * @param {Round} round
 * @param {ProgressPoint[]} points
 */
function roundCurves(round, points) {
  /** @param {string} name @param {"loss" | "margin" | "accuracy"} key @param {LineOptions} options */
  const curve = (name, key, options) =>
    figure({
      round,
      name,
      points: points.flatMap(({ step, [key]: value }) => (value === null ? [] : [[step, value]])),
      format: key === "accuracy" ? percent : threeDigits,
      options,
    });
  const title = `Round ${round.id}, ${round.status}, from ${plural(round.votes, "vote")}`;
  return [
    h("p", { class: "pr-which" }, title, round.reason && h("span", { class: "pr-why" }, round.reason)),
    curve("Loss", "loss", {}),
    curve("Margin", "margin", { mark: 0, range: [0, 0] }),
    curve("Accuracy", "accuracy", { mark: 0.5, range: [0.4, 1] }),
  ];
}

/**
 * One small chart with its name and latest value.
 *
 * @param {{ round: Round, name: string, points: Point[], format: Format, options: LineOptions, about?: string }} curve
 */
function figure({ round, name, points, format, options, about = "" }) {
  const latest = points.at(-1);
  const value = latest ? format(latest[1]) : "–";
  const label = `${name}${about && `, ${about}`}, over the steps of round ${round.id}, now ${value}`;
  return h(
    "figure",
    { class: "pr-curve", title: about || null },
    h("figcaption", {}, h("span", {}, name), h("b", {}, value)),
    lineChart(points, label, { xMax: round.steps, ...options }),
  );
}

/** @param {Adapter} adapter */
function adapterFacts({ version, votes, created_at: createdAt }) {
  if (version === 0) return "the model as it came, before any vote";
  const facts = [`from ${plural(votes, "vote")}`];
  if (createdAt) {
    facts.push(`trained ${new Date(createdAt).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}`);
  }
  return facts.join(" · ");
}

/** @param {Adapter} adapter */
const takenBackHint = ({ live }) =>
  `They were undone or withdrawn since, or count no more. ${live ? "The next version that is published takes its place." : "Later versions leave them out."}`;

/** @param {Adapter} adapter */
function metricChips({ metrics }) {
  return Object.entries(METRICS).flatMap(([key, [name, format]]) => {
    const value = metrics[key];
    if (typeof value !== "number") return [];
    return [h("span", { class: "rc-chip" }, h("b", {}, name), ` ${format(value)}`)];
  });
}

/** @param {Round} round */
function roundLine({ id, status, trigger, votes, reason, adapter_version: version }) {
  const outcome = status === "published" ? `published as version ${version}` : status;
  return h(
    "li",
    { class: `pr-round pr-${status}` },
    h("b", {}, `Round ${id}`),
    ` ${outcome}, ${plural(votes, "vote")}`,
    trigger === "withdrawal" && ", started since votes were taken back",
    reason && h("small", {}, reason),
  );
}

/** The round's health: small charts that can be folded away. An open one stays open. */
class Health {
  #charts = h("div", { class: "pr-small" });
  #summary = h("summary", {}, "Health");
  element = h("details", { class: "pr-health", hidden: true }, this.#summary, this.#charts);

  hide() {
    this.element.hidden = true;
  }

  /**
   * @param {Round} round
   * @param {ProgressPoint[]} points
   */
  show(round, points) {
    const figures = HEALTH.flatMap(({ key, name, about, mark, format }) => {
      /** @type {Point[]} */
      const values = points.flatMap(({ step, health }) => (key in health ? [[step, health[key]]] : []));
      if (values.length === 0) return [];
      /** @type {LineOptions} */
      const options = mark === null ? {} : { mark, range: [mark, mark] };
      return [figure({ round, name, points: values, format, options, about })];
    });
    this.element.hidden = figures.length === 0;
    this.#summary.textContent = `Health of round ${round.id}`;
    this.#charts.replaceChildren(...figures);
  }
}

customElements.define("dmpo-progress", DmpoProgress);
