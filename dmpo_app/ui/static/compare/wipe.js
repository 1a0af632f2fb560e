// <dmpo-wipe>: two pictures on top of each other with a line between them that is dragged, or moved by keys.

import { h } from "../lib/studio.js";

const STEP = 2;
const LONG_STEP = 10;

class DmpoWipe extends HTMLElement {
  connectedCallback() {
    if (this.under) return;
    this.under = h("img", { class: "dw-under", alt: "", draggable: "false" });
    this.over = h("img", { class: "dw-over", alt: "", draggable: "false" });
    this.leftTag = h("span", { class: "dw-tag dw-left" });
    this.rightTag = h("span", { class: "dw-tag dw-right" });
    this.handle = h(
      "div",
      {
        class: "dw-handle",
        role: "slider",
        tabindex: "0",
        "aria-label": "Where the left picture ends",
        "aria-orientation": "horizontal",
        "aria-valuemin": "0",
        "aria-valuemax": "100",
      },
      h("span", { class: "dw-grip", "aria-hidden": "true" }, "‹ ›"),
    );
    this.replaceChildren(this.under, this.over, this.leftTag, this.rightTag, this.handle);
    this.addEventListener("pointerdown", (event) => this.grab(event));
    this.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) this.addEventListener(end, () => (this.dragging = false));
    this.handle.addEventListener("keydown", (event) => this.key(event));
    this.move(50);
  }

  /** Show two pictures: each {url, name}. The line stays where it is. */
  show(left, right) {
    this.over.src = left.url;
    this.under.src = right.url;
    this.over.alt = left.name;
    this.under.alt = right.name;
    this.leftTag.textContent = left.name;
    this.rightTag.textContent = right.name;
    this.move(this.value);
  }

  /** Put the line at `percent` of the width. */
  move(percent) {
    this.value = Math.min(100, Math.max(0, percent));
    this.style.setProperty("--at", `${this.value}%`);
    this.handle.setAttribute("aria-valuenow", String(Math.round(this.value)));
    this.handle.setAttribute("aria-valuetext", `${Math.round(this.value)} % ${this.leftTag.textContent || "left"}`);
  }

  grab(event) {
    if (event.button !== 0) return;
    this.dragging = true;
    this.setPointerCapture(event.pointerId);
    this.handle.focus({ preventScroll: true });
    this.drag(event);
    event.preventDefault();
  }

  drag(event) {
    if (!this.dragging) return;
    const box = this.getBoundingClientRect();
    this.move((100 * (event.clientX - box.left)) / box.width);
  }

  key(event) {
    const step = event.shiftKey ? LONG_STEP : STEP;
    const target = {
      ArrowLeft: this.value - step,
      ArrowDown: this.value - step,
      ArrowRight: this.value + step,
      ArrowUp: this.value + step,
      PageDown: this.value - LONG_STEP,
      PageUp: this.value + LONG_STEP,
      Home: 0,
      End: 100,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.move(target);
  }
}

customElements.define("dmpo-wipe", DmpoWipe);
