// How an answer ended, in words: one quiet line when all went well, else a card.

import { count, el, time } from "./dom.js";

const fact = (name, value, note) => [
  el("dt", {}, name),
  el("dd", {}, value, note ? el("span", { class: "quiet" }, ` ${note}`) : null),
];

// Why a whole answer may be no whole thought.
export const CUT = {
  length: "cut off at the limit of tokens (Options)",
  content_filter: "cut off by the provider's filter",
};

/** The line under a whole answer. */
export function doneLine(result) {
  const parts = [
    result.upstream === "simulator" ? "simulator" : null,
    "completed",
    result.firstMs == null ? null : `first word ${time(result.firstMs)}`,
    count(result.events, "event"),
    time(result.totalMs),
    result.usage?.completion_tokens == null ? null : count(result.usage.completion_tokens, "token"),
    CUT[result.finish] ?? (result.finish ? `finish ${result.finish}` : null),
  ];
  return el("p", { class: "line" }, parts.filter(Boolean).join(" · "));
}

// What an error means, for somebody who has never read the server's manual.
const WORDS = {
  connection_lost: "The line to the server broke",
  missing_api_key: "This server wants a key",
  invalid_api_key: "The server does not know this key",
  permission_denied: "This key may not do that",
  loopback_only: "This server answers its own machine only",
  cross_site: "The server does not answer this site",
  too_many_requests: "You ask faster than this server allows",
  too_many_streams: "The server is full",
  too_many_streams_of_client: "You have as many answers running as you may",
  too_many_bodies: "The server is full",
  overloaded: "The server is full",
  server_overloaded: "The server is full",
  budget_exhausted: "This key has spent what it may",
  limits_unavailable: "The server cannot tell what this key may spend",
  shutting_down: "The server is being restarted",
  payload_too_large: "This is more than the server takes",
  invalid_request: "The server does not understand the request",
  unprocessable: "The server does not understand the request",
  precondition_failed: "The server does not understand the request",
  unsupported_media_type: "The server does not understand the request",
  not_found: "There is no such model, or no such answer any more",
  events_gone: "The server has the beginning of this answer no longer",
  stream_gone: "The server that had this answer is gone",
  internal_error: "The server made a mistake",
  deadline_exceeded: "The answer took too long",
  first_token_timeout: "The model did not begin in time",
  stream_idle_timeout: "The model fell silent",
  upstream_unreachable: "The provider cannot be reached",
  upstream_misconfigured: "The server asks its provider in the wrong place",
  upstream_timeout: "The provider took too long",
  upstream_error: "The provider made a mistake",
  upstream_unavailable: "The provider is down",
  upstream_overloaded: "The provider is overloaded",
  upstream_rate_limited: "The provider allows no more requests now",
  upstream_payment_required: "The server's account has no credit left",
  upstream_authentication: "The provider refuses the server's key",
  provider_authentication: "The provider refuses the server's key",
  upstream_failed: "The provider broke off",
  upstream_rejected: "The provider refused the request",
};

/** The card of an answer that failed; `remedies` are the buttons with what to do. */
export function errorCard(result, remedies) {
  const status = result.status ? ` (${result.status})` : "";
  return el(
    "div",
    { class: "card failed" },
    el("p", { class: "title" }, WORDS[result.type] ?? "The answer failed"),
    el("p", {}, result.message ?? ""),
    el("p", { class: "quiet" }, el("code", {}, `${result.type ?? "broken"}${status}`), result.retryable ? " · may well succeed if you send it again" : ""),
    el("dl", {}, ...fact("Delivered", count(result.events, "event"), `in ${time(result.totalMs)}`)),
    ...remedies,
  );
}

/**
 * The card of an answer that was stopped: what the server did about it. `record` is the
 * server's own, from the live view; else the answer to the cancel has to do.
 */
export function stopCard(result, record) {
  const known = record ?? result.receipt;
  const left = result.grace ? `not heard: the server ends it within ${result.grace} s` : "client_disconnected";
  const outcome = known?.outcome ?? (result.hungUp ? left : "cancelled");
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
