// @ts-check
// <dmpo-compare>: the same prompt and seed under two versions, side by side or under a wipe. The form beside it is
// Gradio's; its button calls render() here, and the images come from the JSON API.

import { address, api, ApiError } from "../lib/api.js";
import { h, isShown, press } from "../lib/dom.js";
import { withSession } from "../lib/session.js";
import { statusFeed, versions } from "../lib/status.js";
import { storage } from "../lib/storage.js";
import { plural, versionName } from "../lib/text.js";
import { DmpoWipe } from "./wipe.js";

/** @import { Operations } from "../lib/api-types.js" */
/** @import { Adapter, Answer, Status } from "../lib/types.js" */

/**
 * @typedef {Operations["POST render"]["body"]} RenderBody
 * @typedef {Answer<"POST render">["images"][number]} RenderedImage
 *
 * @typedef {object} Form the values of Gradio's form
 * @property {string | null} prompt
 * @property {number | null} seed
 * @property {number} guidance
 * @property {number} steps
 * @property {number} left
 * @property {number} right
 * @property {number} strength
 *
 * @typedef {{ images?: RenderedImage[], problem?: string }} QueueAnswer
 *
 * @typedef {object} ShownImage
 * @property {string} url
 * @property {number} version
 * @property {string} name
 * @property {string} about
 * @property {boolean} withheld
 * @property {string | null | undefined} download
 */

const QUEUE_TIMEOUT_MS = 200000;
const RENDER_TIMEOUT_MS = 200000;
const VIEW = "dmpo.view";
const SIDE_BY_SIDE = "Side by side";
const WIPE = "Wipe";
const INVITATION = "Choose a prompt and press Render.";

/** One image of the two that stand side by side. */
class Side {
  #image = h("img", { alt: "", draggable: "false", hidden: true });
  #caption = h("figcaption", {}, "");
  #withheld = h(
    "p",
    { class: "dc-withheld", hidden: true },
    "Withheld: the model's safety checker flagged this image.",
  );
  element = h(
    "figure",
    { class: "dc-side" },
    h("div", { class: "dc-box" }, this.#image, this.#withheld),
    this.#caption,
  );

  /**
   * @param {ShownImage} image
   * @param {string} prompt
   */
  show(image, prompt) {
    this.#image.src = image.url;
    this.#image.alt = image.withheld ? `${image.name}: withheld` : `${image.name}: ${prompt}`;
    this.#image.hidden = false;
    this.#withheld.hidden = !image.withheld;
    this.#caption.replaceChildren(h("b", {}, image.name), ` ${image.about}`);
  }
}

class DmpoCompare extends HTMLElement {
  #message = h("p", { class: "dc-message", role: "status", "aria-live": "polite" }, INVITATION);
  #sides = [new Side(), new Side()];
  #pair = h(
    "div",
    { class: "dc-pair" },
    this.#sides.map((side) => side.element),
  );
  #wipe = new DmpoWipe();
  #wipeHolder = h("div", { class: "dc-wipe" }, this.#wipe);
  #modes = [SIDE_BY_SIDE, WIPE].map((name) =>
    h(
      "button",
      { type: "button", class: "dc-mode", "aria-pressed": "false", onclick: () => this.#setMode(name) },
      name,
    ),
  );
  #details = h("p", { class: "dc-details" });
  #downloads = h("p", { class: "dc-downloads" });
  #listening = new AbortController();
  #unsubscribe = () => {};
  #seen = new IntersectionObserver((entries) => entries.at(-1)?.isIntersecting && this.#opened());
  /** Grows with every request; the answers to older ones are dropped. */
  #requests = 0;
  /** @type {((answer: QueueAnswer | null) => void) | null} */
  #queueAnswered = null;
  /** Whether there is something to see that has not been rendered here yet. */
  #isStale = true;
  /** Whether the form's lists hold the versions of today. */
  #isListed = false;
  #isWarmingUp = false;
  #versionsState = "";
  /** The version that the form's right list showed as the live one. */
  #live = Number(this.dataset.live ?? 0);

  connectedCallback() {
    this.replaceChildren(
      h(
        "div",
        { class: "dc-bar" },
        h("div", { class: "dc-modes", role: "group", "aria-label": "View" }, this.#modes),
        this.#message,
      ),
      h("div", { class: "dc-stage" }, this.#pair, this.#wipeHolder),
      this.#details,
      this.#downloads,
    );
    this.#setMode(storage.getItem(VIEW) ?? SIDE_BY_SIDE);
    this.#listening = new AbortController();
    document.addEventListener("keydown", (event) => this.#keyDown(event), { signal: this.#listening.signal });
    this.#seen.observe(this);
    this.#unsubscribe = statusFeed.listen((status) => status && this.#statusCame(status));
  }

  disconnectedCallback() {
    this.#seen.disconnect();
    this.#listening.abort();
    this.#unsubscribe();
  }

  /** Whether images are rendered in GPU minutes that people lend, so by way of Gradio's queue. */
  get #usesQueue() {
    return this.hasAttribute("lent");
  }

  /** @param {string} name */
  #setMode(name) {
    const isWipe = name === WIPE;
    storage.setItem(VIEW, name);
    for (const button of this.#modes) button.setAttribute("aria-pressed", String(button.textContent === name));
    this.#pair.hidden = isWipe;
    this.#wipeHolder.hidden = !isWipe;
  }

  /** @param {KeyboardEvent} event */
  #keyDown(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !isShown(this)) return;
    event.preventDefault();
    // Gradio takes a field's text over when it is left.
    if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
    setTimeout(() => press("#ba-render"), 60);
  }

  /**
   * Ask for both images. A newer request wins over an older one that is still on its way.
   *
   * @param {Form} form
   */
  async render({ prompt, seed, guidance, steps, left, right, strength }) {
    const request = ++this.#requests;
    if (!prompt?.trim()) {
      this.#say("Write a prompt first.", true);
      return;
    }
    this.#setBusy(true);
    this.#say("Rendering…");
    if (this.getBoundingClientRect().top > innerHeight * 0.6) {
      this.scrollIntoView({ block: "start", behavior: "smooth" });
    }
    const whole = { seed: Math.trunc(seed ?? 0), steps: Math.trunc(steps) };
    const body = { prompt, ...whole, versions: [left, right], strength, guidance };
    try {
      const [answer, adapters] = await Promise.all([this.#request(body), versions()]);
      const images = await Promise.all(answer.map((image) => loadImage(image, adapters.get(image.version))));
      if (request === this.#requests) this.#show(body, images);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (request === this.#requests) this.#say(error.message, true);
    } finally {
      if (request === this.#requests) this.#setBusy(false);
    }
  }

  /** The tab was opened: show what the newest version does, without being asked, once for each version. */
  #opened() {
    const status = statusFeed.last;
    if (!this.#isListed || !this.#isStale || !isShown(this)) return;
    if (this.#usesQueue) return; // nobody's GPU time is spent unasked
    if (!status || status.renderer.phase !== "ready" || status.live_version === 0) return;
    this.#isStale = false;
    press("#ba-render");
  }

  /**
   * New contents of the form's two lists of versions, in the form in which Gradio takes them. A side that showed the
   * live version goes on showing the live one.
   *
   * @param {number} left
   * @param {number} right
   */
  async lists(left, right) {
    const unchanged = { __type__: "update" };
    try {
      const byVersion = await versions();
      const newestFirst = [...byVersion.values()].sort((a, b) => b.version - a.version);
      const choices = newestFirst.map(({ version, state_words: state }) => {
        const name = version === 0 ? "Base" : versionName(version);
        return [state ? `${name} · ${state}` : name, version];
      });
      const live = newestFirst.find((adapter) => adapter.live)?.version ?? 0;
      const newRight = right === this.#live ? live : right;
      this.#live = live;
      this.#isListed = true;
      setTimeout(() => this.#opened(), 50); // once Gradio has drawn them
      return [
        { ...unchanged, choices, value: left },
        { ...unchanged, choices, value: newRight },
      ];
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#versionsState = ""; // asked again with the next status
      return [unchanged, unchanged];
    }
  }

  /**
   * The answer of Gradio's queue to the request that is waiting: images, or what is wrong.
   *
   * @param {QueueAnswer | null} answer
   */
  answered(answer) {
    this.#queueAnswered?.(answer);
  }

  /** @param {RenderBody} body */
  async #request(body) {
    if (this.#usesQueue) return this.#requestByQueue();
    const timeoutMs = RENDER_TIMEOUT_MS;
    return (await withSession((token) => api("POST render", { body, token, timeoutMs }))).images;
  }

  /**
   * On ZeroGPU the button's own event carries the request through Gradio's queue, on the quota of whoever pressed it.
   *
   * @returns {Promise<RenderedImage[]>}
   */
  async #requestByQueue() {
    /** @type {QueueAnswer | null} */
    const answer = await new Promise((resolve) => {
      this.#queueAnswered = resolve;
      const problem = "No answer came from the GPU. Is your share of GPU time used up?";
      setTimeout(() => resolve({ problem }), QUEUE_TIMEOUT_MS);
    });
    if (answer?.images) return answer.images;
    throw new ApiError(503, answer?.problem ?? "The images could not be made.");
  }

  /**
   * @param {RenderBody} body
   * @param {ShownImage[]} images
   */
  #show(body, images) {
    this.#sides.forEach((side, index) => side.show(images[index], body.prompt));
    this.#wipe.show(images[0], images[1]);
    this.classList.add("dc-filled");
    const withheld = images.filter((image) => image.withheld).length;
    if (withheld > 0) {
      const subject = plural(withheld, "image was", "images were");
      this.#say(`${subject} withheld by the model's safety checker. Try another seed or prompt.`, true);
    } else this.#say("");
    this.#details.textContent =
      `“${body.prompt}” · seed ${body.seed} · ${body.steps} steps · ` +
      `guidance ${body.guidance} · strength ${body.strength}`;
    const byVersion = new Map(images.map((image) => [image.version, image]));
    this.#downloads.replaceChildren(...[...byVersion.values()].flatMap(downloadLinks));
  }

  /** @param {boolean} busy */
  #setBusy(busy) {
    this.classList.toggle("dc-busy", busy);
    this.setAttribute("aria-busy", String(busy));
  }

  /**
   * @param {string} text
   * @param {boolean} bad
   */
  #say(text, bad = false) {
    this.#message.textContent = text;
    this.#message.classList.toggle("dc-bad", bad);
  }

  /**
   * A version appeared or went live: have Gradio's lists of versions filled anew.
   *
   * @param {Status} status
   */
  #statusCame(status) {
    const versionsState = `${status.live_version}/${status.last_round?.adapter_version ?? ""}`;
    if (this.#versionsState !== versionsState) {
      // Also at the first time: the page was built with the versions there were when the server started.
      this.#isStale = true;
      this.#isListed = false;
      press("#ba-refresh");
    }
    this.#versionsState = versionsState;
    const isUntouched = !this.classList.contains("dc-filled") && !this.classList.contains("dc-busy");
    const { phase, message } = status.renderer;
    if (phase !== "ready" && isUntouched) {
      this.#say(phase === "failed" ? message : "The model is warming up; a first image takes a moment.");
      this.#isWarmingUp = true;
    } else if (this.#isWarmingUp) {
      this.#isWarmingUp = false;
      this.#say(INVITATION);
    }
  }
}

/**
 * @param {RenderedImage} image
 * @param {Adapter | undefined} adapter
 * @returns {Promise<ShownImage>}
 */
async function loadImage({ url, version, withheld }, adapter) {
  const image = new Image();
  image.src = address(url);
  await image.decode().catch(() => {
    throw new ApiError(0, "The images were made but could not be loaded.");
  });
  const learned = version === 0 ? "before any vote" : `learned from ${plural(adapter?.votes ?? 0, "vote")}`;
  const unproven = adapter && !adapter.proven ? ", not yet proven" : "";
  const about = learned + unproven;
  return { url: image.src, version, name: versionName(version), about, withheld, download: adapter?.download };
}

/** @param {ShownImage} image */
function downloadLinks({ download, name }) {
  if (!download) return [];
  const text = `↓ Download ${name.toLowerCase()} for diffusers`;
  return [h("a", { class: "dc-download", href: address(download), download: true }, text)];
}

customElements.define("dmpo-compare", DmpoCompare);
