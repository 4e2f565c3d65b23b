// What the page asks of its server; the API key is added here and nowhere else.

import { readEvents } from "./sse.js";

const KEY = "trio-ai-stream key";
// A cancel takes a few milliseconds; a server that cannot answer is hung up on.
const CANCEL_MS = 3000;
const MARKDOWN_MS = 5000;

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value.trim()),
};

/** The server said no before any stream began. */
export class Refusal extends Error {
  constructor(status, type, message) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

function headers(more = {}) {
  return key.get() ? { ...more, Authorization: `Bearer ${key.get()}` } : more;
}

async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const type = body.error_type ?? "refused";
  return new Refusal(response.status, type, body.message ?? `HTTP ${response.status}`);
}

export async function getConfig() {
  const response = await fetch("/page/config");
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/** Upstream's models as [{model, description}]. */
export async function getModels() {
  const response = await fetch("/v1/models", { headers: headers() });
  if (!response.ok) throw await refusal(response);
  const { data } = await response.json();
  return data.map(({ id, name }) => ({ model: id, description: name }));
}

/** What streams have cost: {by, key, rows, budgets}. */
export async function getUsage(query) {
  const response = await fetch(`/usage?${new URLSearchParams(query)}`, { headers: headers() });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/** Have the server parse Markdown: [[line, node], ...], or null where it cannot. */
export async function parseMarkdown(text) {
  try {
    const response = await fetch("/page/markdown", {
      method: "POST",
      headers: headers({ "Content-Type": "application/json" }),
      body: JSON.stringify({ text }),
      signal: AbortSignal.timeout(MARKDOWN_MS),
    });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/** Start an answer; return its id and its events, parsed, in batches as they arrive. */
export async function startChat(body, signal) {
  const response = await fetch("/chat", {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw await refusal(response);
  return { id: response.headers.get("X-Request-ID"), batches: parsed(response) };
}

async function* parsed(response) {
  for await (const events of readEvents(response)) {
    yield events.map((event) => JSON.parse(event.data));
  }
}

/** Ask the server to cancel a stream; its receipt, or null where it cannot. */
export async function cancelStream(id) {
  try {
    const path = `/streams/${encodeURIComponent(id)}`;
    const signal = AbortSignal.timeout(CANCEL_MS);
    const response = await fetch(path, { method: "DELETE", headers: headers(), signal });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/** Watch the running streams; yields batches of {type, ...data}. `tree` is one more's id. */
export async function* watchStreams(signal, tree) {
  const query = tree ? `?tree=${encodeURIComponent(tree)}` : "";
  const response = await fetch(`/streams/live${query}`, { headers: headers(), signal });
  if (!response.ok) throw await refusal(response);
  for await (const events of readEvents(response)) {
    yield events.map((event) => ({ type: event.type, ...JSON.parse(event.data) }));
  }
}
