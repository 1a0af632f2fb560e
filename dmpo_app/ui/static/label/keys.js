// @ts-check
// The choices there are and the keyboard: the command that a key stands for in a state of voting.

/** @import { Choice, Side, Strength } from "../lib/types.js" */

/**
 * @typedef {object} ChoiceKeys
 * @property {Choice} choice
 * @property {string[]} keys as the layout has them
 * @property {string[]} codes also where a layout has another sign on that key
 * @property {string} hint
 * @property {string[]} shown in the list of keys
 * @property {boolean} [main]
 *
 * @typedef {Pick<KeyboardEvent, "key" | "code" | "shiftKey" | "repeat">} Key
 *
 * @typedef {object} KeyContext
 * @property {number} size how many images there are to choose from or to rank; 0: none
 * @property {boolean} isAskingStrength
 * @property {boolean} isZoomed
 *
 * @typedef {{ name: "press-zoom" | "undo" | "help" | "cancel-strength" | "zoom-off" }
 *   | { name: "pan", dx: number, dy: number }
 *   | { name: "pick", index: number }
 *   | { name: "choose", choice: Choice, strength: Strength }} Command
 */

/** @type {ChoiceKeys[]} */
export const CHOICES = [
  {
    choice: "left",
    keys: ["1", "arrowleft"],
    codes: ["Digit1", "Numpad1"],
    hint: "1",
    shown: ["1", "←"],
    main: true,
  },
  { choice: "tie", keys: ["t"], codes: [], hint: "T", shown: ["T"] },
  { choice: "both_bad", keys: ["b"], codes: [], hint: "B", shown: ["B"] },
  { choice: "skip", keys: ["s"], codes: [], hint: "S", shown: ["S"] },
  {
    choice: "right",
    keys: ["2", "arrowright"],
    codes: ["Digit2", "Numpad2"],
    hint: "2",
    shown: ["2", "→"],
    main: true,
  },
];

/** @type {[Side, Side]} */
export const SIDES = ["left", "right"];
const SET_CHOICES = ["both_bad", "skip"];
const PAN_STEP = 0.2;
/** @type {Record<string, [dx: number, dy: number]>} */
const PANS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
/** @type {Record<string, Command>} */
const PLAIN = { z: { name: "undo" }, "?": { name: "help" } };

/**
 * The choices beside choosing an image, for a pair or for a set that is ranked.
 *
 * @param {boolean} set
 */
export const choicesFor = (set) => CHOICES.filter(({ choice }) => !set || SET_CHOICES.includes(choice));

/**
 * The image, from 0, that a key stands for; -1: none. The numbers also where a layout has them behind Shift.
 *
 * @param {Pick<KeyboardEvent, "key" | "code">} key
 * @param {number} size
 */
export function imageOfKey({ key, code }, size) {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(code)?.[1] ?? (key.length === 1 ? key : NaN);
  const number = Number(digit);
  return number >= 1 && number <= size ? number - 1 : -1;
}

/**
 * The command that a key stands for; null: none, and the browser may have it.
 *
 * @param {Key} event
 * @param {KeyContext} context
 * @returns {Command | null}
 */
export function keyCommand(event, { size, isAskingStrength, isZoomed }) {
  if (event.key === " ") return size > 0 ? { name: "press-zoom" } : null;
  if (event.repeat) return null;
  if (isZoomed && event.shiftKey && event.key in PANS) {
    const [dx, dy] = PANS[event.key].map((way) => way * PAN_STEP);
    return { name: "pan", dx, dy };
  }
  const key = event.key.toLowerCase();
  if (key === "escape") return isAskingStrength ? { name: "cancel-strength" } : isZoomed ? { name: "zoom-off" } : null;
  return PLAIN[key] ?? choiceCommand(event, key, size);
}

/**
 * @param {Key} event
 * @param {string} key
 * @param {number} size
 * @returns {Command | null}
 */
function choiceCommand(event, key, size) {
  const isRanked = size > 2;
  const index = isRanked ? imageOfKey(event, size) : -1;
  if (index >= 0) return { name: "pick", index };
  const row = choicesFor(isRanked).find(({ keys, codes }) => keys.includes(key) || codes.includes(event.code));
  return row ? { name: "choose", choice: row.choice, strength: event.shiftKey ? "slightly" : "clearly" } : null;
}
