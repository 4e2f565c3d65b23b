// Three SDKs that leave in each phase of a stream: all at the same time, or with a last
// argument one after another, so many times. Prints the time at which each left
// (CLOCK_MONOTONIC, which all processes of a host share), by its request id.
import { createOpenAI } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import { streamText } from "ai";
import OpenAI from "openai";

const [baseURL, apiKey, simulator, prefix, times] = process.argv.slice(2);
const anthropic = new Anthropic({ baseURL, apiKey, maxRetries: 0 });
const openai = new OpenAI({ baseURL: `${baseURL}/v1`, apiKey, maxRetries: 0 });
const vercel = createOpenAI({ baseURL: `${baseURL}/v1`, apiKey });
const content = "hello";

// Each yields once for each event that it is given.
const CLIENTS = {
  async *"@anthropic-ai/sdk"(model, options) {
    const messages = [{ role: "user", content }];
    const body = { model, max_tokens: 1000, messages, stream: true };
    for await (const event of await anthropic.messages.create(body, options)) {
      yield event;
    }
  },
  async *openai(model, options) {
    const body = { model, input: content, stream: true };
    for await (const event of await openai.responses.create(body, options)) {
      yield event;
    }
  },
  async *"@ai-sdk/openai"(model, { signal, headers }) {
    const { fullStream } = streamText({
      model: vercel(model),
      prompt: content,
      maxRetries: 0,
      abortSignal: signal,
      headers,
      onError: () => {},
    });
    yield* fullStream;
  },
};
// The model, and where upstream is when the client leaves: its phase, events sent, and
// how much later, so that the head has reached the client.
const PHASES = {
  "before the head": ["no-answer", "awaiting_headers", 0, 0],
  "before any event": ["fast?opening_ms=forever", "awaiting_first_token", 0, 600],
  "before the first token": ["no-token", "awaiting_first_token", 2, 0],
  thinking: ["endless?reasoning=10000&delay_ms=10", "streaming", 5, 0],
  answering: ["endless?delay_ms=10", "streaming", 5, 0],
};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function reached(id, phase, events) {
  for (;;) {
    const answer = await fetch(`${simulator}/stats?request_id=${id}`);
    const [found] = (await answer.json()).requests;
    if (found?.phase === phase && found.events_sent >= events) return;
    await sleep(50);
  }
}

async function leave(client, phase, turn) {
  const [model, upstream, events, later] = PHASES[phase];
  const abort = new AbortController();
  const id = `${prefix} ${turn} ${client} ${phase}`.replace(/\W+/g, "-");
  const options = { signal: abort.signal, headers: { "X-Request-ID": id } };
  const reading = (async () => {
    for await (const _event of CLIENTS[client](`simulator/${model}`, options));
  })();
  reading.catch(() => {}); // it is cut; what matters is what upstream sees
  await reached(id, upstream, events);
  await sleep(later);
  const left = Number(process.hrtime.bigint());
  abort.abort();
  await reading.catch(() => {});
  return [id, left];
}

const pairs = Object.keys(CLIENTS).flatMap((client) =>
  Object.keys(PHASES).map((phase) => [client, phase]),
);
let left = [];
if (times) {
  for (let turn = 0; turn < Number(times); turn++) {
    for (const [client, phase] of pairs) left.push(await leave(client, phase, turn));
  }
} else {
  left = await Promise.all(pairs.map(([client, phase]) => leave(client, phase, 0)));
}
console.log(JSON.stringify(Object.fromEntries(left)));
