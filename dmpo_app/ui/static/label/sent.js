// What becomes of answers after they were shown as taken: they are saved, kept for later, or refused.

import { t } from "../lib/lang.js";
import { session, statusFeed } from "../lib/studio.js";

export class Sent {
  /** `widget`: the element, with `view`, `asides`, `supply`, `giveUp(id)`, `startAnew()`. `on(target, name, listener)` listens. */
  constructor(widget, outbox, past, on) {
    this.widget = widget;
    this.outbox = outbox;
    this.past = past;
    on(outbox, "refused", (event) => this.refused(event.detail));
    on(outbox, "taken", (event) => this.settled(event.detail));
    on(outbox, "undone", (event) => this.settled(event.detail));
    on(outbox, "change", () => this.show());
  }

  show() {
    const { view, asides } = this.widget;
    const { trouble, ops } = this.outbox;
    const waiting = ops.length;
    asides.failed(trouble);
    const why = { 0: "why.offline", 429: "why.fast" }[trouble?.status] ?? "why.busy";
    if (trouble && waiting > 0) view.showSaving(`${t(why)} – ${t("kept", { count: waiting })}`, true);
    else view.showSaving(waiting > 3 ? t("saving") : "", false);
    view.card.update(statusFeed.last, this.outbox.pendingPreferences);
  }

  /** A vote or an undoing was acknowledged: count with the answer rather than wait for the next poll. */
  settled({ kind, assignment, answer }) {
    if (kind === "vote") this.past.taken(assignment, answer.vote);
    else this.widget.supply.reopened(assignment);
    const status = statusFeed.last;
    if (!status) return;
    status.votes_until_round = answer.votes_until_round;
    status.votes += kind === "vote" ? 1 : -1;
  }

  /** The studio said no to something that was shown as taken. */
  refused({ kind, token, assignment, error }) {
    if (kind === "undo") this.widget.giveUp(assignment);
    if (error.status === 401) {
      session.forget(token);
      this.widget.startAnew();
    }
    const why = { 401: "session", 410: "expired", 409: "answered" }[error.status] ?? "unknown";
    this.widget.view.toast(t(kind === "undo" && error.status !== 401 ? "toast.no_undo" : `toast.${why}`));
  }
}
