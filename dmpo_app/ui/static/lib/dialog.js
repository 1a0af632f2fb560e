// Dialogs of the page: the browser's own <dialog>, which keeps the focus inside, closes by Escape and gives it back.

import { fill } from "./lang.js";
import { h } from "./studio.js";

let numbers = 0;

/** Whether any dialog is open: then keys belong to it. */
export const dialogOpen = () => document.querySelector("dialog[open]") !== null;

/**
 * Open a dialog under `parent`; it is gone when it closes. `title`: a key of the words. `actions`: [{key, value, main}],
 * buttons that close it. Resolves to the value of the button that closed it, "" after Escape.
 */
export function ask(parent, title, content, actions) {
  const id = `dd-title-${++numbers}`;
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
  fill(dialog);
  parent.append(dialog);
  return new Promise((resolve) => {
    const closed = () => {
      dialog.remove();
      resolve(dialog.returnValue);
    };
    // The browser says that a dialog closed only after it closed: a key pressed in between would come before the answer.
    const close = (value) => {
      dialog.close(value);
      closed();
    };
    dialog.addEventListener("submit", (event) => {
      event.preventDefault();
      close(event.submitter?.value ?? "");
    });
    // A click beside the dialog is one on its backdrop.
    dialog.addEventListener("click", (event) => event.target === dialog && close(""));
    dialog.addEventListener("close", closed);
    dialog.showModal();
  });
}
