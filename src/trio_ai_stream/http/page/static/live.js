// The live view: follows `/streams/live` while the page is visible, and remembers how
// streams ended, for the Stop button's receipt.

import { $, count, el, time } from "./dom.js";
import { showEnding, updateStream } from "./tree.js";
import { cancelStream, watchStreams } from "./server.js";

const PAST = 6;
const RETRY_MS = 3000;
const TICK_MS = 200;
// So few streams are all open; among more only those that somebody has opened.
const ALL_OPEN = 2;
const SLOW_MS = 6000;
const BARS = "▁▂▃▄▅▆▇█";
const SPARKS = 16;

export class LiveView {
  #records = new Map();
  #waiting = new Map();
  #items = new Map();
  #streams = [];
  #offset = 0;
  #abort = null;
  #budgets;
  #total = 0;
  #toggled = new Map(); // what somebody has opened or closed, by id
  #rates = new Map(); // events at the last looks, by id
  #tree = "";
  #draining = false;

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
        for await (const events of watchStreams(signal, this.#tree)) {
          this.#draining = false;
          this.#say("live", "live");
          for (const event of events) this.#take(event);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401) return this.#say("waiting", "needs the API key");
      }
      if (signal.aborted) return;
      // What still ran when a drain began runs on, and is counted until the new server's word.
      if (!this.#draining) {
        this.#streams = [];
        this.#total = 0;
        this.#draw();
        this.#say("lost", "reconnecting");
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  #take(event) {
    if (event.type === "snapshot") {
      this.#offset = event.now - performance.now() / 1000;
      this.#streams = event.streams;
      this.#total = event.total;
      this.#note(event);
      for (const { id, events } of event.streams) this.#look(id, events);
      this.#draw();
    } else if (event.type === "ended") {
      this.#records.set(event.id, event);
      if (this.#records.size > 100) this.#records.delete(this.#records.keys().next().value);
      this.#settle(event.id, event);
      this.#addPast(event);
      this.#end(event);
    } else if (event.type === "bye") {
      this.#draining = event.reason === "draining";
      const left = this.#total ? `: ${count(this.#total, "stream")} may end by themselves` : "";
      this.#say("lost", this.#draining ? `server is draining${left}` : "no room to watch");
    }
  }

  #note({ total, more, states }) {
    const by = Object.entries(states ?? {}).map(([state, number]) => `${number.toLocaleString("en")} ${state}`);
    const parts = total > ALL_OPEN ? [by.join(", ")] : [];
    if (more) parts.push(`${count(more, "stream")} not listed`);
    $("live-note").textContent = total ? parts.join("; ") : "Nothing runs: no task, no nursery, no deadline.";
  }

  /** Remember how many events came since the last look. */
  #look(id, events) {
    const { last = events, rates = [] } = this.#rates.get(id) ?? {};
    this.#rates.set(id, { last: events, rates: [...rates, events - last].slice(-SPARKS) });
  }

  #gaps(id) {
    const { rates = [] } = this.#rates.get(id) ?? {};
    const most = Math.max(1, ...rates);
    return rates.map((rate) => BARS[Math.round((rate / most) * (BARS.length - 1))]).join("");
  }

  #view(id) {
    return {
      open: this.#toggled.get(id) ?? this.#total <= ALL_OPEN,
      owners: new Set(this.#streams.map(({ owner }) => owner)).size > 1,
      gaps: (one) => this.#gaps(one),
      toggle: (one) => this.#toggle(one),
      cancel: async (one, button) => {
        button.disabled = true;
        if (!(await cancelStream(one))) button.disabled = false;
      },
    };
  }

  #toggle(id) {
    this.#toggled.set(id, !this.#view(id).open);
    const stream = this.#streams.find((one) => one.id === id);
    if (this.#toggled.get(id) && stream && !stream.task && !stream.elsewhere) {
      this.#tree = id;
      this.restart();
    }
    this.#draw();
  }

  /** A stream whose tree is open ends before the reader's eyes, slowly. */
  #end({ id, ...record }) {
    const item = this.#items.get(id);
    this.#toggled.delete(id);
    this.#rates.delete(id);
    if (this.#draining) this.#total = Math.max(0, this.#total - 1);
    if (!item?.querySelector(".tree") || item.dataset.state === "ended") return;
    this.#items.delete(id);
    item.classList.replace("stream", "was");
    showEnding(item, record);
    $("live-ending").replaceChildren(item);
    setTimeout(() => item.remove(), SLOW_MS);
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
      updateStream(this.#items.get(stream.id), stream, now, this.#budgets, this.#view(stream.id));
    }
    const number = this.#total.toLocaleString("en");
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
        el("code", { class: "id", title: record.id }, record.id.slice(0, 8)),
        el("span", { class: "quiet" }, record.model),
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
