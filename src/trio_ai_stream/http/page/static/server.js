// What the page asks of its server; the API key is added here and nowhere else.

import { readEvents } from "./sse.js";
import { choice } from "./store.js";

// A cancel takes a few milliseconds; a server that cannot answer is hung up on.
const CANCEL_MS = 3000;
// How long a stream goes on without this page: a reload, a tunnel, another network.
const GRACE_S = 30;
const MARKDOWN_MS = 5000;
// The server parses one text at a time, and a browser has six connections for all that is asked.
const PARSED_AT_ONCE = 3;

const keptKey = choice("key", "sessionStorage"); // of this tab only

export const key = {
  get: () => keptKey.get() ?? "",
  set: (value) => keptKey.set(value.trim()),
};

/** The server said no before any stream began. */
export class Refusal extends Error {
  constructor(status, type, message) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

// A header holds bytes: what is typed goes as UTF-8, and it is the server that says whether it is a key.
const bytesOf = (text) => String.fromCharCode(...new TextEncoder().encode(text));

const headers = (more = {}, by = key.get()) => (by ? { ...more, Authorization: `Bearer ${bytesOf(by)}` } : more);

/**
 * Return the response of a request that was not refused.
 *
 * Not by the page's own address: that may hold a name and a password, which `fetch` refuses. And not through the browser's
 * cache: in Firefox a second reader of one address would wait for the end of what the first one reads.
 */
async function ask(path, options) {
  const response = await fetch(new URL(path, location.origin), { cache: "no-store", ...options });
  if (!response.ok) throw await refusal(response);
  return response;
}

const askJSON = async (path, options) => (await ask(path, options)).json();

async function refusal(response) {
  const said = await response.json().catch(() => ({}));
  const body = said.error ?? said; // OpenAI's form, where the endpoint is theirs
  const type = body.error_type ?? "refused";
  return new Refusal(response.status, type, body.message ?? `HTTP ${response.status}`);
}

export const getConfig = () => askJSON("/page/config");

/** Upstream's models as [{model, description}]. */
export async function getModels() {
  const { data } = await askJSON("/v1/models", { headers: headers() });
  return data.map(({ id, name }) => ({ model: id, description: name }));
}

/** What streams have cost: {by, key, rows, budgets}. */
export const getUsage = (query) => askJSON(`/usage?${new URLSearchParams(query)}`, { headers: headers() });

let parsing = 0;
const toParse = []; // goes on with one that waits for its turn

/**
 * Have the server parse Markdown: [[line, node], ...], or null where it cannot. What was asked last comes first:
 * of a long chat that is what is in view.
 */
export async function parseMarkdown(text) {
  if (parsing < PARSED_AT_ONCE) parsing += 1;
  else await new Promise((resolve) => toParse.push(resolve));
  try {
    return await askJSON("/page/markdown", {
      method: "POST",
      headers: headers({ "Content-Type": "application/json" }),
      body: JSON.stringify({ text: text.toWellFormed() }),
      signal: AbortSignal.timeout(MARKDOWN_MS),
    });
  } catch {
    return null;
  } finally {
    const next = toParse.pop();
    if (next) next();
    else parsing -= 1;
  }
}

/** Make an id for a request: so that it can be cancelled before its answer has come. */
export const newId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/**
 * Start an answer with the key `by`: {id, way, grace, batches}. `batches` are its events, parsed, as they arrive;
 * `way` is where it goes on after a lost connection within `grace` seconds, or null.
 */
export async function startChat(body, id, by, signal) {
  const response = await ask("/chat", {
    method: "POST",
    headers: headers({ "Content-Type": "application/json", "X-Request-ID": id, "X-Stream-Grace": GRACE_S }, by),
    body: JSON.stringify(body),
    signal,
  });
  const said = (name) => response.headers.get(name);
  return {
    id: said("X-Request-ID"),
    way: said("X-Stream-Resume"),
    grace: Number(said("X-Stream-Grace")),
    batches: parsed(response),
  };
}

/** Go on with a stream behind its event `after`: its events in batches. */
export async function resumeChat(way, after, by, signal) {
  const response = await ask(way, { headers: headers({ "Last-Event-ID": after }, by), signal });
  if (response.status === 204) throw await refusal(response); // all of it has been had
  return parsed(response);
}

async function* parsed(response) {
  for await (const events of readEvents(response)) {
    yield events.map(({ id, data }) => Object.assign(JSON.parse(data), { at: id }));
  }
}

/** Ask the server to cancel a stream; its receipt. */
export async function tryToCancel(id, by) {
  const path = `/streams/${encodeURIComponent(id)}`;
  const signal = AbortSignal.timeout(CANCEL_MS);
  // It outlives the page, which may be on its way out.
  return askJSON(path, { method: "DELETE", headers: headers({}, by), signal, keepalive: true });
}

/** The same; null where it cannot. */
export const cancelStream = (id, by) => tryToCancel(id, by).catch(() => null);

/** Watch the running streams; yields batches of {type, ...data}. `tree` is one more's id. */
export async function* watchStreams(signal, tree) {
  const query = tree ? `?tree=${encodeURIComponent(tree)}` : "";
  const response = await ask(`/streams/live${query}`, { headers: headers(), signal });
  for await (const events of readEvents(response)) {
    yield events.map((event) => ({ type: event.type, ...JSON.parse(event.data) }));
  }
}
