// `@anthropic-ai/sdk` as it is: prints one JSON object with what happened.
import Anthropic from "@anthropic-ai/sdk";

const [baseURL, apiKey, requestId] = process.argv.slice(2);
const client = new Anthropic({ baseURL, apiKey, maxRetries: 0 });
const ask = (name, more = {}) => ({
  model: `simulator/${name}`,
  max_tokens: 1000,
  messages: [{ role: "user", content: "hello" }],
  ...more,
});

const whole = await client.messages.create(ask("fast"));
const streamed = await client.messages.stream(ask("fast")).finalMessage();
const agent = await client.messages.stream(ask("agent")).finalMessage();
const thought = await client.messages.stream(ask("thinking")).finalMessage();

const headers = { "X-Request-ID": requestId };
const endless = await client.messages.create(ask("endless", { stream: true }), {
  headers,
});
let seen = 0;
for await (const event of endless) {
  seen += event.type === "content_block_delta" ? 1 : 0;
  if (seen === 5) break; // leaving the loop aborts the request
}

const errors = {};
for (const fault of ["not-found", "at-capacity", "unauthorized", "error", "drop"]) {
  try {
    await client.messages.stream(ask(fault)).finalMessage();
  } catch (error) {
    errors[fault] = [error.constructor.name, error.status ?? null];
  }
}

// With the retries that it makes by itself, unless it is told not to.
const retrying = new Anthropic({ baseURL, apiKey });
const again = { headers: { "X-Request-ID": `${requestId}-again` } };
await retrying.messages.create(ask("server-error"), again).catch(() => {});

const same = whole.content[0].text === streamed.content[0].text;
const kinds = agent.content.map((block) => block.type);
const life = thought.stop_reason;
console.log(JSON.stringify({ same, kinds, life, seen, errors }));
