// <dmpo-prompts>: the prompts of the campaign, for administrators: find, retire, restore, import.

import { AdminTokenField } from "../lib/admin-token.js";
import { ImportForm } from "./prompt-import.js";
import { api, ApiError, h, isShown, plural } from "../lib/studio.js";

const PAUSE_MS = 250;
const PAGE = 50;

const option = (value, text) => h("option", { value }, text);
const select = (label, options, onchange) =>
  h(
    "label",
    { class: "pm-field" },
    h("span", {}, label),
    h(
      "select",
      { class: "pm-input", onchange },
      options.map(([value, text]) => option(value, text)),
    ),
  );

class DmpoPrompts extends HTMLElement {
  connectedCallback() {
    this.asked = 0;
    this.token = new AdminTokenField("Token for administrators", () => this.soon());
    this.build();
    this.seen = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.load());
    this.seen.observe(this);
  }

  disconnectedCallback() {
    this.seen?.disconnect();
    clearTimeout(this.timer);
  }

  build() {
    this.message = h("p", { class: "pm-message", role: "status", "aria-live": "polite" });
    this.counts = h("p", { class: "pm-counts" });
    this.search = h("input", {
      type: "search",
      class: "pm-input",
      placeholder: "words",
      autocomplete: "off",
      oninput: () => this.soon(),
    });
    this.tag = select("Tag", [["", "any"]], () => this.load());
    this.side = select(
      "Side",
      [
        ["", "both"],
        ["false", "training"],
        ["true", "held out"],
      ],
      () => this.load(),
    );
    this.state = select(
      "State",
      [
        ["", "all"],
        ["false", "active"],
        ["true", "retired"],
      ],
      () => this.load(),
    );
    this.list = h("ul", { class: "pm-list", "aria-label": "Prompts" });
    this.more = h("button", { type: "button", class: "st-button", onclick: () => this.load(this.last) }, "Show more");
    this.form = new ImportForm(
      () => this.token.value,
      () => this.load(),
    );
    this.body = h(
      "div",
      {},
      h(
        "div",
        { class: "pm-filters", role: "search" },
        h("label", { class: "pm-field pm-wide" }, h("span", {}, "Search"), this.search),
        this.tag,
        this.side,
        this.state,
      ),
      this.counts,
      this.list,
      this.more,
      this.form.element,
    );
    const help =
      "For administrators. The token is DMPO_ADMIN_TOKEN, or the one written to the terminal at start; it is kept until this page is closed.";
    this.replaceChildren(
      h("p", { class: "ad-help" }, help),
      h("div", { class: "ad-line" }, this.token.input),
      this.message,
      this.body,
    );
    this.body.hidden = true;
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), PAUSE_MS);
  }

  /** Ask for prompts: the newest that meet the filters, or those older than the id `before`. */
  async load(before = null) {
    if (!isShown(this)) return;
    if (this.token.value === "") {
      this.body.hidden = true;
      this.say("");
      return;
    }
    clearTimeout(this.timer);
    const asked = ++this.asked;
    this.waiting = true;
    const query = new URLSearchParams({ search: this.search.value, limit: String(PAGE) });
    for (const [name, field] of [
      ["tag", this.tag],
      ["held_out", this.side],
      ["retired", this.state],
    ]) {
      const value = field.querySelector("select").value;
      if (value !== "") query.set(name, value);
    }
    if (before !== null) query.set("before", String(before));
    try {
      const answer = await api("GET", `prompts?${query}`, { token: this.token.value });
      if (asked !== this.asked) return;
      this.waiting = false;
      this.show(answer, before !== null);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (asked !== this.asked) return;
      this.waiting = false;
      this.body.hidden = true;
      this.say(error.message, true);
    }
  }

  show(answer, more) {
    this.say("");
    this.body.hidden = false;
    this.counts.textContent = `${answer.total} found · in all ${answer.training} to train on, ${answer.held_out} held out, ${answer.retired} retired`;
    this.showTags(answer.tags);
    const rows = answer.prompts.map((prompt) => this.row(prompt));
    const focused = document.activeElement?.closest(".pm-row")?.dataset.id;
    if (more) this.list.append(...rows);
    else this.list.replaceChildren(...rows);
    if (focused && !more)
      rows
        .find((row) => row.dataset.id === focused)
        ?.querySelector("button")
        .focus();
    if (more) rows[0]?.querySelector("button")?.focus();
    this.last = answer.prompts.at(-1)?.id ?? null;
    this.more.hidden = !answer.more;
  }

  showTags(tags) {
    const field = this.tag.querySelector("select");
    const chosen = field.value;
    const names = Object.entries(tags);
    field.replaceChildren(option("", "any"), ...names.map(([name, count]) => option(name, `${name} (${count})`)));
    field.value = chosen in tags ? chosen : "";
  }

  row(prompt) {
    const about = [
      h(
        "span",
        { class: prompt.held_out ? "st-badge" : "st-badge st-pale" },
        prompt.held_out ? "held out" : "training",
      ),
      prompt.retired && h("span", { class: "st-badge st-pale" }, "retired"),
      prompt.source === "annotator" && h("span", { class: "st-badge st-pale" }, "by an annotator"),
      prompt.tags.map((tag) => h("span", { class: "pm-tag" }, tag)),
      h("span", { class: "pm-numbers" }, `${plural(prompt.pairs, "pair")}, ${plural(prompt.votes, "vote")}`),
    ];
    const word = prompt.retired ? "Restore" : "Retire";
    const button = h("button", { type: "button", class: "st-button", onclick: () => this.flip(prompt, row) }, word);
    button.setAttribute("aria-label", `${word} “${prompt.text}”`);
    const row = h(
      "li",
      { class: prompt.retired ? "pm-row pm-retired" : "pm-row", "data-id": String(prompt.id) },
      h("div", { class: "pm-words" }, h("p", { class: "pm-text" }, prompt.text), h("p", { class: "pm-about" }, about)),
      button,
    );
    return row;
  }

  async flip(prompt, row) {
    const act = prompt.retired ? "restore" : "retire";
    try {
      await api("POST", "prompts/edit", { body: { prompts: [prompt.id], act }, token: this.token.value });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.say(error.message, true);
      return;
    }
    if (this.waiting) this.soon(); // what is on its way was read before this change
    this.asked += 1;
    const changed = this.row({ ...prompt, retired: !prompt.retired });
    row.replaceWith(changed);
    changed.querySelector("button").focus();
    this.say(prompt.retired ? "Restored." : "Retired: no new pairs are made of it; its pairs and votes stay.");
  }

  say(text, bad = false) {
    this.message.textContent = text;
    this.message.classList.toggle("pm-bad", bad);
  }
}

customElements.define("dmpo-prompts", DmpoPrompts);
