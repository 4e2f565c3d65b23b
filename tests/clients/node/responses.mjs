// `@ai-sdk/openai` and `openai` on Responses: prints one JSON object with what happened.
import { createOpenAI } from "@ai-sdk/openai";
import { streamText, stepCountIs, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const [baseURL, apiKey, requestId] = process.argv.slice(2);
const openai = createOpenAI({ baseURL, apiKey });
const asked = [];
const weather = tool({
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    asked.push(city);
    return "sunny";
  },
});
const stream = (name, more = {}) =>
  streamText({
    model: openai(`simulator/${name}`),
    prompt: "hello",
    maxRetries: 0,
    onError: () => {},
    ...more,
  });

const agent = stream("reasoning", { tools: { weather }, stopWhen: stepCountIs(2) });
const text = await agent.text;
const life = await stream("thinking?chunks=3").finishReason;

const errors = {};
for (const fault of ["not-found", "truncated", "error", "error?shape=empty"]) {
  for await (const part of stream(fault).fullStream) {
    if (part.type === "error") errors[fault] = part.error?.statusCode ?? "error";
    if (part.type === "finish") errors[fault] ??= part.finishReason;
  }
}

const abort = new AbortController();
const headers = { "X-Request-ID": requestId };
const endless = stream("endless", { headers, abortSignal: abort.signal });
let seen = 0;
for await (const _delta of endless.textStream) {
  if (++seen === 5) {
    abort.abort();
    break;
  }
}

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const body = { model: "simulator/thinking?chunks=3", input: "hello" };
const final = await client.responses.stream(body).finalResponse();
const plain = final.output_text.length > 0;
// With the retries that it makes by itself, unless it is told not to.
const retrying = new OpenAI({ baseURL, apiKey });
const again = { headers: { "X-Request-ID": `${requestId}-again` } };
const failing = { model: "simulator/server-error", input: "hello" };
await retrying.responses.create(failing, again).catch(() => {});
console.log(JSON.stringify({ asked, long: text.length > 100, life, errors, seen, plain }));
