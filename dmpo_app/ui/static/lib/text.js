// @ts-check
// Numbers in English words.

/** @param {number} version */
export const versionName = (version) => (version === 0 ? "Base model" : `Version ${version}`);

/**
 * "1 vote", "2 votes".
 *
 * @param {number} count
 * @param {string} one
 * @param {string} many
 */
export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** @param {number} share from 0 to 1 */
export const percent = (share) => `${Math.round(100 * share)} %`;

/**
 * Seconds in words: "8 s", "2 min".
 *
 * @param {number | null | undefined} seconds
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  return seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
}
