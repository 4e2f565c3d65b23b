"""OpenRouter's events and errors as bytes.

Pure. Shapes from OpenRouter's ChatStreamChunk, its streaming and error pages and its
OpenAPI file. JSON is written as JavaScript's `JSON.stringify` writes it: UTF-8 is not
escaped, U+2028 neither. A block of content events is one join of prepared bytes,
because the simulator must outrun what it measures.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from trio_ai_stream.simulator.faults import Eol, Faults
from trio_ai_stream.simulator.simulated_answer import SimulatedAnswer, ToolCall

PROCESSING = ": OPENROUTER PROCESSING"
_EOLS: dict[Eol, bytes] = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}
HOLE = "\x00hole"

encode = msgspec.json.encode


def clean(text: str) -> str:
    """Return the text with lone surrogates replaced: UTF-8 can not carry them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@functools.lru_cache(maxsize=8192)
def json_string(token: str) -> bytes:
    """Return a token as a JSON string."""
    return encode(clean(token))


class Encoder:
    """Writes the events of one stream, all with the same id, model and line ends.

    `repeated` is what the answer says again of its request.
    """

    def __init__(
        self,
        *,
        generation_id: str,
        model: str,
        created: int,
        provider: str = "Simulator",
        eol: Eol = "lf",
        space: bool = True,
        repeated: Mapping[str, Any] | None = None,
    ) -> None:
        self.repeated = repeated or {}
        self._base = {
            "id": generation_id,
            "provider": provider,
            "model": model,
            "object": "chat.completion.chunk",
            "created": created,
        }
        self._line = _EOLS[eol]
        self._data = b"data: " if space else b"data:"
        template = self.delta({"role": "assistant", "content": HOLE})
        self._open, self._close = template.split(encode(HOLE))
        self._seam = self._close + self._open

    def begin(self, prompt_tokens: int) -> bytes:
        """Return what stands before the answer: nothing."""
        return b""

    def frame(self, data: bytes) -> bytes:
        """Return one event whose data is this line of bytes."""
        return self._data + data + self._line * 2

    def chunk(self, **fields: Any) -> bytes:
        """Return one event: the stream's common fields, then these."""
        return self.frame(encode(self._base | fields))

    def delta(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        native: str | None = None,
        **fields: Any,
    ) -> bytes:
        """Return one event with one choice."""
        choice = {
            "index": 0,
            "delta": delta,
            "finish_reason": finish_reason,
            "native_finish_reason": native,
            "logprobs": None,
        }
        return self.chunk(choices=[choice], **fields)

    def content(self, tokens: Iterable[str]) -> bytes:
        """Return a block of content events, one a token; at least one token."""
        return self._open + self._seam.join(map(json_string, tokens)) + self._close

    def reasoning(self, token: str) -> bytes:
        """Return one reasoning event, in both of OpenRouter's forms."""
        detail = {
            "type": "reasoning.text",
            "text": token,
            "signature": None,
            "id": "reasoning-text-1",
            "format": "anthropic-claude-v1",
            "index": 0,
        }
        return self.delta(
            {
                "role": "assistant",
                "content": "",
                "reasoning": token,
                "reasoning_details": [detail],
            }
        )

    def refusal(self, words: str) -> bytes:
        """Return one refusal event."""
        return self.delta({"role": "assistant", "content": None, "refusal": words})

    def tool_call(self, index: int, call: ToolCall) -> list[bytes]:
        """Return the events of one tool call: its name, then argument fragments."""
        head = {
            "index": index,
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }
        pieces = [
            {"index": index, "function": {"arguments": fragment}}
            for fragment in call.fragments()
        ]
        return [
            self.delta({"role": "assistant", "content": None, "tool_calls": [piece]})
            for piece in (head, *pieces)
        ]

    def finish(self, reason: str, native: str, usage: dict[str, Any] | None) -> bytes:
        """Return the last event with a choice; usage may ride on it."""
        delta = {"role": "assistant", "content": ""}
        if usage is None:
            return self.delta(delta, reason, native)
        return self.delta(delta, reason, native, usage=usage)

    def ending(
        self, answer: SimulatedAnswer, usage: dict[str, Any], place: str, *, done: bool
    ) -> list[bytes]:
        """Return what follows the last piece; `place` is where the usage stands."""
        native = answer.native_finish_reason()
        last = usage if place == "last" else None
        frames = [self.finish(answer.finish_reason, native, last)]
        if place == "own":
            frames.append(self.usage(usage))
        return [*frames, self.done()] if done else frames

    def document(
        self,
        answer: SimulatedAnswer,
        usage: dict[str, Any],
        error: dict[str, Any] | None,
        shape: str,
    ) -> bytes:
        """Return the whole answer as one document; its error, if it failed."""
        if error is not None and shape != "choice":
            return encode({"error": error})
        words = answer.words if answer.count else answer.preface
        message: dict[str, Any] = {
            "role": "assistant",
            "content": clean("".join(words)) if words else None,
            "refusal": answer.refusal,
            "reasoning": "".join(answer.reasoning) or None,
        }
        if answer.tool_calls:
            message["tool_calls"] = [
                {
                    "index": index,
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for index, call in enumerate(answer.tool_calls)
            ]
        choice: dict[str, Any] = {
            "logprobs": None,
            "finish_reason": answer.finish_reason,
            "native_finish_reason": answer.native_finish_reason(),
            "index": 0,
            "message": message,
        }
        if error is not None:
            choice |= {"finish_reason": "error", "error": error}
        document = self._base | {
            "object": "chat.completion",
            "system_fingerprint": None,
            "choices": [choice],
            "usage": usage,
        }
        return encode(document)

    def usage(self, usage: dict[str, Any]) -> bytes:
        """Return the usage event: its `choices` is an empty list."""
        return self.chunk(choices=[], usage=usage)

    def debug(self, body: Any) -> bytes:
        """Return the debug event that answers `debug.echo_upstream_body`."""
        return self.chunk(choices=[], debug={"echo_upstream_body": body})

    def error(self, error: dict[str, Any], shape: str) -> bytes:
        """Return an error event; `error` stands before `choices`, as OpenRouter's."""
        if shape == "bare":
            return self.frame(encode({"error": error}))
        if shape == "empty":
            return self.chunk(error=error, choices=[])
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "finish_reason": "error"}
        return self.chunk(error=error, choices=[choice])

    def comment(self) -> bytes:
        """Return the comment that OpenRouter sends while it waits."""
        return PROCESSING.encode() + self._line * 2

    def done(self) -> bytes:
        """Return the end mark."""
        return self.frame(b"[DONE]")

    def corrupt(self, kind: str, size: int) -> bytes:
        """Return one event that is not as it should be."""
        if kind == "json":
            return self.content(["broken"])[:-20] + self._line * 2
        if kind == "utf8":
            return self._open + b'"\xc3\x28 \xff\xfe"' + self._close
        if kind == "giant":
            return self._open + b'"' + b"x" * size + b'"' + self._close
        odd = (b"event: ping", b"id: 7", b"retry: 3000", b"unknown: field", b"data")
        return self._line.join(odd[:4]) + self._line * 2


PIECE = b" " * 4096  # of a body that never ends
CREDITS = "Insufficient credits. Add more using https://openrouter.ai/credits"


class KnownError(NamedTuple):
    """What OpenRouter says under one status."""

    phrase: str
    message: str
    error_type: str | None


ERRORS: dict[int, KnownError] = {
    400: KnownError("Bad Request", "Invalid request parameters", "invalid_request"),
    401: KnownError("Unauthorized", "Missing Authentication header", "authentication"),
    402: KnownError("Payment Required", CREDITS, "payment_required"),
    403: KnownError("Forbidden", "Your input was flagged", "permission_denied"),
    404: KnownError("Not Found", "Resource not found", "not_found"),
    408: KnownError(
        "Request Timeout", "Operation timed out. Please try again later.", None
    ),
    413: KnownError(
        "Payload Too Large", "Request payload too large", "payload_too_large"
    ),
    422: KnownError("Unprocessable Entity", "Invalid argument", "unprocessable"),
    429: KnownError("Too Many Requests", "Rate limit exceeded", "rate_limit_exceeded"),
    500: KnownError("Internal Server Error", "Internal Server Error", "server"),
    502: KnownError("Bad Gateway", "Provider returned error", "provider_unavailable"),
    503: KnownError(
        "Service Unavailable", "Service temporarily unavailable", "provider_overloaded"
    ),
    504: KnownError("Gateway Timeout", "The provider timed out", "timeout"),
    524: KnownError(
        "A Timeout Occurred", "Request timed out. Please try again later.", None
    ),
    529: KnownError("Site is overloaded", "Provider Overloaded", "provider_overloaded"),
}
OTHER = KnownError("Error", "Unexpected error", "unmapped")


def error_object(code: int | str, message: str | None = None) -> dict[str, Any]:
    """Return the `error` object for a code; 500 and its like carry no provider code."""
    known = ERRORS.get(code, OTHER) if isinstance(code, int) else OTHER
    metadata: dict[str, Any] = {}
    if known.error_type is not None:
        metadata["error_type"] = known.error_type
    if code == 429:
        metadata["provider_code"] = "rate_limited"
    error: dict[str, Any] = {"code": code, "message": message or known.message}
    return {**error, "metadata": metadata} if metadata else error


def error_json(code: int | str, message: str | None = None) -> bytes:
    """Return the JSON body of an error."""
    return encode({"error": error_object(code, message)})


def error_body(faults: Faults) -> tuple[str, bytes]:
    """Return content type and body of the answer that `faults.status` asks for.

    Under 200 the code in the body is `faults.code`, as when a provider fails late.
    """
    status = faults.status or 500
    known = ERRORS.get(status, OTHER)
    if faults.body == "html":
        page = (
            "<!DOCTYPE html>\n<html><head><title>openrouter.ai | "
            f"{status}: {known.phrase}</title></head>\n<body><h1>Error {status}</h1>"
            "<p>cloudflare</p></body></html>\n"
        )
        return "text/html; charset=UTF-8", page.encode()
    if faults.body == "text":
        return "text/plain", f"upstream error: {known.phrase}\n".encode()
    if faults.body == "empty":
        return "application/json", b""
    if faults.body == "endless":
        return "application/json", b'{"error":{"message":"'
    if faults.body == "availability":
        return "application/json", encode(_availability(faults, known))
    body = error_json(faults.code if status == 200 else status)
    return "application/json", body


def _availability(faults: Faults, known: KnownError) -> dict[str, Any]:
    hint = faults.retry_after or ""
    seconds = int(hint) if hint.isascii() and hint.isdigit() else 1
    return {
        "error": {
            "message": f"All providers are at capacity. Retry after {seconds} seconds.",
            "error_type": known.error_type,
            "http_status": faults.status,
            "availability": {
                "code": "capacity_exhausted",
                "retryable": True,
                "retry_after": seconds,
                "requested_models": ["simulator/at-capacity"],
                "affected_providers": ["simulator"],
                "fallback_models": ["simulator/default"],
                "docs_url": "https://openrouter.ai/docs/errors#capacity_exhausted",
            },
            "metadata": {
                "previous_errors": [
                    {
                        "provider": "simulator",
                        "code": "capacity_exhausted",
                        "status": faults.status,
                    }
                ]
            },
        }
    }
