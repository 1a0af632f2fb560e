// What a campaign may ask for beyond a choice. All of it is optional: a studio that knows nothing of it shows nothing.

import { api, ApiError, saveFile, session } from "../lib/studio.js";

export const QUESTIONS = ["overall", "appeal", "fit"];
export const REASONS = ["unsafe", "broken", "other"];
export const MAX_TEXT = 500;

/** What an assignment asks for: {question, strength, comment}. */
export const asked = (item) => ({
  question: QUESTIONS.includes(item.question) ? item.question : "overall",
  strength: item.asks?.includes("strength") ?? false,
  comment: item.asks?.includes("comment") ?? false,
});

async function call(method, path, body) {
  return api(method, path, { body, token: await session.token() });
}

/** What the studio knows of this annotator, or null where it cannot say. */
export async function me() {
  try {
    return await call("GET", "session/me");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return null;
  }
}

/** The versions that learned from this annotator's votes, as `me()` has them. */
export const trainedVersions = (known) =>
  (known?.trained ?? []).map((one) => one.version).filter((version) => version > 0);

/** What there is to agree to: {text, sha256, …}. */
export const consentText = () => call("GET", "consent");

export const agree = ({ sha256 }) => call("POST", "consent", { sha256 });

export const report = (assignment, reason, text) =>
  call("POST", "reports", { assignment, reason, ...(text && { text }) });

/** Withdraw every vote of this annotator: {withdrawn}. */
export const withdrawAll = () => call("POST", "votes/withdraw");

/** All of this annotator's votes as a table, saved by the browser. */
export async function saveVotes() {
  const token = await session.token();
  await saveFile("api/v1/votes/export?format=csv", "my-votes.csv", token, "Your votes cannot be had right now.");
}
