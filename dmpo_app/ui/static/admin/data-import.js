// The form that takes in a data set: it is sent or named, previewed with counts, and then taken in.

import { api, ApiError, h } from "../lib/studio.js";

const ENDINGS = [".parquet", ".jsonl", ".json", ".zip"];
const MOST_BYTES = 4 * 2 ** 30;
const LONGEST_UPLOAD_MS = 6 * 3600 * 1000;
const POLL_MS = 700;
const BUSY = ["receiving", "reading", "taking_in"];

const field = (label, control) => h("label", { class: "di-field" }, h("span", {}, label), control);
const count = (value) => value.toLocaleString("en");
const many = (number, word) => `${count(number)} ${number === 1 ? word : `${word}s`}`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

export class DataImportForm {
  /** `token()` is the administrator's. */
  constructor(token) {
    this.token = token;
    this.timer = null;
    this.file = h("input", { type: "file", class: "di-input", accept: ENDINGS.join(",") });
    this.hub = h("input", {
      type: "text",
      class: "di-input",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "owner/name",
    });
    this.use = h(
      "select",
      { class: "di-input" },
      h("option", { value: "both" }, "pairs and answers"),
      h("option", { value: "votes" }, "answers, to train on"),
      h("option", { value: "pairs" }, "pairs, to be judged here"),
    );
    this.preview = h("button", { type: "submit", class: "st-button" }, "Preview");
    this.take = h(
      "button",
      {
        type: "button",
        class: "st-button",
        disabled: true,
        onclick: () => this.ask((token) => api("POST", "imports/take-in", { token })),
      },
      "Take in",
    );
    this.stop = h(
      "button",
      {
        type: "button",
        class: "st-button",
        hidden: true,
        onclick: () => this.ask((token) => api("DELETE", "imports", { token, timeoutMs: 60000 })),
      },
      "Stop",
    );
    this.message = h("p", { class: "di-message", role: "status", "aria-live": "polite" });
    this.bar = h("progress", { class: "di-bar", hidden: true, "aria-label": "Progress of the import" });
    this.left = h("div", {});
    const submit = (event) => {
      event.preventDefault();
      this.send();
    };
    this.element = h(
      "section",
      { class: "qu-section" },
      h("h2", {}, "Take in pairs and votes"),
      h(
        "p",
        { class: "qu-help" },
        "Pick-a-Pic, HPD, Label Studio, Argilla and others, told by their columns: .parquet, .jsonl or .json, or a .zip of such files with their images, up to 4 GiB; or a data set of the Hugging Face hub.",
      ),
      h(
        "form",
        { onsubmit: submit },
        h(
          "div",
          { class: "di-fields" },
          field("File", this.file),
          field("Or from the hub", this.hub),
          field("Take", this.use),
        ),
        h("div", { class: "qu-line" }, this.preview, this.take, this.stop),
      ),
      this.message,
      this.bar,
      this.left,
    );
  }

  /** Show what is under way, for example after the page was loaded anew. */
  async refresh() {
    await this.ask((token) => api("GET", "imports", { token }));
  }

  async send() {
    const [file] = this.file.files;
    const hub = this.hub.value.trim();
    if (!file && hub === "") return this.say("Choose a file, or name a data set of the hub.", true);
    if (file && hub !== "") return this.say("A file or a data set of the hub, not both.", true);
    if (file && !ENDINGS.some((ending) => file.name.toLowerCase().endsWith(ending)))
      return this.say(`A file ending in one of: ${ENDINGS.join(", ")}.`, true);
    if (file && file.size > MOST_BYTES) return this.say("The file is larger than 4 GiB; use dmpo import.", true);
    const query = new URLSearchParams({ name: file ? file.name : hub, as: this.use.value });
    const sent = this.ask((token) =>
      file
        ? api("POST", `imports?${query}`, { text: file, token, timeoutMs: LONGEST_UPLOAD_MS })
        : api("POST", `imports/hub?${query}`, { token }),
    );
    if (file && this.token() !== "") this.wait(); // how much has arrived
    return sent;
  }

  /** Ask the API as an administrator, and show the state that it answers. */
  async ask(request) {
    const token = this.token();
    if (token === "") return this.say("Enter the administrator's token first.", true);
    this.preview.disabled = this.take.disabled = true;
    try {
      this.show((await request(token)).current);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.preview.disabled = false;
      this.say(error.message, true);
    }
    return undefined;
  }

  wait() {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      try {
        this.show((await api("GET", "imports", { token: this.token() })).current);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.passing) this.wait();
        else this.say(error.message, true);
      }
    }, POLL_MS);
  }

  show(now) {
    const busy = BUSY.includes(now?.phase);
    this.preview.disabled = busy;
    this.take.disabled = !(now?.phase === "previewed" && now.pairs + now.votes > 0);
    this.stop.hidden = now === null || now.phase === "done" || now.phase === "failed";
    this.stop.textContent = busy ? "Stop" : "Discard";
    const done = busy ? share(now) : null;
    this.bar.hidden = done === null;
    this.bar.value = done ?? 0;
    this.left.replaceChildren();
    this.say(now === null ? "" : said(now), now?.phase === "failed");
    if (now !== null && now.left_out_rows.length > 0) this.left.append(leftOut(now));
    if (busy) this.wait();
    else clearTimeout(this.timer);
  }

  say(text, bad = false) {
    this.message.textContent = text;
    this.message.classList.toggle("qu-bad", bad);
  }
}

/** How much of it is done, from 0 to 1; null: nobody knows how much there is. */
function share({ phase, num_bytes: arrived, total_bytes: bytes, rows, total_rows: all }) {
  if (phase === "receiving" && bytes > 0) return arrived / bytes;
  return phase === "taking_in" && all > 0 ? rows / all : null;
}

function said(now) {
  if (now.phase === "failed") return `${now.name}: ${now.problem}.`.replace(/\.\.$/, ".");
  if (now.phase === "receiving")
    return `${now.name}: ${megabytes(now.num_bytes)}${now.total_bytes > 0 ? ` of ${megabytes(now.total_bytes)}` : ""} received…`;
  if (now.phase === "reading") return `${now.name}: reading, ${many(now.rows, "row")} so far…`;
  if (now.phase === "taking_in")
    return `${now.name}: ${many(now.rows, "row")}, ${many(now.pairs, "pair")} and ${many(now.votes, "vote")} taken in…`;
  const done = now.phase === "done";
  const ignored = Object.values(now.left_out).reduce((sum, more) => sum + more, 0);
  const parts = [
    `${now.name}, ${now.format}: ${many(now.pairs, "pair")} and ${many(now.votes, "vote")} ${done ? "taken in" : "would be added"}`,
    now.is_resumed && !done && (now.rows === 0 ? "all of it was taken in before" : "a part was taken in before"),
    now.ties > 0 && `${count(now.ties)} of them ties`,
    now.unlabelled > 0 && `${count(now.unlabelled)} without an answer`,
    now.duplicates > 0 && `${count(now.duplicates)} there already`,
    ignored > 0 && `${count(ignored)} left out`,
  ];
  return `${parts.filter(Boolean).join(" · ")}.`;
}

function leftOut(now) {
  const reasons = Object.entries(now.left_out).map(([reason, number]) => h("li", {}, `${count(number)}: ${reason}`));
  const rows = now.left_out_rows.map(({ row, reason }) => h("li", {}, `row ${row}: ${reason}`));
  return h(
    "details",
    { class: "di-left" },
    h("summary", {}, "What is left out, and why"),
    h("ul", {}, reasons),
    h("p", { class: "qu-help" }, "The first of them:"),
    h("ul", {}, rows),
  );
}
