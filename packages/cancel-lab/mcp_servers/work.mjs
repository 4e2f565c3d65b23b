// The tool that reports its own life, for the SDKs on Node; see cancel_lab/mcp/life.py.
//
// It works for some seconds, and says so every 10 ms in a datagram. It looks at its
// AbortSignal at every step, as a tool that can be cancelled does on Node.
import dgram from "node:dgram";
import { setTimeout as sleep } from "node:timers/promises";

const STEP_MS = 10;

export async function work({ run, seconds, progress }, signal, report) {
  const [host, port] = process.env.CANCEL_LAB_REPORT.split(":");
  const socket = dgram.createSocket("udp4");
  const say = (event, how = "") =>
    new Promise((sent) => socket.send(JSON.stringify({ run, event, how }), Number(port), host, sent));
  const until = performance.now() + seconds * 1000;
  let reported = 0;
  await say("started");
  try {
    while (performance.now() < until) {
      await say("alive");
      if (reported < progress) {
        reported += 1;
        await report(reported);
      }
      await sleep(STEP_MS, undefined, { signal });
    }
    await say("ended", "finished");
  } catch (error) {
    await say("ended", error.name);
    throw error;
  } finally {
    socket.close();
  }
  return { content: [{ type: "text", text: run }] };
}
