// A magnifier over both pictures at once: the same part of each, so that details can be compared.

const FIRST_SCALE = 2.5;
const MAX_SCALE = 8;
const HOLD_MS = 300; // a key held longer than this zooms only while it is held

const between = (low, value, high) => Math.min(high, Math.max(low, value));

export class Zoom {
  /** `pair`: the element that holds both frames; `changed(on)` is called when the zoom goes on or off. */
  constructor(pair, changed) {
    this.pair = pair;
    this.changed = changed;
    this.scale = 1;
    this.x = this.y = 0.5; // the point of the picture that stays where it is, as shares of its sides
    this.pressedAt = null;
    pair.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.look(event));
    pair.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
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

  /** The key went down or up: held, it zooms until it is let go; tapped, until it is tapped again. */
  press() {
    if (this.pressedAt !== null) return;
    this.pressedAt = performance.now();
    this.stays = this.on;
    if (!this.on) this.set(FIRST_SCALE);
  }

  release() {
    if (this.pressedAt === null) return;
    const held = performance.now() - this.pressedAt > HOLD_MS;
    this.pressedAt = null;
    if (held || this.stays) this.off();
  }

  /** Another pair is shown: a zoom that is not held ends. */
  nextPair() {
    if (this.pressedAt === null) this.off();
  }

  set(scale, x = this.x, y = this.y) {
    const was = this.on;
    this.scale = between(1, scale, MAX_SCALE);
    this.x = between(0, x, 1);
    this.y = between(0, y, 1);
    this.pair.style.setProperty("--zoom", String(this.scale));
    this.pair.style.setProperty("--zoom-x", `${100 * this.x}%`);
    this.pair.style.setProperty("--zoom-y", `${100 * this.y}%`);
    this.pair.classList.toggle("dl-zoomed", this.on);
    if (was !== this.on) this.changed(this.on);
  }

  /** Move what is seen by shares of a frame's sides, as it stands on the screen. */
  pan(dx, dy) {
    if (this.on) this.set(this.scale, this.x - dx / (this.scale - 1), this.y - dy / (this.scale - 1));
  }

  look(event) {
    const at = this.place(event);
    if (at) this.set(this.scale, ...at);
  }

  wheel(event) {
    if (!this.on) return;
    event.preventDefault();
    this.set(Math.max(1.2, this.scale * Math.exp(-event.deltaY / 400)));
  }

  /** Where an event is in the frame under it, as shares of its sides, or null. */
  place(event) {
    const box = event.target.closest?.(".dl-frame")?.getBoundingClientRect();
    return box ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : null;
  }
}
