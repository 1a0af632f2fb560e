// @ts-check
// <dmpo-prompts>: the prompts of the campaign, for administrators: find, retire, restore, import.

import { AdminTokenField } from "../lib/admin-token.js";
import { api, ApiError } from "../lib/api.js";
import { find, h, isShown } from "../lib/dom.js";
import { plural } from "../lib/text.js";
import { PromptImportForm } from "./prompt-import.js";

/** @import { Answer, Prompt } from "../lib/types.js" */

const PAUSE_MS = 250;
const PAGE = 50;
const HELP =
  "For administrators. The token is DMPO_ADMIN_TOKEN, or the one written to the terminal at start; " +
  "it is kept until this page is closed.";

/**
 * @param {string} value
 * @param {string} text
 */
const option = (value, text) => h("option", { value }, text);

class DmpoPrompts extends HTMLElement {
  #token = new AdminTokenField("Token for administrators", () => this.#loadSoon());
  #message = h("p", { class: "pm-message", role: "status", "aria-live": "polite" });
  #counts = h("p", { class: "pm-counts" });
  #search = h("input", {
    type: "search",
    class: "pm-input",
    placeholder: "words",
    autocomplete: "off",
    oninput: () => this.#loadSoon(),
  });
  #tag = this.#filter(["", "any"]);
  #side = this.#filter(["", "both"], ["false", "training"], ["true", "held out"]);
  #state = this.#filter(["", "all"], ["false", "active"], ["true", "retired"]);
  #list = h("ul", { class: "pm-list", "aria-label": "Prompts" });
  #more = h("button", { type: "button", class: "st-button", onclick: () => this.#load(this.#last) }, "Show more");
  #import = new PromptImportForm(
    () => this.#token.value,
    () => this.#load(),
  );
  #body = h(
    "div",
    { hidden: true },
    h(
      "div",
      { class: "pm-filters", role: "search" },
      h("label", { class: "pm-field pm-wide" }, h("span", {}, "Search"), this.#search),
      h("label", { class: "pm-field" }, h("span", {}, "Tag"), this.#tag),
      h("label", { class: "pm-field" }, h("span", {}, "Side"), this.#side),
      h("label", { class: "pm-field" }, h("span", {}, "State"), this.#state),
    ),
    this.#counts,
    this.#list,
    this.#more,
    this.#import.element,
  );
  #seen = new IntersectionObserver((entries) => entries.at(-1)?.isIntersecting && this.#load());
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;
  /** Grows with every request and every change; the answers to older requests are dropped. */
  #requests = 0;
  #isWaiting = false;
  /** The id of the last prompt in the list. @type {number | null} */
  #last = null;

  connectedCallback() {
    this.replaceChildren(
      h("p", { class: "ad-help" }, HELP),
      h("div", { class: "ad-line" }, this.#token.input),
      this.#message,
      this.#body,
    );
    this.#seen.observe(this);
  }

  disconnectedCallback() {
    this.#seen.disconnect();
    clearTimeout(this.#timer);
  }

  /** @param {Array<[value: string, text: string]>} options */
  #filter(...options) {
    const onchange = () => this.#load();
    return h(
      "select",
      { class: "pm-input", onchange },
      options.map(([value, text]) => option(value, text)),
    );
  }

  #loadSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#load(), PAUSE_MS);
  }

  /**
   * Ask for prompts: the newest that meet the filters, or those older than one.
   *
   * @param {number | null} before its id
   */
  async #load(before = null) {
    if (!isShown(this)) return;
    const token = this.#token.value;
    if (token === "") {
      this.#body.hidden = true;
      this.#say("");
      return;
    }
    clearTimeout(this.#timer);
    const request = ++this.#requests;
    this.#isWaiting = true;
    const isOutdated = () => request !== this.#requests;
    try {
      const answer = await api("GET prompts", { query: this.#query(before), token });
      if (isOutdated()) return;
      this.#isWaiting = false;
      this.#show(answer, before !== null);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (isOutdated()) return;
      this.#isWaiting = false;
      this.#body.hidden = true;
      this.#say(error.message, true);
    }
  }

  /** @param {number | null} before */
  #query(before) {
    const flag = (/** @type {string} */ value) => (value === "" ? null : value === "true");
    return {
      search: this.#search.value,
      limit: PAGE,
      tag: this.#tag.value || null,
      held_out: flag(this.#side.value),
      retired: flag(this.#state.value),
      before,
    };
  }

  /**
   * @param {Answer<"GET prompts">} answer
   * @param {boolean} isMore whether these are older than those in the list
   */
  #show(answer, isMore) {
    const { total, training, held_out: heldOut, retired, prompts } = answer;
    this.#say("");
    this.#body.hidden = false;
    this.#counts.textContent =
      `${total} found · in all ${training} to train on, ` + `${heldOut} held out, ${retired} retired`;
    this.#showTags(answer.tags);
    const rows = prompts.map((prompt) => this.#row(prompt));
    const focused = this.#focusedRow()?.dataset.id;
    if (isMore) {
      this.#list.append(...rows);
      rows[0]?.querySelector("button")?.focus();
    } else {
      this.#list.replaceChildren(...rows);
      if (focused)
        rows
          .find((row) => row.dataset.id === focused)
          ?.querySelector("button")
          ?.focus();
    }
    this.#last = prompts.at(-1)?.id ?? null;
    this.#more.hidden = !answer.more;
  }

  /** @returns {HTMLElement | null | undefined} */
  #focusedRow() {
    return document.activeElement?.closest(".pm-row");
  }

  /** @param {Record<string, number>} tags how many prompts have each */
  #showTags(tags) {
    const chosen = this.#tag.value;
    const options = Object.entries(tags).map(([name, count]) => option(name, `${name} (${count})`));
    this.#tag.replaceChildren(option("", "any"), ...options);
    this.#tag.value = chosen in tags ? chosen : "";
  }

  /** @param {Prompt} prompt */
  #row(prompt) {
    const word = prompt.retired ? "Restore" : "Retire";
    /** @type {HTMLLIElement} */
    const row = h(
      "li",
      { class: prompt.retired ? "pm-row pm-retired" : "pm-row", "data-id": String(prompt.id) },
      h(
        "div",
        { class: "pm-words" },
        h("p", { class: "pm-text" }, prompt.text),
        h("p", { class: "pm-about" }, promptFacts(prompt)),
      ),
      h(
        "button",
        {
          type: "button",
          class: "st-button",
          "aria-label": `${word} “${prompt.text}”`,
          onclick: () => this.#flip(prompt, row),
        },
        word,
      ),
    );
    return row;
  }

  /**
   * Retire a prompt, or restore it.
   *
   * @param {Prompt} prompt
   * @param {HTMLElement} row
   */
  async #flip(prompt, row) {
    const act = prompt.retired ? "restore" : "retire";
    try {
      await api("POST prompts/edit", { body: { prompts: [prompt.id], act }, token: this.#token.value });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#say(error.message, true);
      return;
    }
    if (this.#isWaiting) this.#loadSoon(); // the answer that is on its way was read before this change
    this.#requests += 1;
    const changed = this.#row({ ...prompt, retired: !prompt.retired });
    row.replaceWith(changed);
    find(changed, "button").focus();
    this.#say(prompt.retired ? "Restored." : "Retired: no new pairs are made of it; its pairs and votes stay.");
  }

  /**
   * @param {string} text
   * @param {boolean} bad
   */
  #say(text, bad = false) {
    this.#message.textContent = text;
    this.#message.classList.toggle("pm-bad", bad);
  }
}

/** @param {Prompt} prompt */
function promptFacts({ held_out: isHeldOut, retired, source, tags, pairs, votes }) {
  const badge = (/** @type {string} */ text) => h("span", { class: "st-badge st-pale" }, text);
  return [
    isHeldOut ? h("span", { class: "st-badge" }, "held out") : badge("training"),
    retired && badge("retired"),
    source === "annotator" && badge("by an annotator"),
    ...tags.map((tag) => h("span", { class: "pm-tag" }, tag)),
    h("span", { class: "pm-numbers" }, `${plural(pairs, "pair")}, ${plural(votes, "vote")}`),
  ];
}

customElements.define("dmpo-prompts", DmpoPrompts);
