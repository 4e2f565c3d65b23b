// A relay as npm's resumable-stream shows it, for `python -m bench.beside`.
//
//   node resumable_stream.mjs UPSTREAM_URL      (REDIS_URL in the environment)
//
// POST /chat begins a stream, and says in X-Stream-Resume where it is resumed, behind
// the characters that the client has had. Prints its port.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createResumableStreamContext } from "resumable-stream";

const upstream = process.argv[2];
const context = createResumableStreamContext({ waitUntil: (work) => work });

async function ask(body) {
  const { model, prompt } = JSON.parse(body);
  const answer = await fetch(`${upstream}/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      model,
      stream: true,
      messages: [{ role: "user", content: prompt }],
    }),
  });
  return answer.body.pipeThrough(new TextDecoderStream());
}

// What a framework does with a Response: it reads as the client does, and cancels the
// stream when the client has gone.
async function write(stream, response) {
  const reader = stream.getReader();
  response.on("close", () => reader.cancel().catch(() => {}));
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (!response.write(value)) {
      await new Promise((resolve) => {
        response.once("drain", resolve);
        response.once("close", resolve);
      });
    }
  }
  response.end();
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (request.method === "POST") {
    const parts = [];
    for await (const part of request) parts.push(part);
    const source = await ask(Buffer.concat(parts));
    const id = randomUUID();
    const stream = await context.createNewResumableStream(id, () => source);
    const headers = { "Content-Type": "text/event-stream" };
    response.writeHead(200, { ...headers, "X-Stream-Resume": `/chat?id=${id}` });
    await write(stream, response);
    return;
  }
  const skip = Number(url.searchParams.get("skip") ?? 0);
  const stream = await context.resumeExistingStream(url.searchParams.get("id"), skip);
  if (!stream) {
    response.writeHead(422).end();
    return;
  }
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  await write(stream, response);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
