// @ts-check
// <dmpo-header>: one line about the studio's state, on every tab.

import { h } from "./lib/dom.js";
import { statusFeed } from "./lib/status.js";

/** @import { Status } from "./lib/types.js" */

class DmpoHeader extends HTMLElement {
  #text = h("span", {}, "connecting…");
  #unsubscribe = () => {};

  connectedCallback() {
    this.replaceChildren(h("span", { class: "sh-dot", "aria-hidden": "true" }), this.#text);
    this.#unsubscribe = statusFeed.listen((status) => this.#show(status));
  }

  disconnectedCallback() {
    this.#unsubscribe();
  }

  /** @param {Status | null} status */
  #show(status) {
    const { kind, text, title = "" } = headline(status);
    this.dataset.kind = kind;
    this.title = title;
    if (this.#text.textContent !== text) this.#text.textContent = text;
  }
}

/**
 * @param {Status | null} status
 * @returns {{ kind: string; text: string; title?: string }}
 */
function headline(status) {
  if (status === null) return { kind: "bad", text: "no connection" };
  const { renderer, round, storage, live_version: live } = status;
  if (storage) return { kind: "bad", text: "disk full: votes may be refused", title: storage };
  if (renderer.phase === "failed") return { kind: "bad", text: "model not loaded" };
  if (round?.status === "running") {
    const share = round.steps > 0 ? Math.floor((100 * round.step) / round.steps) : 0;
    return { kind: "busy", text: `learning, ${share} %` };
  }
  if (renderer.phase === "starting" || renderer.phase === "loading") return { kind: "busy", text: "warming up" };
  return { kind: "good", text: live === 0 ? "base model live" : `version ${live} live` };
}

customElements.define("dmpo-header", DmpoHeader);
