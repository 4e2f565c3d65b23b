// One question and its answer: streams it into the page, stops it, says how it ended.

import { cancelStream, startChat } from "./server.js";

// After a stop the server's last event is a few milliseconds away; if it is not here
// by then, hanging up says the same.
const LAST_EVENT_MS = 2000;

/**
 * Run one exchange. `show` takes began(event), content(text) and reasoning(text); the result
 * says all: {id, end: "done"|"error"|"stopped"|"broken", ...}.
 */
export class Exchange {
  id = null;
  #abort = new AbortController();
  #stoppedAt = null;
  #receipt = null;
  #stopping = null;
  #started = performance.now();
  #facts = { events: 0, firstMs: null, upstream: null };

  async run(body, show) {
    const end = await this.#converse(body, show);
    const endedAt = performance.now();
    // The answer to the cancel may come after the stream's last event.
    await this.#stopping;
    return this.#result(end, endedAt);
  }

  async #converse(body, show) {
    try {
      const { id, batches } = await startChat(body, this.#abort.signal);
      this.id = id;
      // Stop was pressed before there was an id to stop.
      if (this.#stoppedAt !== null) this.#abort.abort();
      for await (const events of batches) {
        for (const event of events) {
          const end = this.#take(event, show);
          if (end) return end;
        }
      }
      return { end: "broken", message: "the stream ended without a last event" };
    } catch (error) {
      if (this.#stoppedAt !== null) return { end: "stopped", hungUp: true };
      const { status, type = "connection_lost", message } = error;
      return { end: "error", status, type, message };
    }
  }

  /** Cancel by id; hang up where the server cannot, or does not answer. */
  stop() {
    if (this.#stoppedAt !== null) return;
    this.#stoppedAt = performance.now();
    if (this.id === null) this.#abort.abort();
    else this.#stopping = this.#cancel();
  }

  async #cancel() {
    this.#receipt = await cancelStream(this.id);
    if (!this.#receipt) this.#abort.abort();
    else setTimeout(() => this.#abort.abort(), LAST_EVENT_MS);
  }

  #take(event, show) {
    const facts = this.#facts;
    switch (event.type) {
      case "connected":
        facts.upstream = event.upstream;
        show.began(event);
        return null;
      case "content":
        facts.events += 1;
        facts.firstMs ??= performance.now() - this.#started;
        show.content(event.content);
        return null;
      case "reasoning":
        show.reasoning(event.content);
        return null;
      case "done":
        return { end: "done", finish: event.finish_reason, usage: event.usage };
      case "error":
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

  #result(end, now) {
    return {
      ...this.#facts,
      ...end,
      id: this.id,
      totalMs: now - this.#started,
      byMe: this.#stoppedAt !== null,
      receipt: this.#receipt,
      stopMs: this.#stoppedAt === null ? null : now - this.#stoppedAt,
    };
  }
}
