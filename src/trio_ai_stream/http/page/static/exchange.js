// One question and its answer: streams it into the page over as many connections as it takes,
// stops it, says how it ended.

import { cancelStream, key, newId, Refusal, resumeChat, startChat } from "./server.js";
import { choice } from "./store.js";

// After a stop the server's last event is a few milliseconds away; if it is not here
// by then, hanging up says the same.
const LAST_EVENT_MS = 2000;
// A line may die without a word. The server sends a comment every 15 s, as long as upstream
// lives; after more silence than this the page comes back on a new line, which costs little.
const SILENCE_MS = 40_000;
const OPEN_MS = 10_000;
const PAUSES_MS = [0, 250, 500, 1000, 2000];

// The stream of this tab that has not ended, as {id, by, firstMs}: another key than the one that began it, `by`, does
// not find it, and the disk may have no key. This storage also keeps what a page says as it is left, which the disk may not.
const unended = choice("open stream", "sessionStorage");

// The time of day, because a stream may outlive the page that began it.
const now = () => performance.timeOrigin + performance.now();

/**
 * Run one exchange. `show` takes began(event), content(text), reasoning(text), toolCall(event),
 * lost() and found(); the result says all: {id, end: "done"|"error"|"stopped"|"elsewhere", ...}.
 *
 * `resume` is what a later page needs to go on with the stream ({way, after, ...}; see `startChat`),
 * null while there is nothing to go on with. It is changed together with what `show` has shown.
 */
export class Exchange {
  id;
  resume;
  #by; // the key that it is begun with
  #line = null; // aborts the connection of now
  #hungUp = false;
  #wake = () => {};
  #stoppedAt = null;
  #receipt = null;
  #stopping = null;
  #facts;

  /** Begin, or go on with what another page has begun. */
  constructor(resume = null) {
    this.resume = resume;
    this.id = resume?.id ?? newId();
    const left = unended.get();
    this.#by = left?.id === this.id ? left.by : key.get();
    this.#facts = resume?.facts ?? { events: 0, firstMs: null, upstream: null, startedAt: now() };
    if (left?.id === this.id) this.#facts.firstMs ??= left.firstMs;
  }

  async run(body, show) {
    this.#note();
    // Before the head of the response is here, no later page could go on: the stream would run for nobody.
    const leave = () => this.resume ?? cancelStream(this.id, this.#by);
    addEventListener("pagehide", leave);
    const end = await this.#converse(body, show);
    removeEventListener("pagehide", leave);
    const endedAt = now();
    // The answer to the cancel may come after the stream's last event.
    await this.#stopping;
    unended.set(null);
    return this.#result(end, endedAt);
  }

  #note() {
    unended.set({ id: this.id, by: this.#by, firstMs: this.#facts.firstMs });
  }

  async #converse(body, show) {
    let lostAt = null;
    for (let tries = 0; ; tries += 1) {
      try {
        const batches = await this.#open(body);
        if (lostAt !== null) show.found();
        lostAt = null;
        for await (const events of this.#watched(batches)) {
          tries = 0; // only now: a line that opens and says nothing is not to be opened without a pause
          for (const event of events) {
            const end = this.#take(event, show);
            if (end) return end;
          }
        }
      } catch (error) {
        if (error instanceof Refusal && !this.#mayPass(error)) return this.#refused(error);
      }
      if (this.#hungUp || (this.#stoppedAt !== null && this.resume === null)) return { end: "stopped", hungUp: true };
      if (this.resume === null) {
        cancelStream(this.id, this.#by); // it may have begun without this page's knowing
        return { end: "error", type: "connection_lost", message: "The connection broke before the end of the answer." };
      }
      lostAt ??= now();
      if (now() - lostAt > this.resume.grace * 1000) {
        return { end: "error", type: "connection_lost", message: "The server could not be reached again in time." };
      }
      show.lost();
      await this.#pause(PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)]);
      if (this.#hungUp) return { end: "stopped", hungUp: true };
    }
  }

  /** Return the batches of a new connection. */
  async #open(body) {
    this.#line = new AbortController();
    const { signal } = this.#line;
    if (this.resume !== null) {
      const timer = setTimeout(() => this.#line.abort(), OPEN_MS);
      return resumeChat(this.resume.way, this.resume.after, this.#by, signal).finally(() => clearTimeout(timer));
    }
    const { id, way, grace, batches } = await startChat(body, this.id, this.#by, signal);
    this.id = id;
    this.#note();
    if (way !== null) this.resume = { id, way, grace, after: "0", facts: this.#facts };
    return batches;
  }

  /** Pass batches on; a line that is silent for too long is cut. */
  async *#watched(batches) {
    let timer = null;
    const watch = () => {
      clearTimeout(timer);
      if (this.resume !== null) timer = setTimeout(() => this.#line.abort(), SILENCE_MS);
    };
    try {
      watch();
      for await (const events of batches) {
        watch();
        yield events;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Wait; at once, if the browser is on a network again. */
  #pause(ms) {
    return new Promise((resolve) => {
      const over = () => {
        removeEventListener("online", over);
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(over, ms);
      addEventListener("online", over);
      this.#wake = over;
    });
  }

  /** Whether the stream may be there behind this: a proxy whose server is being restarted, a worker that is slow. */
  #mayPass({ status }) {
    return this.resume !== null && [429, 502, 503, 504].includes(status);
  }

  #refused({ status, type, message }) {
    const gone = this.resume !== null && [204, 404, 410].includes(status);
    if (gone) return { end: "error", type: "connection_lost", message: "The server no longer has this stream." };
    return { end: "error", status, type, message };
  }

  /** Cancel by id; hang up where the server cannot, or does not answer. */
  stop() {
    if (this.#stoppedAt !== null) return;
    this.#stoppedAt = now();
    this.#stopping = this.#cancel();
  }

  async #cancel() {
    this.#receipt = await cancelStream(this.id, this.#by);
    if (this.#receipt) setTimeout(() => this.#hangUp(), LAST_EVENT_MS);
    else {
      this.#hangUp();
      // The request may have been on its way when the server had not heard of it yet.
      if (this.resume === null) this.#receipt = await cancelStream(this.id, this.#by);
    }
  }

  #hangUp() {
    this.#hungUp = true;
    this.#line?.abort();
    this.#wake();
  }

  #take(event, show) {
    const facts = this.#facts;
    // Where the end is not kept yet, a later page is to hear of it again.
    const isLast = event.type === "done" || event.type === "error";
    if (this.resume !== null && event.at && !isLast) this.resume.after = event.at;
    switch (event.type) {
      case "connected":
        facts.upstream = event.upstream;
        show.began(event);
        return null;
      case "content":
        facts.events += 1;
        if (facts.firstMs === null) {
          facts.firstMs = now() - facts.startedAt;
          this.#note();
        }
        show.content(event.content);
        return null;
      case "reasoning":
        show.reasoning(event.content);
        return null;
      case "tool_call":
        show.toolCall(event);
        return null;
      case "done":
        return { end: "done", finish: event.finish_reason, usage: event.usage };
      case "error":
        if (event.error_type === "superseded") return { end: "elsewhere" };
        return {
          end: event.error_type === "cancelled" ? "stopped" : "error",
          type: event.error_type,
          status: event.code,
          message: event.content,
          retryable: event.retryable,
        };
      default:
        return null;
    }
  }

  #result(end, endedAt) {
    return {
      ...this.#facts,
      ...end,
      id: this.id,
      begun: this.#facts.upstream !== null,
      grace: this.resume?.grace ?? 0,
      totalMs: endedAt - this.#facts.startedAt,
      byMe: this.#stoppedAt !== null,
      receipt: this.#receipt,
      stopMs: this.#stoppedAt === null ? null : endedAt - this.#stoppedAt,
    };
  }
}
