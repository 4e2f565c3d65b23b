// `eventsource-parser` over fetch: prints the types of the events of `POST /chat`.
import { createParser } from "eventsource-parser";

const [url, apiKey] = process.argv.slice(2);
const response = await fetch(`${url}/chat`, {
  method: "POST",
  headers: { Authorization: `Bearer ${apiKey}`, "Content-Type": "application/json" },
  body: JSON.stringify({
    prompt: "hello",
    model: "simulator/fast?headers_ms=1500&chunks=3",
  }),
});
const types = [];
const comments = [];
const errors = [];
const parser = createParser({
  onEvent: (event) => types.push(JSON.parse(event.data).type),
  onComment: (comment) => comments.push(comment),
  onError: (error) => errors.push(String(error)),
});
const decoder = new TextDecoder();
for await (const block of response.body) {
  parser.feed(decoder.decode(block, { stream: true }));
}
console.log(JSON.stringify({ status: response.status, types, comments, errors }));
