// <dmpo-compare>: the same prompt and seed under two versions, side by side or under a wipe. The form beside it is
// Gradio's; its button calls render() here, and the pictures come from the JSON API.

import "./wipe.js";
import {
  address,
  api,
  ApiError,
  h,
  isShown,
  plural,
  session,
  statusFeed,
  storage,
  versionName,
  versions,
} from "../lib/studio.js";

const QUEUE_TIMEOUT_MS = 200000;

class DmpoCompare extends HTMLElement {
  connectedCallback() {
    this.build();
    this.asked = 0;
    this.onKey = (event) => this.key(event);
    document.addEventListener("keydown", this.onKey);
    this.stale = true; // there is something to see that has not been rendered here yet
    this.listed = false; // whether the form's lists hold the versions of today
    this.seen = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.opened());
    this.seen.observe(this);
    this.deaf = statusFeed.listen((status) => status && this.statusCame(status));
  }

  disconnectedCallback() {
    this.seen?.disconnect();
    document.removeEventListener("keydown", this.onKey);
    this.deaf?.();
  }

  build() {
    this.message = h(
      "p",
      { class: "dc-message", role: "status", "aria-live": "polite" },
      "Choose a prompt and press Render.",
    );
    this.sides = [0, 1].map(() => {
      const image = h("img", { alt: "", draggable: "false", hidden: true });
      const caption = h("figcaption", {}, "");
      const withheld = h(
        "p",
        { class: "dc-withheld", hidden: true },
        "Withheld: the model's safety checker flagged this picture.",
      );
      const figure = h("figure", { class: "dc-side" }, h("div", { class: "dc-box" }, image, withheld), caption);
      return { image, caption, withheld, figure };
    });
    this.pair = h(
      "div",
      { class: "dc-pair" },
      this.sides.map((side) => side.figure),
    );
    this.wipe = document.createElement("dmpo-wipe");
    this.wipeHolder = h("div", { class: "dc-wipe" }, this.wipe);
    this.modes = ["Side by side", "Wipe"].map((name) =>
      h(
        "button",
        { type: "button", class: "dc-mode", "aria-pressed": "false", onclick: () => this.setMode(name) },
        name,
      ),
    );
    this.details = h("p", { class: "dc-details" });
    this.downloads = h("p", { class: "dc-downloads" });
    this.replaceChildren(
      h(
        "div",
        { class: "dc-bar" },
        h("div", { class: "dc-modes", role: "group", "aria-label": "View" }, this.modes),
        this.message,
      ),
      h("div", { class: "dc-stage" }, this.pair, this.wipeHolder),
      this.details,
      this.downloads,
    );
    this.setMode(storage.getItem("dmpo.view") ?? "Side by side");
  }

  setMode(name) {
    const wipe = name === "Wipe";
    storage.setItem("dmpo.view", name);
    this.modes.forEach((button) => button.setAttribute("aria-pressed", String(button.textContent === name)));
    this.pair.hidden = wipe;
    this.wipeHolder.hidden = !wipe;
  }

  key(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !isShown(this)) return;
    event.preventDefault();
    // Gradio takes a field's text over when it is left.
    document.activeElement?.blur?.();
    setTimeout(() => document.querySelector("#ba-render")?.click(), 60);
  }

  /** Ask for both pictures. A newer request wins over an older one that is still on its way. */
  async render({ prompt, seed, guidance, steps, left, right, strength }) {
    const asked = ++this.asked;
    if (!prompt || !prompt.trim()) {
      this.say("Write a prompt first.", "bad");
      return;
    }
    this.setBusy(true);
    this.say("Rendering…");
    if (this.getBoundingClientRect().top > innerHeight * 0.6)
      this.scrollIntoView({ block: "start", behavior: "smooth" });
    try {
      const body = {
        prompt,
        seed: Math.trunc(seed ?? 0),
        versions: [left, right],
        strength,
        steps: Math.trunc(steps),
        guidance,
      };
      const [answer, known] = await Promise.all([this.ask(body), versions()]);
      const pictures = await Promise.all(answer.images.map((made) => this.picture(made, known)));
      if (asked === this.asked) this.show(body, pictures);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (asked === this.asked) this.say(error.message, "bad");
    } finally {
      if (asked === this.asked) this.setBusy(false);
    }
  }

  /** The tab was opened: show what the newest version does, without being asked, once for each version. */
  opened() {
    const status = statusFeed.last;
    if (!this.listed || !this.stale || !isShown(this)) return;
    if (this.hasAttribute("lent")) return; // nobody's GPU time is spent unasked
    if (!status || status.renderer.phase !== "ready" || status.live_version === 0) return;
    this.stale = false;
    document.querySelector("#ba-render")?.click();
  }

  /** Gradio filled the form's lists anew. */
  refreshed() {
    this.listed = true;
    setTimeout(() => this.opened(), 50); // once Gradio has drawn them
  }

  /** The answer of Gradio's queue to the request that is waiting: pictures, or what is wrong. */
  answered(answer) {
    this.waiting?.(answer);
  }

  async ask(body) {
    if (this.hasAttribute("lent")) return this.askByQueue();
    const token = await session.token();
    try {
      return await api("POST", "render", { body, token, timeoutMs: 200000 });
    } catch (error) {
      if (error.status !== 401) throw error;
      session.forget(token);
      return api("POST", "render", { body, token: await session.token(), timeoutMs: 200000 });
    }
  }

  /** On ZeroGPU the button's own event carries the request through Gradio's queue, on the quota of whoever pressed it. */
  async askByQueue() {
    const answer = await new Promise((resolve) => {
      this.waiting = resolve;
      setTimeout(
        () => resolve({ problem: "No answer came from the GPU. Is your share of GPU time used up?" }),
        QUEUE_TIMEOUT_MS,
      );
    });
    if (answer?.images) return answer;
    throw new ApiError(503, answer?.problem ?? "The pictures could not be made.");
  }

  async picture(made, known) {
    const url = address(made.url);
    const image = new Image();
    image.src = url;
    await image.decode().catch(() => {
      throw new ApiError(0, "The pictures were made but could not be loaded.");
    });
    const adapter = known.get(made.version);
    const learned = made.version === 0 ? "before any vote" : `learned from ${plural(adapter?.votes ?? 0, "vote")}`;
    const unproven = adapter && !adapter.proven ? ", not yet proven" : "";
    return {
      withheld: made.withheld,
      url,
      version: made.version,
      name: versionName(made.version),
      learned: learned + unproven,
      download: adapter?.download,
    };
  }

  show(asked, pictures) {
    pictures.forEach((picture, index) => {
      const { image, caption, withheld } = this.sides[index];
      image.src = picture.url;
      image.alt = picture.withheld ? `${picture.name}: withheld` : `${picture.name}: ${asked.prompt}`;
      withheld.hidden = !picture.withheld;
      image.hidden = false;
      caption.replaceChildren(h("b", {}, picture.name), ` ${picture.learned}`);
    });
    this.wipe.show(...pictures);
    this.classList.add("dc-filled");
    const withheld = pictures.filter((picture) => picture.withheld).length;
    if (withheld > 0)
      this.say(
        `${plural(withheld, "picture was", "pictures were")} withheld by the model's safety checker. Try another seed or prompt.`,
        "bad",
      );
    else this.say("");
    this.details.textContent = `“${asked.prompt}” · seed ${asked.seed} · ${asked.steps} steps · guidance ${asked.guidance} · strength ${asked.strength}`;
    const links = new Map(pictures.filter((picture) => picture.download).map((picture) => [picture.version, picture]));
    this.downloads.replaceChildren(
      ...[...links.values()].map((picture) =>
        h(
          "a",
          { class: "dc-download", href: address(picture.download), download: true },
          `↓ Download ${picture.name.toLowerCase()} for diffusers`,
        ),
      ),
    );
  }

  setBusy(busy) {
    this.classList.toggle("dc-busy", busy);
    this.setAttribute("aria-busy", String(busy));
  }

  say(text, kind = "") {
    this.message.textContent = text;
    this.message.classList.toggle("dc-bad", kind === "bad");
  }

  /** A version appeared or went live: have Gradio's lists of versions filled anew. */
  statusCame(status) {
    const state = `${status.live_version}/${status.last_round?.adapter_version ?? ""}`;
    if (this.state !== state) {
      // Also at the first time: the page was built with the versions there were when the server started.
      this.stale = true;
      this.listed = false;
      document.querySelector("#ba-refresh")?.click();
    }
    this.state = state;
    if (
      status.renderer.phase !== "ready" &&
      !this.classList.contains("dc-filled") &&
      !this.classList.contains("dc-busy")
    ) {
      this.say(
        status.renderer.phase === "failed"
          ? status.renderer.message
          : "The model is warming up; a first picture takes a moment.",
      );
      this.warming = true;
    } else if (this.warming) {
      this.warming = false;
      this.say("Choose a prompt and press Render.");
    }
  }
}

customElements.define("dmpo-compare", DmpoCompare);
