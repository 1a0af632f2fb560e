// Why there is nothing to judge right now, in a sentence.

import { t } from "../lib/lang.js";
import { wordOf } from "./rank.js";
import { statusFeed } from "../lib/studio.js";

/** `trouble`: of the supply; `held`: answers that wait for a connection; `set`: whether sets are ranked here. */
export function whyWaiting({ trouble, held, bringing, judged, set }) {
  const { renderer, round } = statusFeed.last ?? {};
  if (trouble?.code === "consent_needed") return t("wait.consent");
  if (trouble?.code === "login_needed") return t("wait.login");
  if (held > 0) return t("wait.kept", { count: held });
  if (bringing) return t(wordOf(set, "wait.undoing"));
  if (trouble) return trouble.passing ? t("wait.again", { message: trouble.message }) : trouble.message;
  if (renderer?.phase === "failed") return t("wait.failed", { message: renderer.message });
  if (renderer?.phase === "starting" || renderer?.phase === "loading") return t("wait.warming");
  if (!judged) return t("wait.fetching");
  return t(wordOf(set, round ? "wait.round" : "wait.painted"));
}
