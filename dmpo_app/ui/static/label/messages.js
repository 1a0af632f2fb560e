// @ts-check
// Sentences about the state of voting: reasons for waiting, votes that are kept for later, refusals.

import { t, words } from "../lib/lang.js";
import { textKey } from "./rank.js";

/** @import { ApiError } from "../lib/api.js" */
/** @import { AssignmentKind, NoDuels, Status } from "../lib/types.js" */
/** @import { Refusal } from "./outbox.js" */

/**
 * @typedef {object} Waiting
 * @property {ApiError | null} trouble the reason why no pairs can be had
 * @property {number} unsent votes that wait for a connection
 * @property {boolean} isUndoing whether a pair is being brought back
 * @property {boolean} hasVoted
 * @property {boolean} set whether sets are ranked here
 * @property {AssignmentKind} [kind] what was asked for
 * @property {NoDuels | null} [noDuels] the reason why there are no duels
 * @property {Status | null} status
 */

/** The codes of refusals that somebody can do something about. @type {Record<string, string>} */
const NEEDS = { consent_needed: "wait.consent", login_needed: "wait.login" };
/** @type {Record<number, string>} */
const SAVING_TROUBLES = { 0: "why.offline", 429: "why.fast" };
/** @type {Record<number, string>} */
const REFUSALS = { 401: "toast.session", 409: "toast.answered", 410: "toast.expired" };

/**
 * The reason why there is nothing to vote on right now.
 *
 * @param {Waiting} waiting
 */
export function waitingText({ trouble, unsent, isUndoing, hasVoted, set, status, kind = "label", noDuels = null }) {
  const need = NEEDS[trouble?.code ?? ""];
  if (need) return t(need);
  if (unsent > 0) return t("wait.kept", { count: unsent });
  if (isUndoing) return t(textKey(set, "wait.undoing"));
  if (trouble) return trouble.isRetryable ? t("wait.again", { message: trouble.message }) : trouble.message;
  if (noDuels === "no_version") return t("wait.no_version");
  return rendererText(status) ?? (kind === "duels" ? noDuelsText(noDuels) : noPairsText(hasVoted, set, status));
}

/** @param {Status | null} status */
function rendererText(status) {
  const renderer = status?.renderer;
  if (renderer?.phase === "failed") return t("wait.failed", { message: renderer.message });
  return renderer?.phase === "starting" || renderer?.phase === "loading" ? t("wait.warming") : null;
}

/** @param {NoDuels | null} noDuels */
function noDuelsText(noDuels) {
  if (noDuels === null) return t("wait.fetching");
  return t(noDuels === "making" ? "wait.duels_making" : "wait.duels_judged");
}

/**
 * @param {boolean} hasVoted
 * @param {boolean} set
 * @param {Status | null} status
 */
function noPairsText(hasVoted, set, status) {
  if (!hasVoted) return t("wait.fetching");
  return t(textKey(set, status?.round ? "wait.round" : "wait.painted"));
}

/**
 * The line about votes that are not sent yet, "" for none.
 *
 * @param {ApiError | null} trouble
 * @param {number} unsent
 */
export function savingText(trouble, unsent) {
  if (trouble && unsent > 0) {
    return `${t(SAVING_TROUBLES[trouble.status] ?? "why.busy")} – ${t("kept", { count: unsent })}`;
  }
  return unsent > 3 ? t("saving") : "";
}

/**
 * @param {Pick<Refusal, "kind">} refusal
 * @param {number} status of the studio's answer
 */
export function refusalText({ kind }, status) {
  if (kind === "undo" && status !== 401) return t("toast.no_undo");
  return t(REFUSALS[status] ?? "toast.unknown");
}

/** @param {number} seconds */
export const paceText = (seconds) => t("pace", { seconds: words.number(seconds, 1) });
