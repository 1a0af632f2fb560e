// The form that takes in a file of prompts: a preview with counts first, then the import.

import { api, ApiError, h, plural } from "../lib/studio.js";

const MOST_BYTES = 4 * 1024 * 1024;
const FORMATS = ["txt", "csv", "tsv", "jsonl", "json"];

const field = (label, control) => h("label", { class: "pm-field" }, h("span", {}, label), control);

export class ImportForm {
  /** `token()` is the administrator's; `done()` is called after prompts were added. */
  constructor(token, done) {
    this.token = token;
    this.done = done;
    const changed = () => this.changed();
    this.file = h("input", {
      type: "file",
      class: "pm-input",
      accept: FORMATS.map((name) => `.${name}`).join(","),
      onchange: changed,
    });
    this.side = h(
      "select",
      { class: "pm-input", onchange: changed },
      h("option", { value: "0" }, "train on all"),
      h("option", { value: "share" }, "hold out a share"),
      h("option", { value: "1" }, "hold all out"),
    );
    this.share = h("input", {
      type: "number",
      class: "pm-input",
      min: "1",
      max: "99",
      step: "1",
      value: "10",
      oninput: changed,
    });
    this.shareField = field("Share, %", this.share);
    this.tags = h("input", {
      type: "text",
      class: "pm-input",
      autocomplete: "off",
      placeholder: "commas between",
      oninput: changed,
    });
    this.column = h("input", {
      type: "text",
      class: "pm-input",
      autocomplete: "off",
      placeholder: "prompt, caption…",
      oninput: changed,
    });
    this.preview = h("button", { type: "button", class: "st-button", onclick: () => this.send(true) }, "Preview");
    this.take = h(
      "button",
      { type: "button", class: "st-button", disabled: true, onclick: () => this.send(false) },
      "Import",
    );
    this.message = h("p", { class: "pm-message", role: "status", "aria-live": "polite" });
    this.refused = h("div", {});
    this.element = h(
      "section",
      { class: "pm-import" },
      h("h2", {}, "Import"),
      h(
        "p",
        { class: "ad-help" },
        "A file of text: .txt (a prompt a line), .csv, .tsv, .jsonl or .json, up to 4 MiB. Parquet and larger files: dmpo prompts import.",
      ),
      h(
        "div",
        { class: "pm-filters" },
        field("File", this.file),
        field("Side", this.side),
        this.shareField,
        field("Tags", this.tags),
        field("Column", this.column),
      ),
      h("div", { class: "pm-acts" }, this.preview, this.take),
      this.message,
      this.refused,
    );
    this.changed();
  }

  /** What was previewed is not what would be imported any more. */
  changed() {
    this.shareField.hidden = this.side.value !== "share";
    this.take.disabled = true;
    this.say("");
    this.refused.replaceChildren();
  }

  async send(dryRun) {
    const [file] = this.file.files;
    const format = file?.name.split(".").pop().toLowerCase();
    if (!file) return this.say("Choose a file first.", true);
    if (!FORMATS.includes(format)) return this.say(`A file ending in one of: ${FORMATS.join(", ")}.`, true);
    if (file.size > MOST_BYTES) return this.say("The file is larger than 4 MiB; use dmpo prompts import.", true);
    const query = new URLSearchParams({
      format,
      dry_run: String(dryRun),
      held_out_share: this.side.value === "share" ? String(this.share.value / 100) : this.side.value,
    });
    for (const tag of this.tags.value.split(",")) if (tag.trim() !== "") query.append("tag", tag.trim());
    if (this.column.value.trim() !== "") query.set("column", this.column.value.trim());
    this.preview.disabled = this.take.disabled = true;
    this.say("Reading…");
    try {
      // The bytes as they are, so that the studio and not the browser judges whether they are text.
      this.show(
        await api("POST", `prompts/import?${query}`, {
          text: await file.arrayBuffer(),
          token: this.token(),
          timeoutMs: 120000,
        }),
      );
      if (!dryRun) this.done();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.say(error.message, true);
    } finally {
      this.preview.disabled = false;
    }
    return undefined;
  }

  show(answer) {
    const refused = Object.entries(answer.refused);
    const parts = [
      `${plural(answer.new, "prompt")} ${answer.dry_run ? "would be added" : "added"}, ${answer.held_out} of them held out`,
      answer.known > 0 && `${answer.known} there already`,
      ...refused.map(([reason, count]) => `${count} refused: ${reason}`),
    ];
    this.say(`${parts.filter(Boolean).join(" · ")}.`);
    this.take.disabled = !(answer.dry_run && answer.new + answer.known > 0);
    const line = (row) =>
      h("li", {}, `${row.row}: ${row.reason}: `, h("q", {}, row.text), row.like && [", like ", h("q", {}, row.like)]);
    this.refused.replaceChildren();
    if (answer.rows.length > 0) {
      const total = refused.reduce((sum, [, count]) => sum + count, 0);
      const summary = answer.rows.length < total ? `The first ${answer.rows.length} refused rows` : "Refused rows";
      this.refused.append(
        h("details", { class: "pm-refused" }, h("summary", {}, summary), h("ul", {}, answer.rows.map(line))),
      );
    }
  }

  say(text, bad = false) {
    this.message.textContent = text;
    this.message.classList.toggle("pm-bad", bad);
  }
}
