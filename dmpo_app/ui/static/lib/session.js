// @ts-check
// The annotator who votes in this browser. The token survives reloads; a name is optional.

import { api, ApiError } from "./api.js";
import { storage } from "./storage.js";

const TOKEN = "dmpo.token";
const HANDLE = "dmpo.handle";
const LOGIN = "dmpo.login";

class Session {
  /** @type {Promise<string> | null} */
  #opening = null;
  /** @type {{ handle: string, token: string | null } | null} */
  #beforeRenaming = null;

  get handle() {
    return storage.getItem(HANDLE) ?? "";
  }

  /** The token there is, if there is one. */
  get storedToken() {
    return storage.getItem(TOKEN);
  }

  /** The provider's name of whoever signed in; null: nobody did. */
  get login() {
    return storage.getItem(LOGIN);
  }

  /** The name to show: of whoever signed in, or the one that was chosen here. */
  get displayName() {
    return this.login ?? this.handle;
  }

  /** The token, opening a session first if there is none. Only one is opened, however many ask. */
  async token() {
    const stored = this.storedToken;
    if (stored) return stored;
    this.#opening ??= this.#open().finally(() => {
      this.#opening = null;
    });
    return this.#opening;
  }

  async #open() {
    const invite = new URLSearchParams(location.search).get("invite");
    try {
      const answer = await api("POST session", { body: { handle: this.handle, ...(invite && { invite }) } });
      storage.setItem(TOKEN, answer.token);
      return answer.token;
    } catch (error) {
      if (error instanceof ApiError && error.code === "invite_needed") this.#undoRenaming();
      throw error;
    }
  }

  /**
   * Forget a token that the studio no longer takes, or, without one, whatever there is.
   *
   * @param {string} [token]
   */
  forget(token) {
    if (token && this.storedToken !== token) return;
    storage.removeItem(TOKEN);
    storage.removeItem(LOGIN);
  }

  /**
   * Vote as whoever signed in from now on. `name` is for them to see, and kept in this browser only.
   *
   * @param {string} token
   * @param {string} name
   */
  signIn(token, name) {
    this.#beforeRenaming = null;
    storage.setItem(TOKEN, token);
    storage.setItem(LOGIN, name);
  }

  /**
   * Vote under another name from now on: a new annotator.
   *
   * @param {string} handle
   */
  rename(handle) {
    this.#beforeRenaming = { handle: this.handle, token: this.storedToken };
    storage.setItem(HANDLE, handle);
    this.forget();
  }

  /** Back to the last name: an invitation may be used up, and nobody is to lose their place by that. */
  #undoRenaming() {
    if (!this.#beforeRenaming?.token) return;
    storage.setItem(HANDLE, this.#beforeRenaming.handle);
    storage.setItem(TOKEN, this.#beforeRenaming.token);
    this.#beforeRenaming = null;
  }
}

export const session = new Session();

/**
 * Ask something as the annotator of this browser. A session that the studio does not know any more is replaced, once.
 *
 * @template Result
 * @param {(token: string) => Promise<Result>} request
 * @returns {Promise<Result>}
 */
export async function withSession(request) {
  const token = await session.token();
  try {
    return await request(token);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
    session.forget(token);
    return request(await session.token());
  }
}
