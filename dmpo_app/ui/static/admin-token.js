// The field for the administrator's token. Every one on the page shows the same; it stays in this page's memory.

import { h } from "./studio.js";

const fields = new Set();

export class AdminTokenField {
  /** `changed()` is called when the token was typed, here or in another field. */
  constructor(label = "Administrator's token", changed = () => {}) {
    this.changed = changed;
    this.input = h("input", {
      type: "password",
      class: "ad-token",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "administrator's token",
      "aria-label": label,
      oninput: () => this.typed(),
    });
    for (const other of fields) this.input.value = other.input.value;
    fields.add(this);
  }

  get value() {
    return this.input.value.trim();
  }

  typed() {
    for (const field of fields) {
      if (field !== this) field.input.value = this.input.value;
      field.changed();
    }
  }
}
