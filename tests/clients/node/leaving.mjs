// Three SDKs that leave in each phase of a stream: all at the same time, or with a last
// argument one after another, so many times. Prints the time at which each left
// (CLOCK_MONOTONIC, which all processes of a host share), by its request id.
import { createOpenAI } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import { streamText } from "ai";
import OpenAI from "openai";

const [baseURL, apiKey, prefix, times] = process.argv.slice(2);
const anthropic = new Anthropic({ baseURL, apiKey, maxRetries: 0 });
const openai = new OpenAI({ baseURL: `${baseURL}/v1`, apiKey, maxRetries: 0 });
const vercel = createOpenAI({ baseURL: `${baseURL}/v1`, apiKey });
const content = "hello";

// Each yields the names of the events that it is given.
const CLIENTS = {
  async *"@anthropic-ai/sdk"(model, options) {
    const messages = [{ role: "user", content }];
    const body = { model, max_tokens: 1000, messages, stream: true };
    for await (const event of await anthropic.messages.create(body, options)) {
      yield event.delta?.type ?? event.type;
    }
  },
  async *openai(model, options) {
    const body = { model, input: content, stream: true };
    for await (const event of await openai.responses.create(body, options)) {
      yield event.type;
    }
  },
  async *"@ai-sdk/openai"(model, { signal, headers }) {
    const { fullStream } = streamText({
      model: vercel(model),
      prompt: content,
      maxRetries: 0,
      includeRawChunks: true,
      abortSignal: signal,
      headers,
      onError: () => {},
    });
    for await (const part of fullStream) {
      if (part.type === "raw") yield part.rawValue.type;
    }
  },
};
// The model, and after which event the client leaves; a number is milliseconds.
const PHASES = {
  "before the head": ["no-answer", 400],
  "before any event": ["fast?opening_ms=forever&comment_every_ms=100", 900],
  "before the first token": ["no-token", 600],
  thinking: ["endless?reasoning=10000&delay_ms=10", /thinking|reasoning/],
  answering: ["endless?delay_ms=10", /^text_delta$|output_text.delta$/],
};

async function leave(client, phase, turn) {
  const [model, when] = PHASES[phase];
  const abort = new AbortController();
  const id = `${prefix} ${turn} ${client} ${phase}`.replace(/\W+/g, "-");
  const headers = { "X-Request-ID": id };
  let left = null;
  const go = () => {
    left ??= Number(process.hrtime.bigint());
    abort.abort();
  };
  if (typeof when === "number") setTimeout(go, when);
  try {
    const options = { signal: abort.signal, headers };
    for await (const name of CLIENTS[client](`simulator/${model}`, options)) {
      if (typeof when !== "number" && when.test(name)) go();
    }
  } catch (error) {
    if (left === null) throw error;
  }
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
