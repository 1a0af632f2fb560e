// @ts-check
// The studio's JSON API under /api/v1, typed by its OpenAPI description.

import { h } from "./dom.js";

/** @import { Operations } from "./api-types.js" */
/** @import { AnyRequest, Download, Operation, Query, RequestOf, Values } from "./types.js" */

/** The page's root; four folders above this file, wherever a proxy mounts it. */
const ROOT = new URL("../../../../", import.meta.url);
const UNREACHABLE = "The studio cannot be reached.";

/**
 * Absolute address of a path the API answered, such as "/api/v1/images/…".
 *
 * @param {string} path
 */
export const address = (path) => new URL(path.replace(/^\/+/, ""), ROOT).href;

/** An answer that is not 2xx, or (status 0) no answer at all. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {number | null} retrySeconds
   * @param {string} code
   */
  constructor(status, message, retrySeconds = null, code = "") {
    super(message);
    this.status = status;
    this.code = code;
    this.retrySeconds = retrySeconds;
  }

  /** Worth sending again as it is. */
  get isRetryable() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/**
 * One request. Resolves to the answer's JSON; rejects with ApiError.
 *
 * @template {Operation} Name
 * @param {Name} operation method and path below /api/v1, with `{names}` that `params` fills in
 * @param {RequestOf<Name>} rest `body` is sent as JSON, `content` as it is
 * @returns {Promise<Operations[Name]["response"]>}
 */
export async function api(operation, ...rest) {
  const request = /** @type {AnyRequest} */ (rest[0] ?? {});
  const response = await send(operation, request);
  const data = await response.json().catch(() => null);
  if (response.ok && data !== null) return data;
  throw failure(response, data);
}

/**
 * @param {string} operation
 * @param {AnyRequest} request
 */
async function send(operation, { params = {}, query = {}, body, content, token, timeoutMs = 20000 }) {
  const [method, path] = operation.split(" ");
  /** @type {Record<string, string>} */
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  else if (content !== undefined) headers["Content-Type"] = "text/plain; charset=utf-8";
  if (token) headers.Authorization = `Bearer ${token}`;
  try {
    return await fetch(urlFor(path, params, query), {
      method,
      headers,
      body: body === undefined ? content : JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMs),
      cache: "no-store",
    });
  } catch (error) {
    const late = error instanceof Error && error.name === "TimeoutError";
    throw new ApiError(0, late ? "The studio did not answer in time." : UNREACHABLE);
  }
}

/**
 * @param {string} path
 * @param {Values} params
 * @param {Query} query
 */
function urlFor(path, params, query) {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(params[name]));
  const url = new URL(`api/v1/${filled}`, ROOT);
  for (const [name, value] of Object.entries(query)) {
    const values = Array.isArray(value) ? value : [value];
    for (const one of values) if (one !== null && one !== undefined) url.searchParams.append(name, String(one));
  }
  return url;
}

/**
 * @param {Response} response
 * @param {any} data
 */
function failure(response, data) {
  const retry = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const detail = typeof data?.detail === "string" ? data.detail : `The studio answered ${response.status}.`;
  return new ApiError(response.status, detail, Number.isFinite(retry) ? retry : null, data?.code ?? "");
}

/**
 * Have the browser save a file of the API under a name. Rejects with ApiError, whose message is `apology` if given.
 *
 * @param {Download} operation
 * @param {string} name
 * @param {{ params?: Values, query?: Query, token: string, apology?: string }} request
 */
export async function saveFile(operation, name, { params = {}, query = {}, token, apology }) {
  const [, path] = operation.split(" ");
  const headers = { Authorization: `Bearer ${token}` };
  const response = await fetch(urlFor(path, params, query), { headers, cache: "no-store" }).catch(() => null);
  if (!response?.ok) {
    const reason = response ? `The studio answered ${response.status}.` : UNREACHABLE;
    throw new ApiError(response?.status ?? 0, apology ?? reason);
  }
  const url = URL.createObjectURL(await response.blob());
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
