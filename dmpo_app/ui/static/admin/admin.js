// What an administrator may do: train now, make a version live. The token stays in this page's memory.

import { AdminTokenField } from "../lib/admin-token.js";
import { api, ApiError, h, statusFeed } from "../lib/studio.js";

export class AdminPanel {
  /** `done()` is called after something was changed. */
  constructor(done) {
    this.done = done;
    this.token = new AdminTokenField();
    this.message = h("p", { class: "ad-message", role: "status", "aria-live": "polite" });
    this.trainButton = h(
      "button",
      { type: "button", class: "st-button ad-train", onclick: () => this.train() },
      "Train now",
    );
    this.element = h(
      "div",
      { class: "ad" },
      h(
        "p",
        { class: "ad-help" },
        "The token is DMPO_ADMIN_TOKEN, or the one written to the terminal at start. It is kept until this page is closed.",
      ),
      h("div", { class: "ad-line" }, this.token.input, this.trainButton),
      this.message,
    );
  }

  liveButton(version) {
    const button = h(
      "button",
      { type: "button", class: "st-button", onclick: () => this.makeLive(version) },
      "Make live",
    );
    button.setAttribute("aria-label", version === 0 ? "Make the base model live" : `Make version ${version} live`);
    return button;
  }

  /** On ZeroGPU a queued round waits for a GPU minute, and the administrator lends the first. */
  async train() {
    if (await this.act("POST", "rounds", (round) => `Round ${round.id} is queued.`))
      document.querySelector("#lend-minute")?.click();
  }

  makeLive(version) {
    return this.act("POST", `adapters/${version}/live`, (answer) =>
      answer.live_version === 0 ? "The base model is live." : `Version ${answer.live_version} is live.`,
    );
  }

  /** Whether it was done. */
  async act(method, path, said) {
    const token = this.token.value;
    if (token === "") {
      this.say("Enter the administrator's token first.", true);
      this.token.input.focus();
      return false;
    }
    try {
      this.say(said(await api(method, path, { token })));
      statusFeed.poll();
      this.done();
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.say(error.message, true);
      return false;
    }
  }

  say(text, bad = false) {
    this.message.textContent = text;
    this.message.classList.toggle("ad-bad", bad);
  }
}
