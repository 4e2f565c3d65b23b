"""The frames of `POST /chat`: what any SSE parser gets back is what went in."""

from __future__ import annotations

import functools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.dialects.plain_chat import ChatEncoder, json_text
from trio_ai_stream.wire.dialect import ParsedRequest
from trio_ai_stream.wire.events import (
    Answer,
    Comment,
    Item,
    Reasoning,
    ToolCallPiece,
    Usage,
)
from trio_ai_stream.wire.problems import Problem

NEST: list[object] = []
anything = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=60)


def encoder(*, reasoning: bool = False, tool_calls: bool = False) -> ChatEncoder:
    """Return what writes a stream for a client that wants to see so much."""
    asked = ParsedRequest("m", True, b"", reasoning=reasoning, tool_calls=tool_calls)
    return ChatEncoder(asked, "r", "simulator")


def parse(frames: bytes) -> list[dict[str, object]]:
    """Read frames as a browser does: only CR and LF end a line."""
    assert b"\r" not in frames
    blocks = frames.split(b"\n\n")
    assert blocks.pop() == b""
    lines = [block.split(b"\n") for block in blocks]
    assert all(len(block) == 1 for block in lines)
    return [json.loads(block[0].removeprefix(b"data: ")) for block in lines]


@given(st.lists(anything, max_size=5))
def test_content_survives_byte_for_byte(texts: list[str]) -> None:
    """Newlines, U+2028, surrogates and all else come back as they were."""
    items: list[Item] = list(texts)
    frames, count = encoder().content(items)
    events = parse(frames)
    assert count == len(texts)
    assert [event["content"] for event in events] == texts
    assert all(list(event)[:3] == ["content", "request_id", "type"] for event in events)


@given(anything)
def test_json_text_is_what_the_standard_library_reads(text: str) -> None:
    """The fast encoder and the standard one agree on every text."""
    assert json.loads(json_text(text)) == text


def test_reasoning_leaves_only_where_it_was_asked_for() -> None:
    """Without include_reasoning only content leaves; nothing else ever does."""
    items: list[Item] = ["a", Reasoning("why"), Comment(), Usage({}), "b"]
    plain, count = encoder().content(items)
    assert [e["type"] for e in parse(plain)] == ["content", "content"]
    assert count == 2
    asked, count = encoder(reasoning=True).content(items)
    assert [e["type"] for e in parse(asked)] == ["content", "reasoning", "content"]
    assert count == 3


def test_tool_calls_leave_only_where_they_were_asked_for() -> None:
    """Each piece is an event of its own; `content` is empty, so no text is spoilt."""
    items: list[Item] = [
        "a",
        ToolCallPiece(0, "call_1", "f"),
        ToolCallPiece(0, arguments="{"),
    ]
    assert encoder(reasoning=True).content(items)[1] == 1
    asked, count = encoder(tool_calls=True).content(items)
    assert count == 3
    common = {"content": "", "request_id": "r", "type": "tool_call", "index": 0}
    assert parse(asked)[1:] == [
        {**common, "id": "call_1", "name": "f", "arguments": ""},
        {**common, "id": None, "name": None, "arguments": "{"},
    ]
    half, _ = encoder(tool_calls=True).content([ToolCallPiece(0, arguments="\ud83c")])
    assert parse(half)[0]["arguments"] == "\ud83c"


def test_terminal_events_carry_their_fields() -> None:
    """Terminal events have the original Go server's three fields and their own."""
    answer = Answer()
    answer.finish_reason, answer.generation_id = "stop", "g"
    (done,) = parse(encoder().ending(None, answer))
    assert done == {
        "content": "",
        "request_id": "r",
        "type": "done",
        "finish_reason": "stop",
        "usage": None,
        "generation_id": "g",
    }
    problem = Problem(429, "too_many", "later", retryable=True, retry_after=2.5)
    (error,) = parse(encoder().ending(problem, answer))
    assert error == {"content": "later", "request_id": "r", "type": "error",
                     "error_type": "too_many", "code": 429, "retryable": True,
                     "retry_after": 2.5}  # fmt: skip
    (connected,) = parse(encoder().opening)
    assert (connected["model"], connected["upstream"]) == ("m", "simulator")


@given(st.lists(anything, max_size=8))
def test_a_block_is_the_sum_of_its_events(texts: list[str]) -> None:
    """Encoding a block at once gives the bytes that encoding each event gives."""
    items: list[Item] = list(texts)
    singly = b"".join(encoder().content([item])[0] for item in items)
    assert encoder().content(items) == (singly, len(texts))


@pytest.mark.parametrize(
    "usage",
    [
        {"\ud800": 1},
        {"cost": "\udfff"},
        {"deep": functools.reduce(lambda nest, _: [nest], range(5000), NEST)},
    ],
    ids=["surrogate name", "surrogate text", "nest"],
)
def test_usage_that_cannot_be_written_does_not_cost_the_terminal_event(
    usage: dict[str, object],
) -> None:
    """What only upstream's JSON may hold leaves as null, a text as it is."""
    answer = Answer()
    answer.finish_reason, answer.generation_id = "stop", "\ud800"
    answer.usage = usage
    (event,) = parse(encoder().ending(None, answer))
    assert event["type"] == "done"
    assert event["finish_reason"] == "stop"
    # How deep is too deep is the interpreter's to say: 3.13 writes this nest.
    assert event["usage"] in (None, usage)
    assert event["generation_id"] == "\ud800"
