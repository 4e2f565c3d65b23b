"""Messages and Responses as bytes: answers of blocks, each opened, filled and closed.

Pure. Shapes from Anthropic's "Streaming messages", OpenAI's reference of the Responses
API's events, and the models of their SDKs (tests/simulator/test_block_encoding.py). An
event has a name, which is its type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from trio_ai_stream.simulator.encoding import HOLE, Encoder, clean, encode, error_object
from trio_ai_stream.simulator.simulated_answer import SimulatedAnswer, ToolCall

SIGNATURE = "c2lnbmF0dXJl"
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class BlockEncoder(Encoder, ABC):
    """What the two have in common: which block is open.

    A block has a kind (`thinking`, `text`, `refusal`, `tool`) and an index.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._kind = ""
        self._index = -1
        self._call: ToolCall | None = None
        self._parts: list[str] = []  # of the open block

    def event(self, kind: str, **fields: Any) -> bytes:
        """Return one event."""
        name = b"event: " + kind.encode() + self._line
        return name + self.frame(encode({"type": kind, **fields}))

    def _enter(self, kind: str, call: ToolCall | None = None) -> bytes:
        """Return what closes the block that is open and opens the next, if need be."""
        if kind == self._kind and call is self._call:
            return b""
        closed = self._close_block()
        self._index += 1
        self._kind, self._call, self._parts = kind, call, []
        return closed + self._open_block()

    @abstractmethod
    def _open_block(self) -> bytes:
        """Return the events that open the block of `_kind` and `_call`."""

    @abstractmethod
    def _close_block(self) -> bytes:
        """Return the events that close it; nothing if none is open."""

    @abstractmethod
    def _piece(self, text: str) -> bytes:
        """Return the event that adds a text to it."""

    def _said(self, kind: str, texts: Iterable[str]) -> bytes:
        entered = self._enter(kind)
        return entered + b"".join([self._piece(clean(text)) for text in texts])

    def content(self, tokens: Iterable[str]) -> bytes:
        """Return a block of content events, one a token."""
        return self._said("text", tokens)

    def reasoning(self, token: str) -> bytes:
        """Return one piece of thinking."""
        return self._said("thinking", [token])

    def refusal(self, words: str) -> bytes:
        """Return one piece of a refusal."""
        return self._said("refusal", [words])

    def tool_call(self, index: int, call: ToolCall) -> list[bytes]:
        """Return the events of one tool call: its block, then argument fragments."""
        return [self._enter("tool", call), *map(self._piece, call.fragments())]

    def corrupt(self, kind: str, size: int) -> bytes:
        """Return one event that is not as it should be."""
        entered = self._enter("text")
        self._open, self._close = self._piece(HOLE).split(encode(HOLE))
        if kind == "json":
            return entered + self._piece("broken")[:-20] + self._line * 2
        return entered + super().corrupt(kind, size)

    def debug(self, body: Any) -> bytes:
        """Return nothing: these have no such event."""
        return b""


class SimulatedMessageEncoder(BlockEncoder):
    """Anthropic's Messages."""

    def begin(self, prompt_tokens: int) -> bytes:
        """Return the first events."""
        usage = {"input_tokens": prompt_tokens, "output_tokens": 1}
        started = self.event(
            "message_start", message=self._message([], None, {**_CACHE, **usage})
        )
        return started + self.event("ping")

    def _message(
        self,
        content: list[Any],
        stop: str | None,
        usage: dict[str, Any],
        sequence: str | None = None,
    ) -> dict[str, Any]:
        return {
            "id": self._base["id"],
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self._base["model"],
            "stop_reason": stop,
            "stop_sequence": sequence,
            "usage": usage,
            "provider": self._base["provider"],
        }

    def _open_block(self) -> bytes:
        block: dict[str, Any] = {"type": "text", "text": ""}
        if self._kind == "thinking":
            block = {"type": "thinking", "thinking": "", "signature": ""}
        elif self._call is not None:
            call = self._call
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        return self.event("content_block_start", index=self._index, content_block=block)

    def _piece(self, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        if self._kind == "thinking":
            delta = {"type": "thinking_delta", "thinking": text}
        elif self._kind == "tool":
            delta = {"type": "input_json_delta", "partial_json": text}
        return self.event("content_block_delta", index=self._index, delta=delta)

    def _close_block(self) -> bytes:
        if not self._kind:
            return b""
        signed = b""
        if self._kind == "thinking":
            delta = {"type": "signature_delta", "signature": SIGNATURE}
            signed = self.event("content_block_delta", index=self._index, delta=delta)
        return signed + self.event("content_block_stop", index=self._index)

    def ending(
        self, answer: SimulatedAnswer, usage: dict[str, Any], _place: str, *, done: bool
    ) -> list[bytes]:
        """Return what follows the last piece; without `done` no `message_stop`."""
        delta = {
            "stop_reason": _stop_reason(answer),
            "stop_sequence": answer.stop_sequence,
        }
        frames = [
            self._close_block(),
            self.event("message_delta", delta=delta, usage=_anthropic_usage(usage)),
        ]
        return [*frames, self.event("message_stop")] if done else frames

    def document(
        self,
        answer: SimulatedAnswer,
        usage: dict[str, Any],
        error: dict[str, Any] | None,
        shape: str,
    ) -> bytes:
        """Return the whole message; its error, if it failed."""
        if error is not None:
            return encode({"type": "error", "error": anthropic_error(error)})
        content: list[dict[str, Any]] = []
        if answer.reasoning:
            text = "".join(answer.reasoning)
            content.append(
                {"type": "thinking", "thinking": text, "signature": SIGNATURE}
            )
        words = [*answer.preface, *answer.words]
        if text := answer.refusal or clean("".join(words)):
            content.append({"type": "text", "text": text})
        content += [
            {
                "type": "tool_use",
                "id": call.id,
                "name": call.name,
                "input": call.value(),
            }
            for call in answer.tool_calls
        ]
        stop, sequence = _stop_reason(answer), answer.stop_sequence
        return encode(self._message(content, stop, _anthropic_usage(usage), sequence))

    def error(self, error: dict[str, Any], shape: str) -> bytes:
        """Return an error event."""
        return self.event("error", error=anthropic_error(error))

    def done(self) -> bytes:
        """Return nothing: `message_stop` is the end mark."""
        return b""


_CACHE = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


def _anthropic_usage(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        **_CACHE,
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "cost": usage["cost"],
    }


def _stop_reason(answer: SimulatedAnswer) -> str:
    refused = answer.refusal or answer.finish_reason == "content_filter"
    return "refusal" if refused else answer.native_finish_reason()


def anthropic_error(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error of OpenRouter's in Anthropic's words."""
    kind = _ERROR_TYPES.get(error["code"], "api_error")
    return {"type": kind, "message": error["message"]}


class SimulatedResponseEncoder(BlockEncoder):
    """OpenAI's Responses."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._number = -1
        self._output: list[dict[str, Any]] = []
        self._held = 0  # characters

    def event(self, kind: str, **fields: Any) -> bytes:
        """Return one event with the next number."""
        self._number += 1
        return super().event(kind, sequence_number=self._number, **fields)

    def begin(self, prompt_tokens: int) -> bytes:
        """Return the first events."""
        response = self._response("in_progress", [], None)
        return b"".join(
            self.event(f"response.{kind}", response=response)
            for kind in ("created", "in_progress")
        )

    def _response(
        self,
        status: str,
        output: list[dict[str, Any]],
        usage: dict[str, Any] | None,
        **more: Any,
    ) -> dict[str, Any]:
        return {
            "id": self._base["id"],
            "object": "response",
            "created_at": self._base["created"],
            "completed_at": self._base["created"] if status == "completed" else None,
            "model": self._base["model"],
            "status": status,
            "output": output,
            "error": None,
            "incomplete_details": None,
            **_DEFAULTS,
            **self.repeated,
            "usage": usage,
            "provider": self._base["provider"],
            **more,
        }

    def _item(self, status: str, text: str) -> dict[str, Any]:
        """Return the open item as it stands when it holds `text`."""
        name = f"{self._index}_{self._base['id']}"
        if self._kind == "thinking":
            summary = [{"type": "summary_text", "text": text}] if text else []
            return {"type": "reasoning", "id": f"rs_{name}", "summary": summary}
        if self._call is not None:
            return {
                "type": "function_call",
                "id": f"fc_{name}",
                "call_id": self._call.id,
                "name": self._call.name,
                "arguments": text,
                "status": status,
            }
        content = [self._part(text)] if status == "completed" else []
        return {
            "type": "message",
            "id": f"msg_{name}",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _part(self, text: str) -> dict[str, Any]:
        if self._kind == "thinking":
            return {"type": "summary_text", "text": text}
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _place(self) -> dict[str, Any]:
        """Return where a piece belongs."""
        item = self._item("in_progress", "")["id"]
        place: dict[str, Any] = {"item_id": item, "output_index": self._index}
        if self._kind == "thinking":
            return {**place, "summary_index": 0}
        return place if self._kind == "tool" else {**place, "content_index": 0}

    def _open_block(self) -> bytes:
        item = self._item("in_progress", "")
        added = self.event(
            "response.output_item.added", output_index=self._index, item=item
        )
        if self._kind == "tool":
            return added
        return added + self.event(
            f"{_PART[self._kind]}.added", part=self._part(""), **self._place()
        )

    def _piece(self, text: str) -> bytes:
        if self._held < _HELD:  # an answer without end has no document
            self._parts.append(text)
            self._held += len(text)
        more: dict[str, Any] = {"logprobs": []} if self._kind == "text" else {}
        kind = f"{_TEXT[self._kind]}.delta"
        return self.event(kind, delta=text, **self._place(), **more)

    def _close_block(self) -> bytes:
        if not self._kind:
            return b""
        text = "".join(self._parts)
        kind, place = self._kind, self._place()
        field = {"tool": "arguments", "refusal": "refusal"}.get(kind, "text")
        said: dict[str, Any] = {field: text}
        if kind == "text":
            said["logprobs"] = []
        if self._call is not None:
            said["name"] = self._call.name
        frames = [self.event(f"{_TEXT[kind]}.done", **place, **said)]
        if kind != "tool":
            part = self._part(text)
            frames.append(self.event(f"{_PART[kind]}.done", part=part, **place))
        item = self._item("completed", text)
        self._output.append(item)
        frames.append(
            self.event("response.output_item.done", output_index=self._index, item=item)
        )
        return b"".join(frames)

    def ending(
        self, answer: SimulatedAnswer, usage: dict[str, Any], _place: str, *, done: bool
    ) -> list[bytes]:
        """Return what follows the last piece; without `done` not the response."""
        closed = self._close_block()
        if not done:
            return [closed]
        status, more = _status(answer)
        response = self._response(status, self._output, _openai_usage(usage), **more)
        return [
            closed,
            self.event(f"response.{status}", response=response),
            self.done(),
        ]

    def document(
        self,
        answer: SimulatedAnswer,
        usage: dict[str, Any],
        error: dict[str, Any] | None,
        shape: str,
    ) -> bytes:
        """Return the whole response; its error, if it failed."""
        if error is not None:
            return encode({"error": error})
        if answer.reasoning:
            self._said("thinking", answer.reasoning)
        if answer.refusal:
            self.refusal(answer.refusal)
        if words := [*answer.preface, *answer.words]:
            self.content(words)
        for index, call in enumerate(answer.tool_calls):
            self.tool_call(index, call)
        self._close_block()
        status, more = _status(answer)
        usage = _openai_usage(usage)
        return encode(self._response(status, self._output, usage, **more))

    def error(self, error: dict[str, Any], shape: str) -> bytes:
        """Return `response.failed`, or with another shape an error event."""
        word = "rate_limit_exceeded" if error["code"] == 429 else "server_error"
        plain = {"code": word, "message": error["message"]}
        if shape == "choice":
            failed = self._response("failed", self._output, None, error=plain)
            return self.event("response.failed", response=failed)
        if shape == "bare":
            return self.frame(encode({"type": "error", "error": error}))
        return self.event("error", **plain, param=None)

    def done(self) -> bytes:
        """Return the end mark, which OpenRouter sends here as well."""
        return self.frame(b"[DONE]")


_HELD = 1 << 20
# What a response says of a request that leaves it open.
_DEFAULTS: dict[str, Any] = {
    "background": False,
    "frequency_penalty": 0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": False,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_PART = {
    "thinking": "response.reasoning_summary_part",
    "text": "response.content_part",
    "refusal": "response.content_part",
}
_TEXT = {
    "thinking": "response.reasoning_summary_text",
    "text": "response.output_text",
    "refusal": "response.refusal",
    "tool": "response.function_call_arguments",
}


def _status(answer: SimulatedAnswer) -> tuple[str, dict[str, Any]]:
    reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
    reason = reasons.get(answer.finish_reason)
    if reason is None:
        return "completed", {}
    return "incomplete", {"incomplete_details": {"reason": reason}}


def _openai_usage(usage: dict[str, Any]) -> dict[str, Any]:
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": usage["total_tokens"],
        "cost": usage["cost"],
    }


def anthropic_error_json(code: int | str, message: str | None = None) -> bytes:
    """Return the JSON body of an error of `/messages`."""
    error = anthropic_error(error_object(code, message))
    return encode({"type": "error", "error": error})
