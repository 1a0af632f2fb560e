// @ts-check
// A magnifier over all images at once: the same part of each, so that details can be compared.

const FIRST_SCALE = 2.5;
const MAX_SCALE = 8;
const HOLD_MS = 300; // a key held longer than this zooms only while it is held

/**
 * @param {number} low
 * @param {number} value
 * @param {number} high
 */
const between = (low, value, high) => Math.min(high, Math.max(low, value));

export class Zoom {
  scale = 1;
  // The point of the image that stays where it is, as shares of its sides.
  #x = 0.5;
  #y = 0.5;
  /** @type {number | null} */
  #pressedAt = null;
  #wasOn = false;

  /**
   * @param {HTMLElement} pair the element that holds the frames
   * @param {(on: boolean) => void} changed called when the zoom goes on or off
   */
  constructor(pair, changed) {
    this.pair = pair;
    this.changed = changed;
    pair.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.#follow(event));
    pair.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  get on() {
    return this.scale > 1;
  }

  toggle() {
    this.set(this.on ? 1 : FIRST_SCALE);
  }

  off() {
    this.set(1);
  }

  /** The key went down: held, it zooms until it is let go; tapped, until it is tapped again. */
  press() {
    if (this.#pressedAt !== null) return;
    this.#pressedAt = performance.now();
    this.#wasOn = this.on;
    if (!this.on) this.set(FIRST_SCALE);
  }

  release() {
    if (this.#pressedAt === null) return;
    const held = performance.now() - this.#pressedAt > HOLD_MS;
    this.#pressedAt = null;
    if (held || this.#wasOn) this.off();
  }

  /** Another pair is shown: a zoom that is not held ends. */
  nextPair() {
    if (this.#pressedAt === null) this.off();
  }

  /**
   * @param {number} scale
   * @param {number} x
   * @param {number} y
   */
  set(scale, x = this.#x, y = this.#y) {
    const wasOn = this.on;
    this.scale = between(1, scale, MAX_SCALE);
    this.#x = between(0, x, 1);
    this.#y = between(0, y, 1);
    this.pair.style.setProperty("--zoom", String(this.scale));
    this.pair.style.setProperty("--zoom-x", `${100 * this.#x}%`);
    this.pair.style.setProperty("--zoom-y", `${100 * this.#y}%`);
    this.pair.classList.toggle("dl-zoomed", this.on);
    if (wasOn !== this.on) this.changed(this.on);
  }

  /**
   * Move the zoomed part by shares of a frame's sides, as it stands on the screen.
   *
   * @param {number} dx
   * @param {number} dy
   */
  pan(dx, dy) {
    if (this.on) this.set(this.scale, this.#x - dx / (this.scale - 1), this.#y - dy / (this.scale - 1));
  }

  /** @param {PointerEvent} event */
  #follow(event) {
    const place = this.place(event);
    if (place) this.set(this.scale, ...place);
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    if (!this.on) return;
    event.preventDefault();
    this.set(Math.max(1.2, this.scale * Math.exp(-event.deltaY / 400)));
  }

  /**
   * The place of an event in the frame under it, as shares of its sides, or null.
   *
   * @param {PointerEvent} event
   * @returns {[x: number, y: number] | null}
   */
  place(event) {
    const frame = event.target instanceof Element ? event.target.closest(".dl-frame") : null;
    const box = frame?.getBoundingClientRect();
    return box ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : null;
  }
}
