// @ts-check
// The field for the administrator's token. Every one on the page shows the same; it stays in this page's memory.

import { h } from "./dom.js";

/** @type {Set<AdminTokenField>} */
const fields = new Set();
let current = "";

/**
 * Fill in the token that somebody got by signing in; "" takes it out again.
 *
 * @param {string} token
 */
export function setAdminToken(token) {
  current = token;
  for (const field of fields) field.show();
}

export class AdminTokenField {
  /**
   * @param {string} label
   * @param {() => void} changed called when the token was typed, here or in another field, or filled in
   */
  constructor(label = "Administrator's token", changed = () => {}) {
    this.changed = changed;
    /** @type {HTMLInputElement} */
    this.input = h("input", {
      type: "password",
      class: "ad-token",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "administrator's token",
      "aria-label": label,
      oninput: () => setAdminToken(this.input.value),
    });
    this.input.value = current;
    fields.add(this);
  }

  get value() {
    return this.input.value.trim();
  }

  show() {
    if (this.input.value !== current) this.input.value = current;
    this.changed();
  }
}
