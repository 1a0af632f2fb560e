// @ts-check
// Fingers on the images: a tap is a click, a swipe chooses a side, two fingers zoom, one moves the zoomed part.

/** @import { Side } from "../lib/types.js" */
/** @import { Zoom } from "./zoom.js" */
/** @typedef {{ x: number, y: number }} Spot */
/** @typedef {{ from: Spot, at: Spot }} Finger */

const SWIPE_PX = 56;
const STILL_PX = 9;
const LEAST_SCALE = 1.15; // fingers that end closer to no zoom than this meant none
const AFTER_MS = 350; // a click that follows a gesture within this time was part of it

/** @param {Finger} finger */
const path = ({ from, at }) => ({ dx: at.x - from.x, dy: at.y - from.y });

/** @param {PointerEvent} event @returns {Spot} */
const spot = (event) => ({ x: event.clientX, y: event.clientY });

export class Gestures {
  /** @type {Map<number, Finger>} */
  #fingers = new Map();
  #hasMoved = false;
  #endedAt = -Infinity;
  /** @type {{ distance: number, scale: number } | null} */
  #pinch = null;

  /** Whether a swipe chooses; images that are ranked are tapped. */
  hasSides = true;

  /**
   * @param {HTMLElement} pair the element that holds the frames
   * @param {Zoom} zoom
   * @param {(side: Side) => void} swiped
   */
  constructor(pair, zoom, swiped) {
    this.pair = pair;
    this.zoom = zoom;
    this.swiped = swiped;
    pair.addEventListener("pointerdown", (event) => this.#down(event));
    pair.addEventListener("pointermove", (event) => this.#move(event));
    pair.addEventListener("pointerup", (event) => this.#up(event, true));
    pair.addEventListener("pointercancel", (event) => this.#up(event, false));
    pair.addEventListener("click", (event) => this.#click(event), { capture: true });
    // Two fingers are ours: the browser would zoom the whole page.
    pair.addEventListener("touchmove", (event) => event.touches.length > 1 && event.preventDefault(), {
      passive: false,
    });
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.pointerType === "mouse") return;
    this.#fingers.set(event.pointerId, { from: spot(event), at: spot(event) });
    if (this.#fingers.size === 1) this.#hasMoved = false;
    if (this.#fingers.size === 2) this.#startPinch(event);
  }

  /** @param {PointerEvent} event */
  #startPinch(event) {
    this.#hasMoved = true;
    this.#lean(0);
    this.#pinch = { distance: this.#distance(), scale: this.zoom.scale };
    const place = this.zoom.place(event);
    if (place && !this.zoom.on) this.zoom.set(1, ...place);
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const finger = this.#fingers.get(event.pointerId);
    if (!finger) return;
    const before = finger.at;
    finger.at = spot(event);
    const { dx, dy } = path(finger);
    if (Math.hypot(dx, dy) > STILL_PX) this.#hasMoved = true;
    if (this.#fingers.size === 2 && this.#pinch) {
      const { distance, scale } = this.#pinch;
      this.zoom.set((scale * this.#distance()) / Math.max(1, distance));
    } else if (this.zoom.on) {
      const side = this.pair.firstElementChild?.clientWidth ?? 1;
      this.zoom.pan((finger.at.x - before.x) / side, (finger.at.y - before.y) / side);
    } else if (this.#fingers.size === 1 && this.hasSides) this.#lean(dx);
  }

  /**
   * @param {PointerEvent} event
   * @param {boolean} whole false: the browser took the gesture over
   */
  #up(event, whole) {
    const finger = this.#fingers.get(event.pointerId);
    if (!finger) return;
    this.#fingers.delete(event.pointerId);
    this.#lean(0);
    if (this.#hasMoved) this.#endedAt = performance.now();
    const wasPinch = this.#pinch !== null;
    if (this.#fingers.size === 0) {
      this.#pinch = null;
      if (wasPinch && this.zoom.scale < LEAST_SCALE) this.zoom.off();
    }
    if (!whole || wasPinch || this.zoom.on || !this.hasSides) return;
    const { dx, dy } = path(finger);
    if (Math.abs(dx) >= SWIPE_PX && Math.abs(dx) > 1.5 * Math.abs(dy)) this.swiped(dx < 0 ? "left" : "right");
  }

  /** @param {MouseEvent} event */
  #click(event) {
    // Keys and assistive tools click too, but never right after a finger moved.
    if (performance.now() - this.#endedAt > AFTER_MS) return;
    event.stopPropagation();
    event.preventDefault();
  }

  /**
   * Show the side that a swipe is about to choose.
   *
   * @param {number} dx
   */
  #lean(dx) {
    const side = Math.abs(dx) < SWIPE_PX / 2 ? "" : dx < 0 ? "left" : "right";
    for (const frame of this.pair.children) {
      frame.classList.toggle("dl-leaning", frame instanceof HTMLElement && frame.dataset.choice === side);
    }
  }

  #distance() {
    const [a, b] = [...this.#fingers.values()].map(({ at }) => at);
    return Math.hypot(a.x - b.x, a.y - b.y);
  }
}
