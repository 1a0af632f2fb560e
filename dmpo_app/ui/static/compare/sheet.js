// <dmpo-sheet>: one row a version, one column a prompt and seed, so that scrolling down shows how the model changed.

import { address, api, ApiError, h, plural, statusFeed, versionName, versions } from "../lib/studio.js";

const RETRY_MS = 4000;

class DmpoSheet extends HTMLElement {
  connectedCallback() {
    this.state = null;
    this.grid = h("div", { class: "ds-scroll", tabindex: "0", role: "region", "aria-label": "Contact sheet, scrolls" });
    this.note = h("p", { class: "ds-note", role: "status" }, "Loading…");
    this.replaceChildren(this.note, this.grid);
    this.deaf = statusFeed.listen((status) => status && this.statusCame(status));
  }

  disconnectedCallback() {
    this.deaf?.();
    clearTimeout(this.timer);
  }

  statusCame(status) {
    const state = `${status.live_version}/${status.last_round?.id ?? 0}`;
    if (state === this.state) return;
    this.state = state;
    this.load();
  }

  async load() {
    clearTimeout(this.timer);
    let complete = false;
    try {
      const [sheet, known] = await Promise.all([api("GET", "contact-sheet"), versions()]);
      this.show(sheet.rows, known);
      const columns = Math.max(0, ...sheet.rows.map((row) => row.images.length));
      const rows = new Map(sheet.rows.map((row) => [row.version, row.images.length]));
      complete = columns > 0 && [...known.keys()].every((version) => rows.get(version) === columns);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.note.textContent = error.message;
    }
    // Rows are painted when the model has time; look again until every version has all of its pictures.
    if (!complete && this.isConnected) this.timer = setTimeout(() => this.load(), RETRY_MS);
  }

  show(rows, known) {
    const columns = [];
    const seen = new Set();
    for (const { prompt, seed } of rows.flatMap((row) => row.images)) {
      const key = `${seed}\n${prompt}`;
      if (!seen.has(key)) columns.push({ key, prompt, seed });
      seen.add(key);
    }
    const shown = JSON.stringify([
      columns,
      rows.map((row) => [row.version, row.images.length]),
      [...known.values()].map((a) => [a.version, a.live]),
    ]);
    if (shown === this.shown) return; // new addresses of the same pictures: keep those that are loaded
    this.shown = shown;
    this.note.textContent =
      rows.length === 0
        ? "The first row is painted as soon as the model has time."
        : "The same prompts and seeds under every version, the newest on top.";
    const head = h(
      "div",
      { class: "ds-row ds-head" },
      h("div", { class: "ds-name" }),
      columns.map((column) =>
        h(
          "div",
          { class: "ds-column", title: `${column.prompt} (seed ${column.seed})` },
          h("span", {}, column.prompt),
          h("small", {}, `seed ${column.seed}`),
        ),
      ),
    );
    const newestFirst = [...rows].sort((a, b) => b.version - a.version);
    this.grid.replaceChildren(
      ...(rows.length > 0 ? [head, ...newestFirst.map((row) => this.row(row, columns, known))] : []),
    );
    this.style.setProperty("--columns", String(Math.max(1, columns.length)));
  }

  row(row, columns, known) {
    const adapter = known.get(row.version);
    const byKey = new Map(row.images.map((image) => [`${image.seed}\n${image.prompt}`, image]));
    const about = row.version === 0 ? "before any vote" : plural(adapter?.votes ?? 0, "vote");
    const cells = columns.map(({ key, prompt, seed }) => {
      const image = byKey.get(key);
      return h(
        "div",
        { class: "ds-cell" },
        image &&
          h("img", {
            src: address(image.url),
            alt: `${versionName(row.version)}: ${prompt}, seed ${seed}`,
            loading: "lazy",
            decoding: "async",
          }),
      );
    });
    const name = h(
      "div",
      { class: "ds-name" },
      h("b", {}, versionName(row.version)),
      h("small", {}, about),
      adapter?.live && h("span", { class: "st-badge" }, "live"),
    );
    return h("div", { class: "ds-row" }, name, cells);
  }
}

customElements.define("dmpo-sheet", DmpoSheet);
