// Node's own `http2`: the session is closed while two streams live. `close` sends GOAWAY
// and lets them finish. Prints the types of the events of both, and what the session saw.
import http2 from "node:http2";

const [url, apiKey] = process.argv.slice(2);
const session = http2.connect(url);
const errors = [];
session.on("error", (error) => errors.push(String(error)));
const closed = new Promise((resolve) => session.on("close", resolve));

function ask(onFirst) {
  return new Promise((resolve) => {
    const stream = session.request({
      ":method": "POST",
      ":path": "/chat",
      authorization: `Bearer ${apiKey}`,
      "content-type": "application/json",
    });
    let text = "";
    stream.setEncoding("utf8");
    stream.on("data", (piece) => {
      if (!text) onFirst();
      text += piece;
    });
    stream.on("error", (error) => errors.push(String(error)));
    stream.on("close", () => {
      const events = text.split("\n").filter((line) => line.startsWith("data: "));
      resolve(events.map((line) => JSON.parse(line.slice(6)).type));
    });
    const model = "simulator/fast?delay_ms=100&chunks=5";
    stream.end(JSON.stringify({ prompt: "hello", model }));
  });
}

let begun = 0;
const both = () => {
  begun += 1;
  if (begun === 2) session.close();
};
const types = await Promise.all([ask(both), ask(both)]);
await closed;
console.log(JSON.stringify({ types, errors }));
