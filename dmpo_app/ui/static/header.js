// <dmpo-header>: one line that says what the studio is doing, on every tab.

import { h, statusFeed } from "./lib/studio.js";

class DmpoHeader extends HTMLElement {
  connectedCallback() {
    this.text = h("span", {}, "connecting…");
    this.replaceChildren(h("span", { class: "sh-dot", "aria-hidden": "true" }), this.text);
    this.deaf = statusFeed.listen((status) => this.show(status));
  }

  disconnectedCallback() {
    this.deaf?.();
  }

  show(status) {
    const [kind, text] = said(status);
    this.dataset.kind = kind;
    if (this.text.textContent !== text) this.text.textContent = text;
  }
}

function said(status) {
  if (status === null) return ["bad", "no connection"];
  if (status.renderer.phase === "failed") return ["bad", "model not loaded"];
  if (status.round?.status === "running") {
    const share = status.round.steps > 0 ? Math.floor((100 * status.round.step) / status.round.steps) : 0;
    return ["busy", `learning, ${share} %`];
  }
  if (status.renderer.phase === "starting" || status.renderer.phase === "loading") return ["busy", "warming up"];
  return ["good", status.live_version === 0 ? "base model live" : `version ${status.live_version} live`];
}

customElements.define("dmpo-header", DmpoHeader);
