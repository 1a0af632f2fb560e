// @ts-check
// Requests of a campaign beyond the votes. All of it is optional: a studio that knows nothing of it shows nothing.

import { api, ApiError, saveFile } from "../lib/api.js";
import { session } from "../lib/session.js";

/** @import { Operations } from "../lib/api-types.js" */
/** @import { Answer, Assignment, VotingOptions } from "../lib/types.js" */
/** @typedef {Operations["POST reports"]["body"]["reason"]} ReportReason */

export const QUESTIONS = ["overall", "appeal", "fit"];
/** @type {ReportReason[]} */
export const REASONS = ["unsafe", "broken", "other"];
export const MAX_TEXT = 500;

/**
 * @param {Pick<Assignment, "question" | "asks">} assignment
 * @returns {VotingOptions}
 */
export const votingOptions = ({ question, asks }) => ({
  question: QUESTIONS.includes(question) ? question : "overall",
  strength: asks?.includes("strength") ?? false,
  comment: asks?.includes("comment") ?? false,
});

/** The studio's record of this annotator, or null where it keeps none. */
export async function fetchMe() {
  try {
    return await api("GET session/me", { token: await session.token() });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return null;
  }
}

/**
 * The versions that learned from an annotator's votes.
 *
 * @param {Answer<"GET session/me"> | null} me
 */
export const trainedVersions = (me) => (me?.trained ?? []).map(({ version }) => version).filter((number) => number > 0);

export const fetchConsent = async () => api("GET consent", { token: await session.token() });

/** @param {string} sha256 of the text that is agreed to */
export const agree = async (sha256) => api("POST consent", { body: { sha256 }, token: await session.token() });

/**
 * @param {string} assignment
 * @param {ReportReason} reason
 * @param {string} text
 */
export async function sendReport(assignment, reason, text) {
  const body = { assignment, reason, ...(text && { text }) };
  return api("POST reports", { body, token: await session.token() });
}

/** Withdraw every vote of this annotator. */
export const withdrawAll = async () => api("POST votes/withdraw", { token: await session.token() });

/** All of this annotator's votes as a table, saved by the browser. */
export async function saveVotes() {
  const token = await session.token();
  const apology = "Your votes cannot be had right now.";
  await saveFile("GET votes/export", "my-votes.csv", { query: { format: "csv" }, token, apology });
}
