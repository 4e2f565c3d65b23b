// How an answer ended, in words: one quiet line when all went well, else a card.

import { count, el, time } from "./dom.js";

const fact = (name, value, note) => [
  el("dt", {}, name),
  el("dd", {}, value, note ? el("span", { class: "quiet" }, ` ${note}`) : null),
];

/** The line under a whole answer. */
export function doneLine(result) {
  const parts = [
    result.upstream === "simulator" ? "simulator" : null,
    "completed",
    result.firstMs == null ? null : `first word ${time(result.firstMs)}`,
    count(result.events, "event"),
    time(result.totalMs),
    result.usage?.completion_tokens == null ? null : count(result.usage.completion_tokens, "token"),
    result.finish ? `finish ${result.finish}` : null,
  ];
  return el("p", { class: "line" }, parts.filter(Boolean).join(" · "));
}

/** The card of an answer that failed. */
export function errorCard(result) {
  const status = result.status ? ` (${result.status})` : "";
  return el(
    "div",
    { class: "card failed" },
    el("p", { class: "title" }, `${result.type ?? "broken"}${status}`),
    el("p", {}, result.message ?? ""),
    result.retryable ? el("p", { class: "quiet" }, "The same request may well succeed if you send it again.") : null,
    el("dl", {}, ...fact("Delivered", count(result.events, "event"), `in ${time(result.totalMs)}`)),
  );
}

/**
 * The card of an answer that was stopped: what the server did about it. `record` is the
 * server's own, from the live view; else the answer to the cancel has to do.
 */
export function stopCard(result, record) {
  const known = record ?? result.receipt;
  const outcome = known?.outcome ?? (result.hungUp ? "client_disconnected" : "cancelled");
  const told = record ? record.told : !result.hungUp;
  const after = told && result.stopMs != null ? `${time(result.stopMs)} after you pressed` : "";
  const span = `in ${time(record?.duration_ms ?? result.totalMs)}`;
  return el(
    "div",
    { class: "card stopped" },
    el("p", { class: "title" }, result.byMe ? "You stopped this answer" : "Someone cancelled this answer"),
    el(
      "dl",
      {},
      ...fact("Outcome", el("code", {}, outcome)),
      ...fact("Upstream closed", ...closing(known)),
      ...fact("Delivered", count(known?.events ?? result.events, "event"), span),
      ...fact("Last event", told ? "error: cancelled" : "none, the line was cut", after),
    ),
  );
}

function closing(known) {
  if (known?.upstream_closed_ms != null) return [`${time(known.upstream_closed_ms)} after the stop`];
  return known ? ["upstream was not connected yet"] : ["-", "the server's record did not arrive"];
}
