// The `@openrouter/sdk` package as it is: prints one JSON object with what happened.
import { OpenRouter } from "@openrouter/sdk";

const [serverURL, apiKey, requestId] = process.argv.slice(2);
const client = new OpenRouter({ apiKey, serverURL, retryConfig: { strategy: "none" } });
const messages = [{ role: "user", content: "hello" }];
const ask = (model, more = {}, options = {}) =>
  client.chat.send({ chatRequest: { model, messages, ...more } }, options);

const whole = await ask("simulator/fast");

let streamed = "";
for await (const chunk of await ask("simulator/fast", { stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}

const parameters = { type: "object" };
const tool = { type: "function", function: { name: "weather", parameters } };
const called = await ask("simulator/fast", { tools: [tool] });

const endless = await ask("simulator/endless", { stream: true }, {
  headers: { "X-Request-ID": requestId },
});
let seen = 0;
for await (const chunk of endless) {
  seen += chunk.choices.length;
  if (seen === 5) break; // leaving the loop cancels the response's body
}

const errors = {};
for (const fault of ["not-found", "at-capacity", "unauthorized"]) {
  try {
    await ask(`simulator/${fault}`, { stream: true });
  } catch (error) {
    errors[fault] = [error.constructor.name, error.statusCode, error.error?.code];
  }
}
let last;
for await (const chunk of await ask("simulator/error", { stream: true })) last = chunk;

const models = await client.models.list();

console.log(
  JSON.stringify({
    same: whole.choices[0].message.content === streamed,
    length: streamed.length,
    tool: called.choices[0].message.toolCalls[0].function.name,
    seen,
    errors,
    within: [last.error.code, last.id !== "", last.choices[0].finishReason],
    priced: Number((models.result ?? models).data[0].pricing.prompt) > 0,
  }),
);
