// @ts-check
// Panels beside the voting: news of versions, the person's settings, comments, reports, consent, signing in.

import { ApiError } from "../lib/api.js";
import { isDialogOpen } from "../lib/dialog.js";
import { openTab } from "../lib/dom.js";
import { t } from "../lib/lang.js";
import { loginOffer, signIn, signOut } from "../lib/login.js";
import { session } from "../lib/session.js";
import { versions } from "../lib/status.js";
import { agree, fetchConsent, fetchMe, saveVotes, sendReport, trainedVersions, withdrawAll } from "./campaign.js";
import { askComment, askConsent, askReport, askWithdrawal, openPersonalSettings } from "./dialogs.js";
import { paceText } from "./messages.js";
import { isSet, textKey } from "./rank.js";

/** @import { Answer } from "../lib/types.js" */
/** @import { LoginOffer } from "./dialogs.js" */
/** @import { SessionStats } from "./session-stats.js" */
/** @import { LabelView } from "./view.js" */
/** @import { VotingSession } from "./voting-session.js" */

export class SidePanels {
  /** The studio's record of this person; null: it keeps none; undefined: not asked yet. @type {Answer<"GET session/me"> | null | undefined} */
  #me = undefined;
  #isAskingConsent = false;

  /**
   * @param {HTMLElement} root the element that dialogs are opened under
   * @param {LabelView} view
   * @param {VotingSession} voting
   * @param {SessionStats} stats
   */
  constructor(root, view, voting, stats) {
    this.root = root;
    this.view = view;
    this.voting = voting;
    this.stats = stats;
    voting.addEventListener("restart", () => this.#forget());
  }

  /** Another person from now on. */
  #forget() {
    this.#me = undefined;
    this.#isAskingConsent = false;
    this.view.consentButton.hidden = true;
    this.view.loginButton.hidden = true;
  }

  /** A pair is there: time to ask, once, whether the studio keeps a record of this person. */
  async pairShown() {
    if (this.#me !== undefined) return;
    this.#me = null;
    this.#me = await fetchMe();
    this.view.reportButton.hidden = this.#me === null;
  }

  /**
   * The studio refused something. Asks for consent, once, or offers to sign in, if that is why.
   *
   * @param {ApiError | null} error
   */
  refused(error) {
    if (error?.code === "login_needed") this.view.loginButton.hidden = false;
    if (error?.code !== "consent_needed" || this.#isAskingConsent) return;
    this.#isAskingConsent = true;
    this.consent();
  }

  async consent() {
    this.view.consentButton.hidden = false;
    if (!(await this.#attempt(() => this.#askConsent()))) return;
    this.#isAskingConsent = false;
    this.view.consentButton.hidden = true;
    this.voting.resume();
  }

  /** Whether consent is given, or is not needed any more. */
  async #askConsent() {
    const { text, sha256 } = await fetchConsent();
    if (text === null || sha256 === null) return true;
    if (isDialogOpen() || !(await askConsent(this.root, text))) return false;
    await agree(sha256);
    return true;
  }

  /**
   * Another version went live.
   *
   * @param {number} version
   */
  async announce(version) {
    if (version === 0) {
      this.view.toast(t("toast.base"));
      return;
    }
    const news = await newsAbout(version);
    const own = await this.#ownVersions();
    const text = own.includes(version) ? `${news} ${trainedText(own)}` : news;
    this.view.toast(text, { text: t("toast.see"), act: () => openTab("Before / after") });
  }

  /** The versions that learned from this person's votes; [] where the studio cannot say. */
  async #ownVersions() {
    return this.#me ? trainedVersions(await fetchMe()) : [];
  }

  /** Called while a click is handled: a window opens. */
  async signIn() {
    if (!(await this.#attempt(() => signIn(this.root)))) return;
    this.voting.restart();
    this.view.toast(t("login.done"));
  }

  #signOut() {
    signOut();
    this.voting.restart();
  }

  /** @returns {Promise<LoginOffer | null>} */
  async #login() {
    try {
      const { available, label } = await loginOffer();
      if (!available) return null;
      const name = session.login;
      return { label: label ?? "", name, act: () => (name === null ? this.signIn() : this.#signOut()) };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return null;
    }
  }

  async personalSettings() {
    const login = await this.#login();
    if (isDialogOpen()) return; // asked for twice while the studio was slow to answer
    const actions = [
      { key: "you.download", act: () => this.#attempt(saveVotes) },
      { key: "withdraw", act: () => this.#withdraw() },
    ];
    await openPersonalSettings(this.root, {
      goal: this.stats.goal,
      goalSet: (votes) => {
        this.stats.goal = votes;
        this.view.showGoal(this.stats);
      },
      renamed: (name) => this.rename(name),
      login,
      actions: this.#me ? actions : [],
      facts: () => this.#facts(),
    });
  }

  async #facts() {
    const { medianSeconds, count, days } = this.stats;
    const votes = t("session.votes", { count });
    const own = await this.#ownVersions();
    return [
      medianSeconds === null ? votes : `${votes} · ${paceText(medianSeconds)}`,
      days > 1 ? t("days", { count: days }) : "",
      own.length > 0 ? trainedText(own) : "",
    ].filter((fact) => fact !== "");
  }

  /** @param {string} handle */
  rename(handle) {
    if (handle === session.handle) return;
    session.rename(handle);
    this.voting.restart();
  }

  async #withdraw() {
    if (!(await askWithdrawal(this.root))) return;
    const answer = await this.#attempt(withdrawAll);
    if (!answer) return;
    this.voting.forgetVotes();
    const done = t("withdraw.done", { count: answer.withdrawn });
    const learned = { count: answer.versions.length, versions: answer.versions.join(", ") };
    this.view.toast(learned.count > 0 ? `${done} ${t("withdraw.learned", learned)}` : done);
  }

  async comment() {
    const { pair } = this.voting;
    if (pair === null) return;
    this.voting.setComment(pair, await askComment(this.root, pair.comment ?? "", isSet(pair)));
  }

  /** Report the pair that is shown; it is passed over from then on. */
  async report() {
    const { pair } = this.voting;
    const report = pair && (await askReport(this.root, isSet(pair)));
    if (!report) return;
    const answer = await this.#attempt(() => sendReport(pair.id, report.reason, report.text));
    if (!answer) return;
    this.view.toast(t(textKey(isSet(pair), "report.thanks")));
    this.voting.passOver(pair);
  }

  /**
   * The result of a request, or null after a toast with the reason for which it was refused.
   *
   * @template Result
   * @param {() => Promise<Result>} request
   */
  async #attempt(request) {
    try {
      return await request();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.view.toast(error.message);
      return null;
    }
  }
}

/** @param {number[]} own */
const trainedText = (own) => t("trained", { count: own.length, versions: own.join(", ") });

/**
 * Does without the number of votes where the studio does not say.
 *
 * @param {number} version
 */
async function newsAbout(version) {
  try {
    const adapter = (await versions()).get(version);
    if (adapter) return t("toast.learned", { version, count: adapter.votes });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
  }
  return t("toast.live", { version });
}
