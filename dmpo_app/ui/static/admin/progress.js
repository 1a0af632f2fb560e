// <dmpo-progress>: votes over time, the round with its curves, every version, and what an administrator may do.

import { AdminPanel } from "./admin.js";
import { barChart, lineChart } from "../lib/chart.js";
import { RoundCard } from "../lib/round-card.js";
import { address, api, ApiError, h, isShown, plural, statusFeed, versionName, versions } from "../lib/studio.js";

const MOST_HOURS = 48;
const LEAST_HOURS = 12;
const MIN_GAP_MS = 2500;
const MODES = { cpu: "the processor", gpu: "a GPU of its own", zerogpu: "GPU minutes that people lend" };
const METRICS = {
  held_out_votes: ["held-out votes", (v) => String(Math.round(v))],
  held_out_accuracy: ["held-out accuracy", (v) => `${Math.round(100 * v)} %`],
  held_out_margin: ["held-out margin", (v) => v.toFixed(2)],
  held_out_loss: ["held-out loss", (v) => v.toPrecision(3)],
  step: ["best step", (v) => String(Math.round(v))],
};

/** What is watched beside loss and margin: [key, name, what it is, level to mark, in words]. */
const HEALTH = [
  [
    "chosen_gain",
    "Preferred images",
    "how much smaller the error on preferred images is than the base model's; below 0 it has risen",
    0,
    (v) => v.toPrecision(2),
  ],
  ["rejected_gain", "Rejected images", "the same for the other images", 0, (v) => v.toPrecision(2)],
  [
    "past_target",
    "Past the target",
    "share of pairs whose margin is beyond what their votes ask for",
    null,
    (v) => `${Math.round(100 * v)} %`,
  ],
  ["grad_norm", "Gradient norm", "before it is scaled down", null, (v) => v.toPrecision(3)],
  ["adapter_norm", "Adapter norm", "size of all that the adapter adds to the weights", null, (v) => v.toPrecision(3)],
  ["saturation", "Saturation", "of its images, over the base model's", 1, (v) => `× ${v.toFixed(2)}`],
  ["contrast", "Contrast", "of its images, over the base model's", 1, (v) => `× ${v.toFixed(2)}`],
  ["sharpness", "Sharpness", "of its images, over the base model's", 1, (v) => `× ${v.toFixed(2)}`],
  ["diversity", "Diversity", "between images of one prompt, over the base model's", 1, (v) => `× ${v.toFixed(2)}`],
];

class DmpoProgress extends HTMLElement {
  connectedCallback() {
    this.card = new RoundCard();
    this.tiles = h("div", { class: "pr-tiles" });
    this.curves = h("div", { class: "pr-curves" });
    this.health = new Health();
    this.votes = h("div", { class: "pr-chart" });
    this.versions = h("div", { class: "pr-versions" });
    this.rounds = h("ol", { class: "pr-rounds" });
    this.admin = new AdminPanel(() => this.refresh());
    this.replaceChildren(
      this.tiles,
      this.section("The round", this.card.element, this.curves, this.health.element),
      this.section("Votes over time", this.votes),
      this.section("Versions", this.versions),
      this.section("Rounds so far", this.rounds),
      this.section("Administration", this.admin.element),
    );
    this.refreshedAt = 0;
    this.deaf = statusFeed.listen((status) => status && this.statusCame(status));
  }

  disconnectedCallback() {
    this.deaf?.();
  }

  section(title, ...content) {
    return h("section", { class: "pr-section" }, h("h2", { class: "pr-title" }, title), content);
  }

  statusCame(status) {
    if (!isShown(this)) {
      this.refreshedAt = 0;
      return;
    }
    this.status = status;
    this.card.update(status);
    this.showTiles(status);
    if (performance.now() - this.refreshedAt > MIN_GAP_MS || this.refreshedAt === 0) this.refresh();
  }

  async refresh() {
    this.refreshedAt = performance.now();
    try {
      const [history, known, rounds] = await Promise.all([api("GET", "history"), versions(), api("GET", "rounds")]);
      this.showVotes(history.hours);
      this.showVersions(known);
      this.showRounds(rounds.rounds);
      const shown =
        rounds.rounds.findLast((round) => round.status === "running") ??
        rounds.rounds.findLast((round) => round.step > 0);
      const points = shown ? (await api("GET", `rounds/${shown.id}/progress`)).points : [];
      if (shown) this.showCurves(shown, points);
      else this.curves.replaceChildren();
      this.health.show(shown, points);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // the header says that the studio cannot be reached
    }
  }

  showTiles(status) {
    const trainer = status.trainer.running
      ? status.round
        ? "learning"
        : "waiting for votes"
      : status.trainer.message || "not running";
    const phase = {
      starting: "starting",
      loading: "loading the model",
      ready: "ready",
      failed: status.renderer.message,
      stopped: "stopped",
    };
    const tiles = [
      ["Votes", String(status.votes)],
      ["Until the next round", String(status.votes_until_round)],
      ["Live", versionName(status.live_version)],
      ["Pairs waiting", String(status.pool)],
      [
        "Renderer",
        phase[status.renderer.phase] +
          (status.renderer.device && status.mode !== "zerogpu" ? ` on ${status.renderer.device}` : ""),
      ],
      ["Trainer", trainer],
      ["Runs on", MODES[status.mode]],
    ];
    if (status.encoding) tiles.push(["Imported pairs encoded", `${status.encoding.done} of ${status.encoding.total}`]);
    if (status.last_error) tiles.push(["Last error", status.last_error]);
    this.tiles.replaceChildren(
      ...tiles.map(([name, value]) =>
        h(
          "div",
          { class: `pr-tile${name === "Last error" ? " pr-bad" : ""}` },
          h("small", {}, name),
          h("b", {}, value),
        ),
      ),
    );
  }

  showVotes(hours) {
    if (hours.length === 0) {
      this.votes.replaceChildren(h("p", { class: "pr-empty" }, "No votes yet."));
      return;
    }
    const counts = new Map(hours.map(({ hour, votes }) => [Math.floor(Date.parse(hour) / 3600000), votes]));
    const last = Math.floor(Date.now() / 3600000);
    const since = last - Math.min(...counts.keys()) + 1;
    const shown = Math.min(MOST_HOURS, Math.max(LEAST_HOURS, since));
    const bars = [];
    for (let hour = last - shown + 1; hour <= last; hour++) {
      const start = new Date(hour * 3600000);
      const value = counts.get(hour) ?? 0;
      bars.push({
        value,
        title: `${start.toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" })}: ${plural(value, "vote")}`,
      });
    }
    const total = bars.reduce((sum, bar) => sum + bar.value, 0);
    const most = Math.max(...bars.map((bar) => bar.value));
    this.votes.replaceChildren(
      barChart(bars, `Votes an hour over the last ${shown} hours: ${total} in all`),
      h(
        "div",
        { class: "pr-axis" },
        h("span", {}, `${shown} h ago`),
        h("span", {}, `${plural(total, "vote")}, at most ${most} an hour`),
        h("span", {}, "now"),
      ),
    );
  }

  showCurves(round, points) {
    const curve = (name, key, options) => {
      const data = points.filter((point) => point[key] !== null).map((point) => [point.step, point[key]]);
      const said = (value) => (key === "accuracy" ? `${Math.round(100 * value)} %` : value.toPrecision(3));
      return figure(round, name, data, said, options);
    };
    const title = round.status === "running" ? `Round ${round.id}, running` : `Round ${round.id}, ${round.status}`;
    this.curves.replaceChildren(
      h(
        "p",
        { class: "pr-which" },
        `${title}, from ${plural(round.votes, "vote")}`,
        round.reason && h("span", { class: "pr-why" }, round.reason),
      ),
      curve("Loss", "loss", {}),
      curve("Margin", "margin", { mark: 0, range: [0, 0] }),
      curve("Accuracy", "accuracy", { mark: 0.5, range: [0.4, 1] }),
    );
  }

  showVersions(known) {
    const rows = [...known.values()].sort((a, b) => b.version - a.version);
    this.versions.replaceChildren(...rows.map((adapter) => this.versionRow(adapter)));
  }

  versionRow(adapter) {
    const facts =
      adapter.version === 0
        ? ["the model as it came, before any vote"]
        : [
            `from ${plural(adapter.votes, "vote")}`,
            `trained ${new Date(adapter.created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}`,
          ];
    const metrics = Object.entries(METRICS)
      .filter(([name]) => typeof adapter.metrics[name] === "number")
      .map(([name, [title, said]]) =>
        h("span", { class: "rc-chip" }, h("b", {}, title), ` ${said(adapter.metrics[name])}`),
      );
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
          adapter.live && h("span", { class: "st-badge" }, "live"),
          !adapter.proven &&
            h("span", { class: "st-badge st-pale", title: "Too few held-out votes to judge it by" }, "not yet proven"),
        ),
        h("small", {}, facts.join(" · ")),
        metrics.length > 0 && h("div", { class: "pr-metrics" }, metrics),
      ),
      h(
        "div",
        { class: "pr-acts" },
        adapter.download && h("a", { class: "st-button", href: address(adapter.download), download: true }, "Download"),
        !adapter.live && this.admin.liveButton(adapter.version),
      ),
    );
  }

  showRounds(rounds) {
    const items = [...rounds].reverse().slice(0, 20);
    this.rounds.replaceChildren(
      ...items.map((round) => {
        const outcome = round.status === "published" ? `published as version ${round.adapter_version}` : round.status;
        return h(
          "li",
          { class: `pr-round pr-${round.status}` },
          h("b", {}, `Round ${round.id}`),
          ` ${outcome}, ${plural(round.votes, "vote")}`,
          round.reason && h("small", {}, round.reason),
        );
      }),
    );
    if (items.length === 0) this.rounds.append(h("li", { class: "pr-empty" }, "None yet."));
  }
}

/** One small chart with its name and latest value. `data`: [[step, value]]. */
function figure(round, name, data, said, options, title = "") {
  const value = data.length > 0 ? said(data.at(-1)[1]) : "–";
  return h(
    "figure",
    { class: "pr-curve", title: title || null },
    h("figcaption", {}, h("span", {}, name), h("b", {}, value)),
    lineChart(data, `${name}${title && `, ${title}`}, over the steps of round ${round.id}, now ${value}`, {
      xMax: round.steps,
      ...options,
    }),
  );
}

/** The round's health: small charts that can be folded away. What was open stays open. */
class Health {
  constructor() {
    this.charts = h("div", { class: "pr-small" });
    this.summary = h("summary", {}, "Health");
    this.element = h("details", { class: "pr-health", hidden: true }, this.summary, this.charts);
  }

  show(round, points) {
    const watched = HEALTH.map(([key, ...rest]) => [
      points.filter((point) => key in point.health).map((point) => [point.step, point.health[key]]),
      ...rest,
    ]).filter(([data]) => data.length > 0);
    this.element.hidden = watched.length === 0;
    if (watched.length === 0) return;
    this.summary.textContent = `Health of round ${round.id}`;
    this.charts.replaceChildren(
      ...watched.map(([data, name, title, mark, said]) =>
        figure(round, name, data, said, mark === null ? {} : { mark, range: [mark, mark] }, title),
      ),
    );
  }
}

customElements.define("dmpo-progress", DmpoProgress);
