// @ts-check
// Building elements safely, and where keys and focus belong.

/**
 * @typedef {Node | string | number | false | null | undefined} Leaf
 * @typedef {Leaf | ReadonlyArray<Leaf | ReadonlyArray<Leaf>>} Child
 * @typedef {{
 *   onclick?: (event: PointerEvent) => unknown,
 *   onmousedown?: (event: MouseEvent) => unknown,
 *   onpointerdown?: (event: PointerEvent) => unknown,
 *   onsubmit?: (event: SubmitEvent) => unknown,
 *   oninput?: (event: Event) => unknown,
 *   onchange?: (event: Event) => unknown,
 * }} Listeners
 * @typedef {Listeners & { [name: string]: string | number | boolean | null | undefined | ((event: any) => unknown) }} Attributes
 */

/**
 * Build an element. Text is always text: strings become text nodes, never markup.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} attributes `onclick` and the like are listened to; null, undefined and false are left out
 * @param {Child[]} children null, undefined and false are left out
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), /** @type {(event: Event) => unknown} */ (value));
    } else element.setAttribute(name, value === true ? "" : String(value));
  }
  const leaves = /** @type {Leaf[]} */ (children.flat(2));
  for (const leaf of leaves) {
    if (leaf !== null && leaf !== undefined && leaf !== false) {
      element.append(typeof leaf === "number" ? String(leaf) : leaf);
    }
  }
  return element;
}

/**
 * The one element under `root` that a selector names; it has to be there.
 *
 * @template {HTMLElement} [Kind=HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {Kind}
 */
export function find(root, selector) {
  const element = root.querySelector(selector);
  if (!element) throw new Error(`There is no ${selector} here.`);
  return /** @type {Kind} */ (element);
}

/**
 * Whether an element is on the tab that is open.
 *
 * @param {Element} element
 */
export const isShown = (element) => element.isConnected && element.getClientRects().length > 0;

/**
 * Whether keys go to something that takes them: a field, a slider.
 *
 * @param {EventTarget | null} target
 */
export function takesKeys(target) {
  return (
    target instanceof Element && target.closest("input, textarea, select, [contenteditable], [role=slider]") !== null
  );
}

/**
 * Press a button of the page, for example one of Gradio's, where there is such a button.
 *
 * @param {string} selector
 */
export function press(selector) {
  const button = document.querySelector(selector);
  if (button instanceof HTMLElement) button.click();
}

/**
 * Open one of the page's tabs by its name.
 *
 * @param {string} name
 */
export function openTab(name) {
  // Where the window is narrow, Gradio moves tabs into a menu.
  for (const tab of document.querySelectorAll("button[role=tab], .overflow-dropdown button")) {
    if (tab instanceof HTMLElement && tab.textContent?.trim() === name) {
      tab.click();
      return;
    }
  }
}
