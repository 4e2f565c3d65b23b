// The live view: follows `/streams/live` while the page is visible, and remembers how
// streams ended, for the Stop button's receipt.

import { $, count, el, time } from "./dom.js";
import { updateStream } from "./tree.js";
import { watchStreams } from "./server.js";

const PAST = 6;
const RETRY_MS = 3000;
const TICK_MS = 200;

export class LiveView {
  #records = new Map();
  #waiting = new Map();
  #items = new Map();
  #streams = [];
  #offset = 0;
  #abort = null;
  #budgets;

  constructor(budgets) {
    this.#budgets = budgets;
    // A hidden page watches nothing: watching costs the server a little.
    document.addEventListener("visibilitychange", () => this.restart());
    setInterval(() => this.#draw(), TICK_MS);
  }

  /** Follow anew, with the key of now. */
  restart() {
    this.#abort?.abort();
    if (document.hidden) return;
    this.#abort = new AbortController();
    this.#follow(this.#abort.signal);
  }

  /** Return how a stream ended, or null if that is not heard of in time. */
  record(id, patienceMs) {
    if (this.#records.has(id)) return Promise.resolve(this.#records.get(id));
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      setTimeout(() => this.#settle(id, null), patienceMs);
    });
  }

  async #follow(signal) {
    while (!signal.aborted) {
      try {
        for await (const events of watchStreams(signal)) {
          this.#say("live", "live");
          for (const event of events) this.#take(event);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401) return this.#say("waiting", "needs the API key");
      }
      this.#streams = [];
      this.#draw();
      if (!signal.aborted) this.#say("lost", "reconnecting");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  #take(event) {
    if (event.type === "snapshot") {
      this.#offset = event.now - performance.now() / 1000;
      this.#streams = event.streams;
      const more = event.more ? `and ${count(event.more, "more stream")}, not shown` : "";
      $("live-note").textContent = more || (event.streams.length ? "" : "Nothing runs: no task, no nursery, no deadline.");
      this.#draw();
    } else if (event.type === "ended") {
      this.#records.set(event.id, event);
      if (this.#records.size > 100) this.#records.delete(this.#records.keys().next().value);
      this.#settle(event.id, event);
      this.#addPast(event);
    } else if (event.type === "bye") {
      this.#say("lost", event.reason === "draining" ? "server is draining" : "no room to watch");
    }
  }

  #settle(id, record) {
    this.#waiting.get(id)?.(record);
    this.#waiting.delete(id);
  }

  #draw() {
    const now = performance.now() / 1000 + this.#offset;
    const live = new Set(this.#streams.map((stream) => stream.id));
    for (const [id, item] of this.#items) {
      if (live.has(id)) continue;
      item.remove();
      this.#items.delete(id);
    }
    for (const stream of this.#streams) {
      if (!this.#items.has(stream.id)) {
        const item = el("li", { class: "stream", "data-id": stream.id });
        this.#items.set(stream.id, item);
        $("live-streams").append(item);
      }
      updateStream(this.#items.get(stream.id), stream, now, this.#budgets);
    }
    const number = String(this.#streams.length);
    if ($("live-count").textContent !== number) $("live-count").textContent = number;
  }

  #addPast(record) {
    const closed = record.upstream_closed_ms;
    const facts = [
      count(record.events, "event"),
      time(record.duration_ms),
      closed == null ? null : `upstream closed in ${time(closed)}`,
    ];
    $("live-past").hidden = false;
    $("live-ended").prepend(
      el(
        "li",
        {},
        el("code", { class: "outcome", "data-outcome": record.outcome }, record.outcome),
        el("span", { class: "quiet" }, facts.filter(Boolean).join(" · ")),
      ),
    );
    while ($("live-ended").children.length > PAST) $("live-ended").lastChild.remove();
  }

  #say(state, text) {
    $("link").dataset.state = state;
    $("link").textContent = text;
  }
}
