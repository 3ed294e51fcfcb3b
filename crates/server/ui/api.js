// Requests to the server: the key, errors, and streams.
import { createParser } from "./vendor/eventsource-parser/index.js";

/** What the server says of a failure. */
export class Failure extends Error {
  /** @param {number} status @param {{message?: string, code?: string, param?: string | null}} error */
  constructor(status, error) {
    super(error.message ?? `the server answered ${status}`);
    this.status = status;
    this.code = error.code ?? "";
    this.param = error.param ?? null;
  }
}

const KEY = "brisk-key";

/** @returns {string | null} */
export const key = () => sessionStorage.getItem(KEY);

/** @param {string} value */
export const setKey = (value) => sessionStorage.setItem(KEY, value);

/**
 * @param {string} path
 * @param {{body?: unknown, signal?: AbortSignal, headers?: Record<string, string>}} [options]
 * @returns {Promise<Response>}
 */
export async function send(path, { body, signal, headers = {} } = {}) {
  const known = key();
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: {
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...(known ? { Authorization: `Bearer ${known}` } : {}),
      ...headers,
    },
    signal,
    cache: "no-store",
  });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Failure(response.status, told.error ?? {});
}

/** @param {string} path @param {unknown} [body] @returns {Promise<any>} */
export const json = async (path, body) => (await send(path, { body })).json();

/** @param {string} path @returns {Promise<Blob>} */
export const blob = async (path) => (await send(path)).blob();

/**
 * Events of a stream, until it ends.
 * @param {string} path
 * @param {{body?: unknown, signal?: AbortSignal}} options
 * @param {(name: string | undefined, data: string) => void} take
 * @param {() => void} [opened] told when the server has answered
 */
export async function stream(path, options, take, opened) {
  const response = await send(path, options);
  opened?.();
  if (!response.body) return;
  const parser = createParser({ onEvent: (/** @type {any} */ event) => take(event.event, event.data) });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    parser.feed(value);
  }
}
