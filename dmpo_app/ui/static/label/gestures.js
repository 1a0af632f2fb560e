// Fingers on the pictures: a tap is a click, a swipe chooses a side, two fingers zoom, one moves what is zoomed.

const SWIPE_PX = 56;
const STILL_PX = 9;
const LEAST_SCALE = 1.15; // fingers that end closer to no zoom than this meant none
const AFTER_MS = 350; // a click that follows a gesture within this time was part of it

export class Gestures {
  /** `swiped(side)` is called with "left" or "right". */
  constructor(pair, zoom, swiped) {
    this.pair = pair;
    this.zoom = zoom;
    this.swiped = swiped;
    this.fingers = new Map();
    this.endedAt = -Infinity;
    this.sided = true; // whether a swipe chooses; pictures that are ranked are tapped
    pair.addEventListener("pointerdown", (event) => this.down(event));
    pair.addEventListener("pointermove", (event) => this.move(event));
    pair.addEventListener("pointerup", (event) => this.up(event, true));
    pair.addEventListener("pointercancel", (event) => this.up(event, false));
    pair.addEventListener("click", (event) => this.click(event), { capture: true });
    // Two fingers are ours: the browser would zoom the whole page.
    pair.addEventListener("touchmove", (event) => event.touches.length > 1 && event.preventDefault(), {
      passive: false,
    });
  }

  down(event) {
    if (event.pointerType === "mouse") return;
    const spot = { x: event.clientX, y: event.clientY };
    this.fingers.set(event.pointerId, { from: spot, at: spot });
    if (this.fingers.size === 1) this.moved = false;
    if (this.fingers.size === 2) this.startPinch(event);
  }

  startPinch(event) {
    this.moved = true;
    this.lean(0);
    this.pinch = { distance: this.distance(), scale: this.zoom.scale };
    const at = this.zoom.place(event);
    if (at && !this.zoom.on) this.zoom.set(1, ...at);
  }

  move(event) {
    const finger = this.fingers.get(event.pointerId);
    if (!finger) return;
    const before = finger.at;
    finger.at = { x: event.clientX, y: event.clientY };
    const [dx, dy] = [finger.at.x - finger.from.x, finger.at.y - finger.from.y];
    if (Math.hypot(dx, dy) > STILL_PX) this.moved = true;
    if (this.fingers.size === 2) {
      const { distance, scale } = this.pinch;
      this.zoom.set((scale * this.distance()) / Math.max(1, distance));
    } else if (this.zoom.on) {
      const side = this.pair.firstElementChild.clientWidth;
      this.zoom.pan((finger.at.x - before.x) / side, (finger.at.y - before.y) / side);
    } else if (this.fingers.size === 1 && this.sided) this.lean(dx);
  }

  up(event, whole) {
    const finger = this.fingers.get(event.pointerId);
    if (!finger) return;
    this.fingers.delete(event.pointerId);
    this.lean(0);
    if (this.moved) this.endedAt = performance.now();
    const pinched = this.pinch !== null && this.pinch !== undefined;
    if (this.fingers.size === 0) {
      this.pinch = null;
      if (pinched && this.zoom.scale < LEAST_SCALE) this.zoom.off();
    }
    const [dx, dy] = [finger.at.x - finger.from.x, finger.at.y - finger.from.y];
    if (!whole || pinched || this.zoom.on || !this.sided) return;
    if (Math.abs(dx) >= SWIPE_PX && Math.abs(dx) > 1.5 * Math.abs(dy)) this.swiped(dx < 0 ? "left" : "right");
  }

  click(event) {
    // Keys and assistive tools click too, but never right after a finger moved.
    if (performance.now() - this.endedAt > AFTER_MS) return;
    event.stopPropagation();
    event.preventDefault();
  }

  /** Show which side a swipe is about to choose. */
  lean(dx) {
    const side = Math.abs(dx) < SWIPE_PX / 2 ? "" : dx < 0 ? "left" : "right";
    for (const frame of this.pair.children) frame.classList.toggle("dl-leaning", frame.dataset.choice === side);
  }

  distance() {
    const [a, b] = [...this.fingers.values()].map((finger) => finger.at);
    return Math.hypot(a.x - b.x, a.y - b.y);
  }
}
