"""What the model would say to one request: words, tool calls, finish reason, usage.

Pure. The stream and the single answer (schedule.py) are two renderings of one
`SimulatedAnswer`, which is why they always agree.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from trio_ai_stream.simulator.simulated_chat import SimulatedChat
from trio_ai_stream.simulator.text import (
    REFUSAL,
    cut_at_stop,
    reasoning,
    seed_of,
    stream_of_tokens,
    tokenize,
    whole_answer,
)

FRAGMENT = 9  # characters of tool arguments in one event
PROMPT_PRICE, COMPLETION_PRICE = 3e-6, 15e-6  # dollars a token, Sonnet's order


def prompt_tokens(prompt: str) -> int:
    """Return what a prompt counts."""
    return max(1, len(prompt) // 4)


def price(prompt_tokens: int, completion_tokens: int) -> float:
    """Return what so many tokens cost, in dollars."""
    cost = prompt_tokens * PROMPT_PRICE + completion_tokens * COMPLETION_PRICE
    return round(cost, 9)


class ToolCall(msgspec.Struct, frozen=True):
    """One function call: its id, its name and its arguments as JSON text."""

    id: str
    name: str
    arguments: str

    def value(self) -> Any:
        """Return the arguments as what they say."""
        return msgspec.json.decode(self.arguments)

    def fragments(self) -> tuple[str, ...]:
        """Cut the arguments into the pieces that a stream carries."""
        whole = self.arguments
        return tuple(whole[at : at + FRAGMENT] for at in range(0, len(whole), FRAGMENT))


class Words:
    """The tokens of a long answer, made anew by each iteration and never held."""

    def __init__(self, prompt: str, seed: int, count: int | None) -> None:
        self._prompt, self._seed, self._count = prompt, seed, count

    def __iter__(self) -> Iterator[str]:
        words = stream_of_tokens(self._prompt, self._seed)
        return itertools.islice(words, self._count)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAnswer:
    """One answer; `count` is the number of `words`, None if they have no end."""

    words: Iterable[str] = ()
    count: int | None = 0
    reasoning: tuple[str, ...] = ()
    refusal: str | None = None
    preface: tuple[str, ...] = ()  # words before the tool calls
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"
    stop_sequence: str | None = None  # the one that ended it
    prompt_tokens: int = 1

    def native_finish_reason(self) -> str:
        """Return the provider's own word for the finish reason."""
        if self.stop_sequence is not None:
            return "stop_sequence"
        native = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
        return native.get(self.finish_reason, self.finish_reason)

    def usage(self, completion_tokens: int) -> dict[str, Any]:
        """Return OpenRouter's usage object for so many tokens generated."""
        prompt_cost = self.prompt_tokens * PROMPT_PRICE
        completion_cost = completion_tokens * COMPLETION_PRICE
        cost = price(self.prompt_tokens, completion_tokens)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "cost": cost,
            "is_byok": False,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_write_tokens": 0,
                "audio_tokens": 0,
                "video_tokens": 0,
            },
            "completion_tokens_details": {"reasoning_tokens": len(self.reasoning)},
            "cost_details": {
                "upstream_inference_cost": None,
                "upstream_inference_prompt_cost": round(prompt_cost, 9),
                "upstream_inference_completions_cost": round(completion_cost, 9),
            },
        }


def compose(chat: SimulatedChat) -> SimulatedAnswer:
    """Decide the answer to a request."""
    faults = chat.faults
    seed = seed_of(chat.prompt, chat.seed)
    answer = SimulatedAnswer(
        reasoning=reasoning(faults.reasoning),
        prompt_tokens=prompt_tokens(chat.prompt),
    )
    calls = _tool_calls(chat, seed)
    if faults.refusal:
        answer = dataclasses.replace(answer, refusal=REFUSAL)
    elif calls:
        answer = dataclasses.replace(
            answer,
            preface=tuple(Words(chat.prompt, seed, faults.preface)),
            tool_calls=calls,
            finish_reason="tool_calls",
        )
    elif faults.endless:
        words = Words(chat.prompt, seed, None)
        answer = dataclasses.replace(answer, words=words, count=None)
    else:
        answer = _worded(answer, chat, seed)
    if faults.finish is not None:
        answer = dataclasses.replace(answer, finish_reason=faults.finish)
    return answer


def _worded(answer: SimulatedAnswer, chat: SimulatedChat, seed: int) -> SimulatedAnswer:
    words: Iterable[str]
    if chat.faults.echo:
        words = tokenize(chat.prompt)
        count = len(words)
    elif chat.schema is not None:
        words = tokenize(msgspec.json.encode(sample(chat.schema)).decode())
        count = len(words)
    elif chat.faults.chunks is not None:
        count = chat.faults.chunks
        words = Words(chat.prompt, seed, count)
    else:
        words = whole_answer(chat.prompt, seed)
        count = len(words)
    finish_reason, sequence = "stop", None
    if chat.max_tokens is not None and chat.max_tokens < count:
        count, finish_reason = chat.max_tokens, "length"
        words = tuple(itertools.islice(words, count))
    if chat.stop and (cut := cut_at_stop(words, chat.stop)) is not None:
        words, sequence = cut
        count, finish_reason = len(cut[0]), "stop"
    return dataclasses.replace(
        answer,
        words=words,
        count=count,
        finish_reason=finish_reason,
        stop_sequence=sequence,
    )


def _tool_calls(chat: SimulatedChat, seed: int) -> tuple[ToolCall, ...]:
    if chat.answered:
        return ()
    wanted = chat.faults.tool_calls or bool(chat.tools)
    named = [tool for tool in chat.tools if tool.get("name") == chat.faults.tool]
    tools = (
        tuple(named) or chat.tools or ({"name": "get_weather", "parameters": _WEATHER},)
    )
    return tuple(
        ToolCall(
            id=f"call_{(seed + number) % 16**12:012x}",
            name=str(tool.get("name", "function")),
            arguments=msgspec.json.encode(sample(tool.get("parameters"))).decode(),
        )
        for number, tool in zip(range(wanted), itertools.cycle(tools), strict=False)
    )


_WEATHER = {
    "type": "object",
    "properties": {"location": {"type": "string"}, "days": {"type": "integer"}},
}


DEEPEST = 8  # a schema that refers to itself must end somewhere


def sample(schema: Any, depth: int = 0) -> Any:
    """Return one value for a JSON schema (type, enum, const, properties, items).

    What it does not understand becomes a string: a client that sends a schema wants to
    see its own decoding work.
    """
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return "sample"
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return {}
        return {str(key): sample(part, depth + 1) for key, part in properties.items()}
    if kind == "array":
        return [sample(schema.get("items"), depth + 1)]
    plain: dict[Any, Any] = {"integer": 1, "number": 1, "boolean": True, "null": None}
    return plain.get(kind, "sample") if isinstance(kind, str) else "sample"
