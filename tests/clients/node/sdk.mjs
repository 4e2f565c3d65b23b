// The `openai` package as it is: prints one JSON object with what happened.
import OpenAI from "openai";

const [baseURL, apiKey, requestId] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];
const ask = (model, more = {}, options = {}) =>
  client.chat.completions.create({ model, messages, ...more }, options);

const whole = await ask("simulator/fast");

let streamed = "";
for await (const chunk of await ask("simulator/fast", { stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}

const headers = { "X-Request-ID": requestId };
const endless = await ask("simulator/endless", { stream: true }, { headers });
let seen = 0;
for await (const chunk of endless) {
  seen += chunk.choices.length;
  if (seen === 5) break; // leaving the loop aborts the request
}

const errors = {};
for (const fault of ["not-found", "at-capacity", "unauthorized", "error"]) {
  try {
    const stream = await ask(`simulator/${fault}`, { stream: true });
    for await (const _chunk of stream);
  } catch (error) {
    errors[fault] = [error.constructor.name, error.status ?? null, error.code];
  }
}

const same = whole.choices[0].message.content === streamed;
console.log(JSON.stringify({ same, length: streamed.length, seen, errors }));
