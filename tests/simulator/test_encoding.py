"""Our events have the shape of OpenRouter's documented examples, field by field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from trio_ai_stream.simulator.encoding import (
    ERRORS,
    Encoder,
    error_body,
    error_json,
    error_object,
    json_string,
)
from trio_ai_stream.simulator.faults import parse_model
from trio_ai_stream.simulator.simulated_answer import SimulatedAnswer, ToolCall

# The examples of OpenRouter's documentation (facts A4, A5), as of 2026-08-22.
CONTENT = """{"id":"gen-abc123","provider":"OpenAI","model":"openai/gpt-4o",
"object":"chat.completion.chunk","created":1677652288,"choices":[{"index":0,
"delta":{"role":"assistant","content":"Hello"},"finish_reason":null,
"native_finish_reason":null,"logprobs":null}]}"""
USAGE = """{"id":"gen-1","object":"chat.completion.chunk","created":1,
"model":"openai/gpt-4o","choices":[],"usage":{"prompt_tokens":10,
"completion_tokens":15,"total_tokens":25,"cost":0.0012,"is_byok":false,
"prompt_tokens_details":{"cached_tokens":2,"cache_write_tokens":0,"audio_tokens":0,
"video_tokens":0},"completion_tokens_details":{"reasoning_tokens":5},
"cost_details":{"upstream_inference_cost":null,"upstream_inference_prompt_cost":0.0008,
"upstream_inference_completions_cost":0.0004}}}"""
REASONING = """{"choices":[{"delta":{"reasoning":"Let me think","reasoning_details":[
{"type":"reasoning.text","text":"Let me think about this step by step...",
"signature":null,"id":"reasoning-text-1","format":"anthropic-claude-v1","index":0}]}}]}"""
TOOL = """{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_abc123",
"type":"function","function":{"name":"get_weather","arguments":"{"}}]},
"finish_reason":null}]}"""
DEBUG = """{"id":"gen-xxxxx","provider":"Anthropic","model":"a/b",
"object":"chat.completion.chunk","created":1234567890,"choices":[],
"debug":{"echo_upstream_body":{}}}"""
ERROR = """{"id":"gen-abc123","object":"chat.completion.chunk","created":1234567890,
"model":"openai/gpt-4o","provider":"OpenAI","error":{"code":429,
"message":"Rate limit exceeded","metadata":{"error_type":"rate_limit_exceeded",
"provider_code":"x"}},"choices":[{"index":0,"delta":{"content":""},
"finish_reason":"error"}]}"""
AVAILABILITY = """{"error":{"message":"All providers","error_type":"x",
"http_status":429,"availability":{"code":"capacity_exhausted","retryable":true,
"retry_after":40,"requested_models":["a"],"affected_providers":["b"],
"fallback_models":["c"],"docs_url":"https://openrouter.ai/docs/errors"},
"metadata":{"previous_errors":[{"provider":"anthropic","code":"capacity_exhausted",
"status":429}]}}}"""


def encoder(**options: Any) -> Encoder:
    """Return an encoder of one stream."""
    return Encoder(generation_id="gen-1", model="a/b", created=1, **options)


def decode(frame: bytes) -> Any:
    """Return the JSON of one event."""
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2
    return json.loads(frame[6:])


def misfits(example: Any, ours: Any, where: str = "$") -> list[str]:
    """Return where ours lacks a key of the example or has another JSON type."""
    if isinstance(example, dict):
        if not isinstance(ours, dict):
            return [where]
        return [
            misfit
            for key, value in example.items()
            for misfit in (
                misfits(value, ours[key], f"{where}.{key}")
                if key in ours
                else [f"{where}.{key} is missing"]
            )
        ]
    if isinstance(example, list):
        if not isinstance(ours, list) or bool(example) != bool(ours):
            return [where]
        return [
            misfit
            for value, own in zip(example, ours, strict=False)
            for misfit in misfits(value, own, f"{where}[]")
        ]
    numbers = isinstance(example, int | float) and isinstance(ours, int | float)
    same = type(example) is type(ours)
    return [] if same or (numbers and not isinstance(example, bool)) else [where]


CALL = ToolCall(id="call_1", name="get_weather", arguments='{"location":"sample"}')
SHAPES: dict[str, tuple[str, Callable[[Encoder], bytes]]] = {
    "content": (CONTENT, lambda e: e.content(["Hello"])),
    "usage": (USAGE, lambda e: e.usage(SimulatedAnswer().usage(15))),
    "reasoning": (REASONING, lambda e: e.reasoning("Let")),
    "tool call": (TOOL, lambda e: e.tool_call(0, CALL)[0]),
    "debug": (DEBUG, lambda e: e.debug({})),
    "error": (ERROR, lambda e: e.error(error_object(429), "choice")),
}


@pytest.mark.parametrize("name", SHAPES)
def test_an_event_has_the_documented_shape(name: str) -> None:
    """Every key of the documented example is there, with a value of the same type."""
    example, make = SHAPES[name]
    assert misfits(json.loads(example), decode(make(encoder()))) == []


def test_a_misfit_is_found() -> None:
    """The comparison finds a missing key, another type and an empty list."""
    example = {"a": 1, "b": {"c": "x"}, "d": [1], "e": None}
    ours: Any = {"b": {"c": 1}, "d": [], "e": None}
    assert misfits(example, ours) == ["$.a is missing", "$.b.c", "$.d"]


@pytest.mark.parametrize("status", ERRORS)
def test_an_error_body_has_the_documented_shape(status: int) -> None:
    """An error before the stream is code, message and metadata under `error`."""
    error = json.loads(error_json(status))["error"]
    assert error["code"] == status
    assert error["message"]
    assert ("provider_code" in error.get("metadata", {})) == (status == 429)


def test_availability_has_the_documented_shape() -> None:
    """The newer 429 carries `error.availability` as documented."""
    _, body = error_body(parse_model("simulator/at-capacity"))
    assert misfits(json.loads(AVAILABILITY), json.loads(body)) == []


def test_error_stands_before_choices() -> None:
    """In an error event `error` comes first, so a scanner may stop there."""
    frame = encoder().error(error_object(429), "choice")
    assert frame.index(b'"error"') < frame.index(b'"choices"')


def test_a_block_is_its_events() -> None:
    """A block of content is the same bytes as its events one by one."""
    tokens = ["a", '"\\', "\u2028", "\n", "\U0001f389"]
    single = b"".join(encoder().content([token]) for token in tokens)
    assert encoder().content(tokens) == single


def test_json_is_written_as_javascript_writes_it() -> None:
    """UTF-8 and U+2028 go unescaped; a lone surrogate becomes U+FFFD."""
    assert json_string("\u2028\u00e9") == '"\u2028\u00e9"'.encode()
    assert json_string("\ud83d") == '"\ufffd"'.encode()
    assert json_string("\ud83c\udf89") == '"\U0001f389"'.encode()


def test_line_ends_and_space() -> None:
    """CRLF, CR and a missing space change the frame and nothing else."""
    assert encoder(eol="crlf", space=False).done() == b"data:[DONE]\r\n\r\n"
    assert encoder(eol="cr").comment() == b": OPENROUTER PROCESSING\r\r"


def test_corrupt_events() -> None:
    """Each corruption is what its name says."""
    with pytest.raises(json.JSONDecodeError):
        decode(encoder().corrupt("json", 0))
    with pytest.raises(UnicodeDecodeError):
        encoder().corrupt("utf8", 0).decode()
    giant = decode(encoder().corrupt("giant", 5000))
    assert giant["choices"][0]["delta"]["content"] == "x" * 5000
    assert b"data:" not in encoder().corrupt("fields", 0)
