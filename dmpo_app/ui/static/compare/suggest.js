// <dmpo-suggest>: prompts of the set while one types into the Before / after tab's prompt field, which is Gradio's.
// <dmpo-propose>: adds what stands there to the prompts that people vote on, where the campaign allows it.

import { api, ApiError, h, session } from "../lib/studio.js";

const FIELD = "#ba-prompt textarea";
const PAUSE_MS = 180;

class DmpoSuggest extends HTMLElement {
  connectedCallback() {
    this.list = h("ul", { class: "sg-list", id: "sg-list", role: "listbox", "aria-label": "Prompts of the set" });
    this.list.hidden = true;
    this.heard = h("p", { class: "sg-heard", role: "status", "aria-live": "polite" });
    this.replaceChildren(this.heard);
    document.body.append(this.list); // above whatever clips the form
    this.active = -1;
    this.asked = 0;
    const ofField = (work) => (event) => event.target instanceof Element && event.target.matches(FIELD) && work(event);
    this.listeners = [
      [document, "focusin", ofField((event) => this.focused(event.target))],
      [document, "focusout", ofField(() => this.close())],
      [document, "input", ofField((event) => !this.choosing && this.soon(event.target))],
      [document, "keydown", ofField((event) => this.key(event)), true],
      [window, "resize", () => this.close()],
    ];
    for (const [target, name, listener, capture] of this.listeners) target.addEventListener(name, listener, capture);
  }

  disconnectedCallback() {
    for (const [target, name, listener, capture] of this.listeners ?? [])
      target.removeEventListener(name, listener, capture);
    clearTimeout(this.timer);
    this.list?.remove();
  }

  focused(field) {
    field.setAttribute("aria-autocomplete", "list");
    field.setAttribute("aria-controls", "sg-list");
    if (field.value.trim() === "") this.soon(field);
  }

  soon(field) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(field), PAUSE_MS);
  }

  async ask(field) {
    const asked = ++this.asked;
    const like = field.value.trim().slice(0, 200);
    try {
      const answer = await api("GET", `prompts/suggestions?${new URLSearchParams({ like })}`);
      if (asked === this.asked && document.activeElement === field)
        this.show(
          field,
          answer.suggestions.filter((found) => found.text !== like),
        );
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.close(); // a prompt can be typed without them
    }
  }

  show(field, suggestions) {
    this.field = field;
    this.active = -1;
    const items = suggestions.map((found, index) =>
      h(
        "li",
        {
          class: "sg-item",
          id: `sg-${index}`,
          role: "option",
          "aria-selected": "false",
          onpointerdown: (event) => this.pressed(event, found.text),
        },
        h("span", {}, found.text),
        found.held_out && h("small", {}, "never trained on"),
      ),
    );
    this.texts = suggestions.map((found) => found.text);
    this.list.replaceChildren(...items);
    this.list.hidden = items.length === 0;
    field.removeAttribute("aria-activedescendant");
    this.heard.textContent = items.length === 0 ? "" : `${items.length} prompts of the set; arrow down chooses`;
    const box = field.getBoundingClientRect();
    Object.assign(this.list.style, {
      left: `${box.left + scrollX}px`,
      top: `${box.bottom + scrollY + 4}px`,
      width: `${box.width}px`,
    });
  }

  key(event) {
    if (this.list.hidden || event.ctrlKey || event.metaKey || event.isComposing) return;
    const count = this.texts.length;
    if (event.key === "ArrowDown") this.choose((this.active + 1) % count);
    else if (event.key === "ArrowUp" && this.active >= 0) this.choose(this.active - 1);
    else if (event.key === "Enter" && this.active >= 0) this.take(this.texts[this.active]);
    else if (event.key === "Escape") this.close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  choose(index) {
    this.active = index;
    [...this.list.children].forEach((item, at) => item.setAttribute("aria-selected", String(at === index)));
    if (index < 0) this.field.removeAttribute("aria-activedescendant");
    else {
      this.field.setAttribute("aria-activedescendant", `sg-${index}`);
      this.list.children[index].scrollIntoView({ block: "nearest" });
    }
  }

  pressed(event, text) {
    event.preventDefault(); // the field keeps the focus
    this.take(text);
  }

  take(text) {
    this.close();
    this.choosing = true;
    this.field.value = text;
    this.field.dispatchEvent(new Event("input", { bubbles: true })); // Gradio listens to this
    this.choosing = false;
  }

  close() {
    clearTimeout(this.timer);
    this.asked += 1;
    this.list.hidden = true;
    this.heard.textContent = "";
    this.field?.removeAttribute("aria-activedescendant");
  }
}

class DmpoPropose extends HTMLElement {
  connectedCallback() {
    this.button = h(
      "button",
      { type: "button", class: "st-button", onclick: () => this.propose() },
      "Add to the prompts people vote on",
    );
    this.message = h("p", { class: "pm-message", role: "status", "aria-live": "polite" });
    this.replaceChildren(this.button, this.message);
  }

  async propose() {
    const text = document.querySelector(FIELD)?.value ?? "";
    this.button.disabled = true;
    try {
      const answer = await this.send({ text });
      this.say(
        answer.created ? "Added. Its pairs come up for voting soon. Thank you!" : "The campaign has it already.",
      );
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.say(error.message, true);
    } finally {
      this.button.disabled = false;
    }
  }

  /** As the annotator of this browser; a session that the studio does not know any more is replaced once. */
  async send(body) {
    const token = await session.token();
    try {
      return await api("POST", "prompts", { body, token });
    } catch (error) {
      if (error.status !== 401) throw error;
      session.forget(token);
      return api("POST", "prompts", { body, token: await session.token() });
    }
  }

  say(text, bad = false) {
    this.message.textContent = text;
    this.message.classList.toggle("pm-bad", bad);
  }
}

customElements.define("dmpo-suggest", DmpoSuggest);
customElements.define("dmpo-propose", DmpoPropose);
