// @ts-check
// <dmpo-suggest>: prompts of the set while one types into the Before / after tab's prompt field, which is Gradio's.
// <dmpo-examples>: buttons that write a prompt into that field.
// <dmpo-propose>: adds the text there to the prompts that people vote on, where the campaign allows it.

import { api, ApiError } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { withSession } from "../lib/session.js";

/** @import { Answer } from "../lib/types.js" */
/** @typedef {Answer<"GET prompts/suggestions">["suggestions"][number]} Suggestion */

const FIELD = "#ba-prompt textarea";
const PAUSE_MS = 180;
const MOST_CHARACTERS = 200;

/**
 * The prompt field that an event is about, or null.
 *
 * @param {Event} event
 */
function fieldOf({ target }) {
  return target instanceof HTMLTextAreaElement && target.matches(FIELD) ? target : null;
}

class DmpoSuggest extends HTMLElement {
  #list = h("ul", {
    class: "sg-list",
    id: "sg-list",
    role: "listbox",
    "aria-label": "Prompts of the set",
    hidden: true,
  });
  #announcement = h("p", { class: "sg-heard", role: "status", "aria-live": "polite" });
  #listening = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;
  /** Grows with every request; the answers to older ones are dropped. */
  #requests = 0;
  /** The number of the chosen suggestion; -1: none. */
  #active = -1;
  /** @type {string[]} */
  #texts = [];
  /** @type {HTMLTextAreaElement | null} */
  #field = null;
  /** Whether a suggestion is being written into the field. */
  #isTaking = false;

  connectedCallback() {
    this.replaceChildren(this.#announcement);
    document.body.append(this.#list); // above whatever clips the form
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    document.addEventListener("focusin", (event) => this.#focused(fieldOf(event)), { signal });
    document.addEventListener("focusout", (event) => fieldOf(event) && this.#close(), { signal });
    document.addEventListener("input", (event) => !this.#isTaking && this.#askSoon(fieldOf(event)), { signal });
    document.addEventListener("keydown", (event) => fieldOf(event) && this.#keyDown(event), { signal, capture: true });
    window.addEventListener("resize", () => this.#close(), { signal });
  }

  disconnectedCallback() {
    this.#listening.abort();
    clearTimeout(this.#timer);
    this.#list.remove();
  }

  /** @param {HTMLTextAreaElement | null} field */
  #focused(field) {
    if (!field) return;
    field.setAttribute("aria-autocomplete", "list");
    field.setAttribute("aria-controls", "sg-list");
    if (field.value.trim() === "") this.#askSoon(field);
  }

  /** @param {HTMLTextAreaElement | null} field */
  #askSoon(field) {
    if (!field) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(field), PAUSE_MS);
  }

  /** @param {HTMLTextAreaElement} field */
  async #ask(field) {
    const request = ++this.#requests;
    const like = field.value.trim().slice(0, MOST_CHARACTERS);
    try {
      const { suggestions } = await api("GET prompts/suggestions", { query: { like } });
      if (request !== this.#requests || document.activeElement !== field) return;
      this.#show(
        field,
        suggestions.filter(({ text }) => text !== like),
      );
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#close(); // a prompt can be typed without them
    }
  }

  /**
   * @param {HTMLTextAreaElement} field
   * @param {Suggestion[]} suggestions
   */
  #show(field, suggestions) {
    this.#field = field;
    this.#active = -1;
    this.#texts = suggestions.map(({ text }) => text);
    this.#list.replaceChildren(...suggestions.map((suggestion, index) => this.#item(suggestion, index)));
    this.#list.hidden = suggestions.length === 0;
    field.removeAttribute("aria-activedescendant");
    this.#announcement.textContent =
      suggestions.length === 0 ? "" : `${suggestions.length} prompts of the set; arrow down chooses`;
    const box = field.getBoundingClientRect();
    Object.assign(this.#list.style, {
      left: `${box.left + scrollX}px`,
      top: `${box.bottom + scrollY + 4}px`,
      width: `${box.width}px`,
    });
  }

  /**
   * @param {Suggestion} suggestion
   * @param {number} index
   */
  #item({ text, held_out: isHeldOut }, index) {
    const onpointerdown = (/** @type {PointerEvent} */ event) => {
      event.preventDefault(); // the field keeps the focus
      this.#take(text);
    };
    return h(
      "li",
      { class: "sg-item", id: `sg-${index}`, role: "option", "aria-selected": "false", onpointerdown },
      h("span", {}, text),
      isHeldOut && h("small", {}, "never trained on"),
    );
  }

  /** @param {KeyboardEvent} event */
  #keyDown(event) {
    if (this.#list.hidden || event.ctrlKey || event.metaKey || event.isComposing) return;
    if (event.key === "ArrowDown") this.#choose((this.#active + 1) % this.#texts.length);
    else if (event.key === "ArrowUp" && this.#active >= 0) this.#choose(this.#active - 1);
    else if (event.key === "Enter" && this.#active >= 0) this.#take(this.#texts[this.#active]);
    else if (event.key === "Escape") this.#close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {number} index */
  #choose(index) {
    this.#active = index;
    [...this.#list.children].forEach((item, at) => item.setAttribute("aria-selected", String(at === index)));
    if (index < 0) this.#field?.removeAttribute("aria-activedescendant");
    else {
      this.#field?.setAttribute("aria-activedescendant", `sg-${index}`);
      this.#list.children[index].scrollIntoView({ block: "nearest" });
    }
  }

  /** @param {string} text */
  #take(text) {
    this.#close();
    if (!this.#field) return;
    this.#isTaking = true;
    this.#field.value = text;
    this.#field.dispatchEvent(new Event("input", { bubbles: true })); // Gradio listens to this
    this.#isTaking = false;
  }

  #close() {
    clearTimeout(this.#timer);
    this.#requests += 1;
    this.#list.hidden = true;
    this.#announcement.textContent = "";
    this.#field?.removeAttribute("aria-activedescendant");
  }
}

class DmpoPropose extends HTMLElement {
  #button = h(
    "button",
    { type: "button", class: "st-button", onclick: () => this.#propose() },
    "Add to the prompts people vote on",
  );
  #message = h("p", { class: "pm-message", role: "status", "aria-live": "polite" });

  connectedCallback() {
    this.replaceChildren(this.#button, this.#message);
  }

  async #propose() {
    const field = document.querySelector(FIELD);
    const body = { text: field instanceof HTMLTextAreaElement ? field.value : "" };
    this.#button.disabled = true;
    try {
      const { created } = await withSession((token) => api("POST prompts", { body, token }));
      this.#say(created ? "Added. Its pairs come up for voting soon. Thank you!" : "The campaign has it already.");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#say(error.message, true);
    } finally {
      this.#button.disabled = false;
    }
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

class DmpoExamples extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", ({ target }) => {
      const field = document.querySelector(FIELD);
      if (!(target instanceof HTMLButtonElement) || !(field instanceof HTMLTextAreaElement)) return;
      field.value = target.textContent ?? "";
      field.dispatchEvent(new Event("input", { bubbles: true })); // Gradio listens to this
    });
  }
}

customElements.define("dmpo-examples", DmpoExamples);
customElements.define("dmpo-suggest", DmpoSuggest);
customElements.define("dmpo-propose", DmpoPropose);
