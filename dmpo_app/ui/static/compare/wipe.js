// @ts-check
// <dmpo-wipe>: two images on top of each other with a line between them that is dragged, or moved by keys.

import { h } from "../lib/dom.js";

/** @typedef {{ url: string, name: string }} NamedImage */

const STEP = 2;
const LONG_STEP = 10;

export class DmpoWipe extends HTMLElement {
  #under = h("img", { class: "dw-under", alt: "", draggable: "false" });
  #over = h("img", { class: "dw-over", alt: "", draggable: "false" });
  #leftTag = h("span", { class: "dw-tag dw-left" });
  #rightTag = h("span", { class: "dw-tag dw-right" });
  #handle = h(
    "div",
    {
      class: "dw-handle",
      role: "slider",
      tabindex: "0",
      "aria-label": "Where the left image ends",
      "aria-orientation": "horizontal",
      "aria-valuemin": "0",
      "aria-valuemax": "100",
    },
    h("span", { class: "dw-grip", "aria-hidden": "true" }, "‹ ›"),
  );
  #isDragging = false;
  #isBuilt = false;
  /** The place of the line, in percent of the width. */
  #position = 50;

  connectedCallback() {
    if (this.#isBuilt) return;
    this.#isBuilt = true;
    this.replaceChildren(this.#under, this.#over, this.#leftTag, this.#rightTag, this.#handle);
    this.addEventListener("pointerdown", (event) => this.#grab(event));
    this.addEventListener("pointermove", (event) => this.#drag(event));
    this.addEventListener("pointerup", () => this.#release());
    this.addEventListener("pointercancel", () => this.#release());
    this.#handle.addEventListener("keydown", (event) => this.#keyDown(event));
    this.#move(50);
  }

  /**
   * Show two images. The line stays where it is.
   *
   * @param {NamedImage} left
   * @param {NamedImage} right
   */
  show(left, right) {
    this.#over.src = left.url;
    this.#under.src = right.url;
    this.#over.alt = left.name;
    this.#under.alt = right.name;
    this.#leftTag.textContent = left.name;
    this.#rightTag.textContent = right.name;
    this.#move(this.#position);
  }

  /** @param {number} percent of the width */
  #move(percent) {
    this.#position = Math.min(100, Math.max(0, percent));
    const rounded = Math.round(this.#position);
    this.style.setProperty("--at", `${this.#position}%`);
    this.#handle.setAttribute("aria-valuenow", String(rounded));
    this.#handle.setAttribute("aria-valuetext", `${rounded} % ${this.#leftTag.textContent || "left"}`);
  }

  /** @param {PointerEvent} event */
  #grab(event) {
    if (event.button !== 0) return;
    this.#isDragging = true;
    this.setPointerCapture(event.pointerId);
    this.#handle.focus({ preventScroll: true });
    this.#drag(event);
    event.preventDefault();
  }

  /** @param {PointerEvent} event */
  #drag(event) {
    if (!this.#isDragging) return;
    const box = this.getBoundingClientRect();
    this.#move((100 * (event.clientX - box.left)) / box.width);
  }

  #release() {
    this.#isDragging = false;
  }

  /** @param {KeyboardEvent} event */
  #keyDown(event) {
    const step = event.shiftKey ? LONG_STEP : STEP;
    /** @type {Record<string, number | undefined>} */
    const targets = {
      ArrowLeft: this.#position - step,
      ArrowDown: this.#position - step,
      ArrowRight: this.#position + step,
      ArrowUp: this.#position + step,
      PageDown: this.#position - LONG_STEP,
      PageUp: this.#position + LONG_STEP,
      Home: 0,
      End: 100,
    };
    const target = targets[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.#move(target);
  }
}

customElements.define("dmpo-wipe", DmpoWipe);
