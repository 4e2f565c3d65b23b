// The live view: follows `/streams/live` while the page is visible, and remembers how
// streams ended, for the Stop button's receipt.

import { $, count, el, showLink, time } from "./dom.js";
import { showEnding, updateStream } from "./tree.js";
import { Refusal, tryToCancel, watchStreams } from "./server.js";

const PAST = 6;
const RETRIES_MS = [250, 500, 1000, 3000];
// How often what is listed is drawn anew, and looked at for its gaps.
const TICK_MS = 250;
// So few streams are all open; among more only those that somebody has opened.
const ALL_OPEN = 2;
const SLOW_MS = 6000;
// Gaps from 30 ms (nothing to see) to 30 s, in steps that feel alike.
const BARS = "▁▂▃▄▅▆▇█";
const [SHORT_S, LONG_S] = [0.03, 30];
const LOOKS = 9;

export class LiveView {
  #records = new Map();
  #waiting = new Map();
  #items = new Map();
  #streams = [];
  #offset = 0;
  #abort = null;
  #inView;
  #budgets;
  #total = 0; // null: not known
  #toggled = new Map(); // what somebody has opened or closed, by id
  #gaps = new Map(); // {events, since, gaps} at the last look, by id
  #finishing = new Map(); // over, while the rest of the answer is read: the records by id
  #owned = false; // by several: whose each is is worth a column
  #tree = "";
  #draining = false;

  constructor(budgets) {
    this.#budgets = budgets;
    // Rows that nobody sees are not kept up to date: two hundred would cost the page its ease.
    this.#inView = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) target.inView = isIntersecting;
        this.#draw();
      },
      { rootMargin: "200px" },
    );
    // A hidden page watches nothing: watching costs the server a little.
    document.addEventListener("visibilitychange", () => this.restart());
    setInterval(() => {
      this.#look();
      this.#draw();
    }, TICK_MS);
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
    for (let tries = 0; !signal.aborted; tries += 1) {
      try {
        for await (const events of watchStreams(signal, this.#tree)) {
          for (const event of events) this.#take(event);
          tries = 0;
        }
        this.#lose("reconnecting");
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401) {
          $("key-option").hidden = false; // it may want one since this page was loaded
          return showLink("waiting", "needs the API key");
        }
        this.#lose(error.status === 503 ? "live view full, trying again" : "reconnecting");
      }
      if (signal.aborted) return;
      await new Promise((resolve) => setTimeout(resolve, RETRIES_MS[tries] ?? RETRIES_MS.at(-1)));
    }
  }

  /** Nothing is known of the streams for now. A drain that was said stays said. */
  #lose(why) {
    this.#streams = [];
    this.#finishing.clear();
    this.#total = this.#draining ? 0 : null;
    $("live-note").textContent = this.#draining
      ? "The server has drained: its streams have ended. Waiting for the next one."
      : "Not known: there is no connection to the server.";
    showLink("lost", this.#draining ? "drained, waiting for a server" : why);
    this.#draw();
  }

  #take(event) {
    if (event.type === "snapshot") {
      this.#offset = event.now - performance.now() / 1000;
      this.#finish(event);
      this.#streams = event.streams;
      this.#total = event.total;
      this.#draining = event.draining;
      if (this.#draining) showLink("lost", `draining: ${count(event.total, "stream")} left`);
      else showLink("live", "live");
      this.#note(event);
      if (event.streams.some(({ id }) => !this.#items.has(id))) this.#draw();
    } else if (event.type === "ended") {
      this.#records.set(event.id, event);
      if (this.#records.size > 100) this.#records.delete(this.#records.keys().next().value);
      this.#settle(event.id, event);
      this.#addPast(event);
      if (event.finishing) this.#finishing.set(event.id, event);
      else this.#end(event);
    } else if (event.type === "bye") {
      this.#draining = event.reason === "draining";
    }
  }

  /** Those whose answer has been read to its end are gone: let the reader see it. */
  #finish({ streams, now }) {
    for (const [id, record] of this.#finishing) {
      const since = (record.since ??= now);
      if (streams.some((stream) => stream.id === id)) continue;
      this.#finishing.delete(id);
      this.#end({ ...record, rest_ms: (now - since) * 1000 });
    }
  }

  #note({ total, more, states, streams, complete = true }) {
    const by = Object.entries(states).map(([state, number]) => `${number.toLocaleString("en")} ${state}`);
    const parts = total > ALL_OPEN ? [by.join(", ")] : [];
    if (more) parts.push(`${count(more, "stream")} not listed`);
    const rests = streams.filter(({ state }) => state === "finishing").length;
    if (rests) parts.push(`${count(rests, "stream")} over, the rest of upstream's answer is being read`);
    else if (total === 0 && complete) parts.push("Nothing runs: no task, no nursery, no deadline");
    if (!complete) parts.push("not all processes answer: there may be streams that are not listed");
    if (this.#draining) parts.push("the server drains: it takes no new stream");
    const said = parts.filter(Boolean).join("; ");
    $("live-note").textContent = said && `${said[0].toUpperCase()}${said.slice(1)}.`;
  }

  /** Remember for each stream how long it let wait for an event since the last look. */
  #look() {
    const now = performance.now() / 1000;
    for (const { id, events } of this.#streams) {
      const known = this.#gaps.get(id) ?? { events, since: now, gaps: [] };
      const more = events - known.events;
      known.gaps.push((now - known.since) / Math.max(1, more));
      if (known.gaps.length > LOOKS) known.gaps.shift();
      if (more > 0) known.since = now;
      known.events = events;
      this.#gaps.set(id, known);
    }
  }

  #spark(id) {
    const steps = BARS.length - 1;
    const height = (gap) => Math.round((steps * Math.log(gap / SHORT_S)) / Math.log(LONG_S / SHORT_S));
    return (this.#gaps.get(id)?.gaps ?? []).map((gap) => BARS[Math.min(steps, Math.max(0, height(gap)))]).join("");
  }

  #view(id) {
    return {
      open: this.#toggled.get(id) ?? this.#total <= ALL_OPEN,
      owned: this.#owned,
      spark: (one) => this.#spark(one),
      toggle: (one) => this.#toggle(one),
      cancel: (one) => this.#cancel(one),
    };
  }

  async #cancel(id) {
    $("live-failed").hidden = true;
    try {
      await tryToCancel(id);
    } catch (error) {
      if (error.status === 404) return; // it has just ended
      const why = error instanceof Refusal ? error.message : "the server did not answer";
      $("live-failed").hidden = false;
      $("live-failed").textContent = `Stream ${id.slice(0, 8)} could not be cancelled: ${why}.`;
    }
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
    this.#gaps.delete(id);
    if (!item?.querySelector(".tree") || item.classList.contains("was")) return;
    this.#items.delete(id);
    item.classList.replace("stream", "was");
    this.#leave(item);
    $("live-streams").querySelector(".was")?.remove();
    $("live-streams").tHead.after(item);
    showEnding(item, record);
    setTimeout(() => this.#forget(item), SLOW_MS);
  }

  /** Who points at it is reading. */
  #forget(item) {
    if (item.matches(":hover")) setTimeout(() => this.#forget(item), SLOW_MS / 6);
    else item.remove();
  }

  /** The focus does not vanish with a row. */
  #leave(item) {
    if (item.contains(document.activeElement)) $("live-body").focus({ preventScroll: true });
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
      this.#inView.unobserve(item);
      this.#leave(item);
      item.remove();
      this.#items.delete(id);
      this.#gaps.delete(id);
    }
    const owners = new Set(this.#streams.map(({ owner }) => owner)).size;
    this.#owned = owners > 1;
    $("live-streams").classList.toggle("owned", this.#owned);
    for (const stream of this.#streams) {
      if (!this.#items.has(stream.id)) {
        const item = el("tbody", { class: "stream", "data-id": stream.id });
        this.#items.set(stream.id, item);
        $("live-streams").append(item);
        item.inView = true;
        this.#inView.observe(item);
      }
      const item = this.#items.get(stream.id);
      if (item.inView) updateStream(item, stream, now, this.#budgets, this.#view(stream.id));
    }
    $("live-streams").hidden = $("live-streams").tBodies.length === 0;
    const number = this.#total?.toLocaleString("en") ?? "?";
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
}
