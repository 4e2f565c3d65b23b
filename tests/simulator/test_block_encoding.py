"""Messages and Responses have the shape that the SDKs' models ask for.

The SDKs are imported by the tests: that takes seconds, and every worker imports this.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from trio_ai_stream.simulator.schedule import (
    Generation,
    StreamSchedule,
    Write,
    whole_script,
)
from trio_ai_stream.simulator.simulated_chat import (
    ChatError,
    SimulatedChat,
    parse_messages,
    parse_responses,
)

MODELS = [
    "fast",
    "reasoning",
    "tools",
    "agent",
    "refusal",
    "filtered",
    "fast?chunks=0",
    "crlf",
    "fast?reasoning=3&tool_calls=3",
]


@functools.cache
def message_events() -> TypeAdapter[Any]:
    """What an event of Messages may be."""
    from anthropic.types import RawMessageStreamEvent

    return TypeAdapter(RawMessageStreamEvent)


@functools.cache
def response_events() -> TypeAdapter[Any]:
    """What an event of Responses may be."""
    from openai.types.responses import ResponseStreamEvent

    return TypeAdapter(ResponseStreamEvent)


def message(model: str, **fields: Any) -> SimulatedChat:
    """A request to `/messages`."""
    turn = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    body = {"model": f"simulator/{model}", "messages": [turn], **fields}
    return parse_messages(json.dumps(body).encode(), "simulator/fast")


def response(model: str, **fields: Any) -> SimulatedChat:
    """A request to `/responses`."""
    body = {"model": f"simulator/{model}", "input": "hi", **fields}
    return parse_responses(json.dumps(body).encode(), "simulator/fast")


def events(chat: SimulatedChat) -> list[dict[str, Any]]:
    """The events of a streamed answer; each one's name is its type."""
    schedule = StreamSchedule(chat, Generation("gen-1", 1), lambda: 0)
    body = b"".join(s.data for s in schedule.steps() if isinstance(s, Write))
    found = []
    for block in body.decode().replace("\r\n", "\n").split("\n\n")[:-1]:
        name, _, data = block.rpartition("data:")
        if data.strip() != "[DONE]":
            found.append(json.loads(data))
            assert name == f"event: {found[-1]['type']}\n"
    return found


def document(chat: SimulatedChat) -> dict[str, Any]:
    """The answer as one document."""
    steps = whole_script(chat, Generation("gen-1", 1))
    body = b"".join(step.data for step in steps if isinstance(step, Write))
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize("model", MODELS)
def test_each_event_of_messages_is_the_sdks(model: str) -> None:
    """Blocks open, are filled and close one after the other, then the message ends."""
    from anthropic.types import Message

    found = events(message(model))
    for event in found:
        if event["type"] != "ping":
            message_events().validate_python(event)
    open_block = None
    for event in found:
        if event["type"] == "content_block_start":
            assert open_block is None
            open_block = event["index"]
        elif event["type"].startswith("content_block"):
            assert event["index"] == open_block
            if event["type"] == "content_block_stop":
                open_block = None
    assert [e["type"] for e in found[-2:]] == ["message_delta", "message_stop"]
    Message.model_validate(document(message(model)))


@pytest.mark.parametrize("model", MODELS)
def test_each_event_of_responses_is_the_sdks(model: str) -> None:
    """Numbers follow each other, and the last event holds what the pieces said."""
    from openai.types.responses import Response

    found = events(response(model))
    for event in found:
        response_events().validate_python(event)
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    whole = found[-1]["response"]
    Response.model_validate(whole)
    Response.model_validate(document(response(model)))
    said = "".join(
        e["delta"] for e in found if e["type"] == "response.output_text.delta"
    )
    held = [part for item in whole["output"] for part in item.get("content", ())]
    assert said == "".join(part.get("text", "") for part in held)


@pytest.mark.parametrize("shape", ["choice", "empty"])
def test_errors_are_the_sdks(shape: str) -> None:
    """In the stream; Anthropic's have its own words."""
    end = f"error?shape={shape}&code=529&at=2"
    error = events(message(end))[-1]
    assert (error["type"], error["error"]["type"]) == ("error", "overloaded_error")
    last = events(response(end))[-1]
    response_events().validate_python(last)
    assert last["type"] == ("response.failed" if shape == "choice" else "error")


def called(chat: SimulatedChat) -> list[str]:
    """Return the names of the tools that a single answer calls."""
    whole = document(chat)
    kinds = {"tool_use", "function_call"}
    parts = whole["content" if "content" in whole else "output"]
    return [part["name"] for part in parts if part["type"] in kinds]


def test_a_tool_is_called_until_it_has_answered() -> None:
    """The tool that the model's name asks for, else the first of the client's own."""
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tools = [{"name": name, "input_schema": schema} for name in ("a", "b")]
    starts = [
        e["content_block"]["name"]
        for model in ("fast", "fast?tool=b")
        for e in events(message(model, tools=tools))
        if e.get("content_block", {}).get("type") == "tool_use"
    ]
    assert starts == ["a", "b"]
    result = {"role": "user", "content": [{"type": "tool_result", "content": "4"}]}
    output = {"type": "function_call_output", "call_id": "c", "output": "4"}
    flat = [{"type": "function", "name": "a", "parameters": schema}]
    assert called(response("fast", tools=flat)) == ["a"]
    assert called(response("agent", tools=flat)) == ["a", "a"]
    assert not response("fast", tools=flat, tool_choice="none").tools
    for model in ("fast", "tools", "agent"):  # so that the loop of an agent ends
        assert called(message(model, tools=tools, messages=[result])) == []
        assert called(response(model, tools=flat, input=[output])) == []


def test_what_a_tool_answered_is_not_the_question() -> None:
    """The text answered to is that of the last turn in which the user wrote one."""
    asked = {"role": "user", "content": "add 2 and 2"}
    result = {"role": "user", "content": [{"type": "tool_result", "content": "4"}]}
    assert message("fast", messages=[asked, result]).prompt == "add 2 and 2"


@pytest.mark.parametrize("ask", ["message", "response"])
def test_a_damaged_document(ask: str) -> None:
    """A single answer can be cut JSON, bad UTF-8, or giant, as a completion can."""
    chats = {
        kind: (message if ask == "message" else response)(
            f"fast?corrupt={kind}&size=5000"
        )
        for kind in ("json", "utf8", "giant")
    }
    with pytest.raises(json.JSONDecodeError):
        document(chats["json"])
    with pytest.raises(UnicodeDecodeError):
        document(chats["utf8"])
    assert "x" * 5000 in json.dumps(document(chats["giant"]))


def test_what_is_needed_and_missing_is_refused() -> None:
    """As OpenRouter does; it keeps no response that could be referred to."""
    for parse, body in itertools.product(
        (parse_messages, parse_responses), (b"{}", b"[", b'{"input":[],"messages":[]}')
    ):
        with pytest.raises(ChatError):
            parse(body, "simulator/fast")
    with pytest.raises(ChatError, match="previous_response_id"):
        response("fast", previous_response_id="resp_1")


def test_a_stop_sequence_is_named() -> None:
    """Messages say which one ended the answer, streamed or not."""
    chat = message("fast", stop_sequences=["nowhere", "asked"])
    (delta,) = (e["delta"] for e in events(chat) if e["type"] == "message_delta")
    whole = document(chat)
    assert delta == {key: whole[key] for key in ("stop_reason", "stop_sequence")}
    assert delta == {"stop_reason": "stop_sequence", "stop_sequence": "asked"}
    assert whole["content"][0]["text"] == "You "


def test_a_schema_is_answered_with_what_fits() -> None:
    """Where each API asks for it."""
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    form = {"type": "json_schema", "name": "n", "schema": schema}
    said = document(message("fast", output_config={"format": form}))["content"]
    assert json.loads(said[0]["text"]) == {"x": 1}
    for kind, answer in (
        (form, {"x": 1}),
        ({"type": "json_object"}, {"answer": "sample"}),
    ):
        output = document(response("fast", text={"format": kind}))["output"]
        assert json.loads(output[0]["content"][0]["text"]) == answer


def test_a_response_repeats_its_request() -> None:
    """What the request leaves out has the API's default (Open Responses 2026-04-24)."""
    tool = {"type": "function", "name": "b", "parameters": None}
    asked = {
        "temperature": 0.5,
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "tool_choice": {"type": "function", "name": "b"},
        "tools": [{**tool, "name": "a"}, tool],
    }
    found = events(response("fast", **asked))
    for said in (document(response("fast", **asked)), found[0]["response"]):
        assert said["temperature"] == 0.5
        assert said["reasoning"] == {"effort": "low", "summary": None}
        assert said["text"] == {"format": {"type": "text"}, "verbosity": "low"}
        assert said["tools"][1] == {**tool, "description": None, "strict": None}
        assert (said["store"], said["truncation"]) == (False, "disabled")
    (call,) = found[-1]["response"]["output"]
    assert (call["type"], call["name"]) == ("function_call", "b")


@pytest.mark.parametrize("ask", [message, response])
def test_comments_may_come_before_any_event(
    ask: Callable[[str], SimulatedChat],
) -> None:
    """As OpenRouter sends them while no provider has answered."""
    chat = ask("fast?opening_ms=1200&chunks=1")
    schedule = StreamSchedule(chat, Generation("gen-1", 1), lambda: 0)
    writes = [step.data for step in schedule.steps() if isinstance(step, Write)]
    comments = [data.startswith(b": OPENROUTER PROCESSING") for data in writes]
    assert comments[:5] == [True, True, True, False, False]
    assert writes[3].startswith(b"event: ")
