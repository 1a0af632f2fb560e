// The keyboard: the command of every key in every state.

import assert from "node:assert/strict";
import { test } from "node:test";
import { choicesFor, imageOfKey, keyCommand } from "../../dmpo_app/ui/static/label/keys.js";

const PAIR = { size: 2, isAskingStrength: false, isZoomed: false };
const SET = { ...PAIR, size: 3 };
const press = (key, code = "", more = {}) => ({ key, code, shiftKey: false, repeat: false, ...more });
const command = (event, context = PAIR) => keyCommand(event, context);
const choose = (choice, strength = "clearly") => ({ name: "choose", choice, strength });

test("every choice has its keys, by sign or by place on the keyboard", () => {
  /** @type {Array<[any, string]>} */
  const rows = [
    [press("1", "Digit1"), "left"],
    [press("&", "Digit1"), "left"], // a French keyboard
    [press("1", "Numpad1"), "left"],
    [press("ArrowLeft"), "left"],
    [press("2", "Digit2"), "right"],
    [press("ArrowRight"), "right"],
    [press("t"), "tie"],
    [press("T"), "tie"],
    [press("b"), "both_bad"],
    [press("s"), "skip"],
  ];
  for (const [event, choice] of rows) {
    assert.deepEqual(command(event), choose(choice), event.key + event.code);
  }
});

test("Shift means slightly better", () => {
  assert.deepEqual(command(press("!", "Digit1", { shiftKey: true })), choose("left", "slightly"));
  assert.deepEqual(command(press("ArrowRight", "", { shiftKey: true })), choose("right", "slightly"));
});

test("the numbers pick images of a set, and only all-bad and skip are left of the choices", () => {
  for (const number of [1, 2, 3]) {
    assert.deepEqual(command(press(String(number), `Digit${number}`), SET), { name: "pick", index: number - 1 });
  }
  assert.equal(command(press("4", "Digit4"), SET), null);
  assert.deepEqual(command(press("4", "Digit4"), { ...SET, size: 4 }), { name: "pick", index: 3 });
  assert.deepEqual(command(press("b"), SET), choose("both_bad"));
  for (const key of ["t", "ArrowLeft", "ArrowRight"]) assert.equal(command(press(key), SET), null, key);
  assert.deepEqual(
    choicesFor(true).map(({ choice }) => choice),
    ["both_bad", "skip"],
  );
});

test("an image is told by its number, also where the layout has it behind Shift", () => {
  assert.equal(imageOfKey(press("é", "Digit2"), 3), 1);
  assert.equal(imageOfKey(press("3", ""), 3), 2);
  for (const event of [press("4", "Digit4"), press("0", "Digit0"), press("x"), press("F1"), press("12")]) {
    assert.equal(imageOfKey(event, 3), -1, event.key);
  }
});

test("the arrows with Shift pan a zoomed image, and choose where nothing is zoomed", () => {
  const shifted = press("ArrowLeft", "", { shiftKey: true });
  assert.deepEqual(command(shifted, { ...PAIR, isZoomed: true }), { name: "pan", dx: 0.2, dy: 0 });
  const down = press("ArrowDown", "", { shiftKey: true });
  assert.deepEqual(command(down, { ...PAIR, isZoomed: true }), { name: "pan", dx: 0, dy: -0.2 });
  assert.deepEqual(command(press("ArrowLeft"), { ...PAIR, isZoomed: true }), choose("left"));
  assert.equal(command(down), null);
});

test("Escape leaves the question of strength, then the zoom, and is the browser's otherwise", () => {
  const escape = press("Escape");
  assert.deepEqual(command(escape, { ...PAIR, isAskingStrength: true, isZoomed: true }), { name: "cancel-strength" });
  assert.deepEqual(command(escape, { ...PAIR, isZoomed: true }), { name: "zoom-off" });
  assert.equal(command(escape), null);
});

test("space zooms while there is something to see, held down too; no other key repeats", () => {
  const repeated = { repeat: true };
  assert.deepEqual(command(press(" ", "Space", repeated)), { name: "press-zoom" });
  assert.equal(command(press(" ", "Space"), { ...PAIR, size: 0 }), null);
  for (const key of ["1", "z", "t", "?"]) assert.equal(command(press(key, "", repeated)), null, key);
});

test("undo, the list of keys, and keys that mean nothing", () => {
  assert.deepEqual(command(press("Z")), { name: "undo" });
  assert.deepEqual(command(press("?", "", { shiftKey: true })), { name: "help" });
  for (const key of ["q", "Enter", "Tab", "F5", "9"]) assert.equal(command(press(key)), null, key);
});
