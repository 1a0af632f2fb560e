// What goes on beside the voting: new versions, the person's dialog, comments, reports, what is agreed to.

import { agree, consentText, me, report, saveVotes, trainedVersions, withdrawAll } from "./campaign.js";
import { dialogOpen } from "../lib/dialog.js";
import { commentDialog, consentDialog, reportDialog, withdrawDialog, youDialog } from "./dialogs.js";
import { t, words } from "../lib/lang.js";
import { aboutLogin, signIn, signOut } from "../lib/login.js";
import { isSet, wordOf } from "./rank.js";
import { ApiError, openTab, session, versions } from "../lib/studio.js";

export class Asides {
  /** `widget`: the element, with `view`, `current`, `rename(name)`, `agreed()`, `passOver(pair)`, `another()`. */
  constructor(widget, sitting) {
    this.widget = widget;
    this.view = widget.view;
    this.sitting = sitting;
    this.forget();
  }

  /** Another person from now on. */
  forget() {
    this.known = undefined; // what the studio knows of this person; null: it cannot say
    this.asking = false; // whether consent was asked for and not given
    this.view.consent.hidden = true;
    this.view.login.hidden = true;
  }

  /** The first pair is there: time to ask whether the studio keeps a record of this person. */
  async pairCame() {
    if (this.known !== undefined) return;
    this.known = null;
    this.known = await me();
    this.view.reportButton.hidden = this.known === null;
  }

  /** Something was not answered: `error`, or null. Asks for consent, once, or to sign in, if that is why. */
  failed(error) {
    if (error?.code === "login_needed") this.view.login.hidden = false;
    if (error?.code !== "consent_needed" || this.asking) return;
    this.asking = true;
    this.askConsent();
  }

  async askConsent() {
    this.view.consent.hidden = false;
    try {
      const consent = await consentText();
      if (dialogOpen() || !(await consentDialog(this.widget, consent.text))) return;
      await agree(consent);
    } catch (error) {
      this.say(error);
      return;
    }
    this.asking = false;
    this.view.consent.hidden = true;
    this.widget.agreed();
  }

  async announce(version) {
    if (version === 0) {
      this.view.toast(t("toast.base"));
      return;
    }
    let text = t("toast.live", { version });
    try {
      const adapter = (await versions()).get(version);
      if (adapter) text = t("toast.learned", { version, count: adapter.votes });
    } catch {
      // The announcement does without the number.
    }
    const mine = await this.trained();
    if (mine.includes(version)) text += ` ${this.trainedLine(mine)}`;
    this.view.toast(text, { text: t("toast.see"), act: () => openTab("Before / after") });
  }

  /** The versions that learned from this person's votes; [] where the studio cannot say. */
  async trained() {
    return this.known ? trainedVersions(await me()) : [];
  }

  trainedLine(mine) {
    return t("trained", { count: mine.length, versions: mine.join(", ") });
  }

  /** Called while a click is handled: a window opens. */
  async signIn() {
    try {
      if (!(await signIn(this.widget))) return;
    } catch (error) {
      this.say(error);
      return;
    }
    this.widget.another();
    this.view.toast(t("login.done"));
  }

  signOut() {
    signOut();
    this.widget.another();
  }

  /** What the person's dialog offers of it, or null. */
  async login() {
    try {
      const { available, label } = await aboutLogin();
      if (!available) return null;
      const name = session.login;
      return { label, name, act: () => (name === null ? this.signIn() : this.signOut()) };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return null;
    }
  }

  async showYou() {
    const { sitting, view } = this;
    const login = await this.login();
    if (dialogOpen()) return null; // asked for twice while the studio was slow to answer
    return youDialog(this.widget, {
      goal: sitting.goal,
      goalSet: (votes) => {
        sitting.goal = votes;
        view.showGoal(sitting);
      },
      renamed: (name) => this.widget.rename(name),
      login,
      own: this.known
        ? [
            { key: "you.download", act: () => this.download() },
            { key: "withdraw", act: () => this.withdraw() },
          ]
        : [],
      facts: async () => {
        const pace = sitting.medianSeconds;
        const mine = await this.trained();
        return [
          t("session.votes", { count: sitting.count }) +
            (pace === null ? "" : ` · ${t("pace", { seconds: words.number(pace, 1) })}`),
          sitting.days > 1 && t("days", { count: sitting.days }),
          mine.length > 0 && this.trainedLine(mine),
        ].filter(Boolean);
      },
    });
  }

  async download() {
    try {
      await saveVotes();
    } catch (error) {
      this.say(error);
    }
  }

  async withdraw() {
    if (!(await withdrawDialog(this.widget))) return;
    try {
      const { withdrawn } = await withdrawAll();
      this.widget.withdrawn();
      this.view.toast(t("withdraw.done", { count: withdrawn }));
    } catch (error) {
      this.say(error);
    }
  }

  async comment() {
    const pair = this.widget.current;
    if (pair === null) return;
    pair.comment = await commentDialog(this.widget, pair.comment ?? "", isSet(pair));
    if (this.widget.current === pair) this.view.showPair(pair);
  }

  /** Report the pair that is shown; it is passed over from then on. */
  async report() {
    const pair = this.widget.current;
    const said = pair && (await reportDialog(this.widget, isSet(pair)));
    if (!said) return;
    try {
      await report(pair.id, said.reason, said.text);
    } catch (error) {
      this.say(error);
      return;
    }
    this.view.toast(t(wordOf(isSet(pair), "report.thanks")));
    this.widget.passOver(pair);
  }

  /** Show why something was refused. What is no refusal is thrown on. */
  say(error) {
    if (!(error instanceof ApiError)) throw error;
    this.view.toast(error.message);
  }
}
