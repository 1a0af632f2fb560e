// @ts-check
// Acts of an administrator: train now, make a version live. The token stays in this page's memory.

import { AdminTokenField } from "../lib/admin-token.js";
import { api, ApiError } from "../lib/api.js";
import { h, press } from "../lib/dom.js";
import { statusFeed } from "../lib/status.js";

const HELP =
  "The token is DMPO_ADMIN_TOKEN, or the one written to the terminal at start. It is kept until this page is closed.";

export class AdminPanel {
  /** @param {() => void} changed called after something was changed */
  constructor(changed) {
    this.changed = changed;
    this.token = new AdminTokenField();
    this.message = h("p", { class: "ad-message", role: "status", "aria-live": "polite" });
    const train = () => this.#train();
    this.trainButton = h("button", { type: "button", class: "st-button ad-train", onclick: train }, "Train now");
    this.element = h(
      "div",
      { class: "ad" },
      h("p", { class: "ad-help" }, HELP),
      h("div", { class: "ad-line" }, this.token.input, this.trainButton),
      this.message,
    );
  }

  /** @param {number} version */
  liveButton(version) {
    const makeLive = () => this.#makeLive(version);
    const button = h("button", { type: "button", class: "st-button", onclick: makeLive }, "Make live");
    button.setAttribute("aria-label", version === 0 ? "Make the base model live" : `Make version ${version} live`);
    return button;
  }

  /** On ZeroGPU a queued round waits for a GPU minute, and the administrator lends the first. */
  async #train() {
    const isQueued = await this.#attempt(async (token) => {
      const round = await api("POST rounds", { token });
      return `Round ${round.id} is queued.`;
    });
    if (isQueued) press("#lend-minute");
  }

  /** @param {number} version */
  #makeLive(version) {
    return this.#attempt(async (token) => {
      const { live_version: live } = await api("POST adapters/{version}/live", { params: { version }, token });
      return live === 0 ? "The base model is live." : `Version ${live} is live.`;
    });
  }

  /**
   * Do something with the token. Resolves to whether it was done.
   *
   * @param {(token: string) => Promise<string>} act resolves to a sentence about its result
   */
  async #attempt(act) {
    const token = this.token.value;
    if (token === "") {
      this.#say("Enter the administrator's token first.", true);
      this.token.input.focus();
      return false;
    }
    try {
      this.#say(await act(token));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#say(error.message, true);
      return false;
    }
    statusFeed.poll();
    this.changed();
    return true;
  }

  /**
   * @param {string} text
   * @param {boolean} bad
   */
  #say(text, bad = false) {
    this.message.textContent = text;
    this.message.classList.toggle("ad-bad", bad);
  }
}
