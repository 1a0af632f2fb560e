// The keyboard on the label widget: which key does what, and when keys are somebody else's.

import { dialogOpen } from "../lib/dialog.js";
import { answersTo } from "./view.js";
import { isSet, pictureOfKey } from "./rank.js";
import { isShown, takesKeys } from "../lib/studio.js";

const PRESSED_BY_SPACE = "button:not([role=tab][aria-selected=true]), a, summary"; // what has the focus comes first
const PANS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const PAN_STEP = 0.2;

/** A key went down. `widget`: the element, with `current`, `chosen`, `zoom` and what the keys do. */
export function keyDown(widget, event) {
  if (!isShown(widget) || dialogOpen() || event.ctrlKey || event.metaKey || event.altKey || takesKeys(event.target))
    return;
  const { current, zoom } = widget;
  const key = event.key.toLowerCase();
  const set = isSet(current);
  const picture = set ? pictureOfKey(event, current.images.length) : -1;
  const answer = answersTo(set).find(
    (candidate) => candidate.keys.includes(key) || candidate.code.includes(event.code),
  );
  if (key === " ") {
    if (event.target.closest?.(PRESSED_BY_SPACE) || current === null) return;
    zoom.press();
  } else if (event.repeat) return;
  else if (zoom.on && event.shiftKey && event.key in PANS) zoom.pan(...PANS[event.key].map((way) => way * PAN_STEP));
  else if (key === "z") widget.undo();
  else if (key === "?") widget.showKeys();
  else if (key === "escape" && widget.chosen) widget.strengthChosen(null);
  else if (key === "escape" && zoom.on) zoom.off();
  else if (picture >= 0) widget.pick(picture, "key");
  else if (answer) widget.vote(answer.choice, "key", event.shiftKey ? "slightly" : "clearly");
  else return;
  event.preventDefault();
}

export function keyUp(widget, event) {
  if (event.key === " ") widget.zoom.release();
}
