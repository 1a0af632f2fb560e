// @ts-check
// Dialogs of the page: the browser's own <dialog>, which keeps the focus inside, closes by Escape and gives it back.

import { h } from "./dom.js";
import { fillTexts } from "./lang.js";

/** @import { Child } from "./dom.js" */
/** @typedef {{ key: string, value: string, main?: boolean }} Action a button that closes the dialog */

let dialogCount = 0;

/** Whether any dialog is open: then keys belong to it. */
export const isDialogOpen = () => document.querySelector("dialog[open]") !== null;

/**
 * Open a dialog under `parent`; it is gone when it closes. Resolves to the value of the button that closed it, "" after
 * Escape.
 *
 * @param {HTMLElement} parent
 * @param {string} title a key of the texts
 * @param {Child} content
 * @param {Action[]} actions
 * @returns {Promise<string>}
 */
export function openDialog(parent, title, content, actions) {
  const id = `dd-title-${++dialogCount}`;
  const buttons = actions.map(({ key, value, main }) =>
    h("button", { type: "submit", value, class: `st-button${main ? " dd-main" : ""}`, "data-t": key }),
  );
  const dialog = h(
    "dialog",
    { class: "dd", "aria-labelledby": id },
    h(
      "form",
      { method: "dialog" },
      h("h2", { class: "dd-title", id, "data-t": title }),
      h("div", { class: "dd-body" }, content),
      h("div", { class: "dd-actions" }, buttons),
    ),
  );
  fillTexts(dialog);
  parent.append(dialog);
  return new Promise((resolve) => {
    const closed = () => {
      dialog.remove();
      resolve(dialog.returnValue);
    };
    // The browser says that a dialog closed only after it closed, and leaves the focus in it until then: a key pressed in
    // between would come before the answer or, in a field of the closed dialog, be lost.
    const close = (/** @type {string} */ value) => {
      // A field says that it changed when it loses the focus; not every browser has it say so when it is removed.
      if (document.activeElement instanceof HTMLElement && dialog.contains(document.activeElement)) {
        document.activeElement.blur();
      }
      dialog.close(value);
      closed();
    };
    dialog.addEventListener("submit", (event) => {
      event.preventDefault();
      close(event.submitter instanceof HTMLButtonElement ? event.submitter.value : "");
    });
    dialog.addEventListener("cancel", (event) => {
      if (event.target !== dialog) return; // a choice of files in it was called off
      event.preventDefault();
      close("");
    });
    // A click beside the dialog is one on its backdrop.
    dialog.addEventListener("click", (event) => event.target === dialog && close(""));
    dialog.addEventListener("close", closed);
    dialog.showModal();
  });
}
