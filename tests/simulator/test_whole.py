"""The answer that is not streamed: it says what the stream says, and breaks alike."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.simulator.test_schedule import GENERATION, chat, rendered
from trio_ai_stream.simulator.schedule import End, Pause, Step, Write, whole_script


def answered(model: str, **fields: Any) -> bytes:
    """Return the body of the single answer."""
    script = whole_script(chat(model, stream=False, **fields), GENERATION)
    return b"".join(step.data for step in script if isinstance(step, Write))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": 7},
        {"stop": ["asked"]},
        {"seed": 3},
        {"model": "simulator/echo", "prompt": " a\u2028b\nc\t\U0001f389  "},
        {"model": "simulator/reasoning"},
        {"model": "simulator/refusal"},
        {"model": "simulator/tools"},
        {"model": "simulator/fast?chunks=300"},
    ],
)
def test_stream_and_single_answer_agree(fields: dict[str, Any]) -> None:
    """The same request gives the same text, reason and usage, streamed or not."""
    fields = {"model": "simulator/fast", **fields}
    events = rendered(**fields).events
    whole = json.loads(answered(**fields))
    message, choice = whole["choices"][0]["message"], whole["choices"][0]
    deltas = [event["choices"][0] for event in events if event["choices"]]

    def joined(key: str) -> str:
        return "".join(each["delta"].get(key) or "" for each in deltas)

    assert joined("content") == (message["content"] or "")
    assert joined("reasoning") == (message["reasoning"] or "")
    assert joined("refusal") == (message["refusal"] or "")
    assert deltas[-1]["finish_reason"] == choice["finish_reason"]
    streamed = events[-1]["usage"]["completion_tokens_details"]
    assert whole["usage"]["completion_tokens_details"] == streamed
    arguments = "".join(
        call["function"]["arguments"]
        for each in deltas
        for call in each["delta"].get("tool_calls", ())
    )
    calls = message.get("tool_calls", [])
    assert arguments == "".join(call["function"]["arguments"] for call in calls)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("end=silence", Pause(math.inf)),
        ("endless=1", Pause(math.inf)),
        ("end=drop", End.FIN),
        ("end=reset", End.RST),
    ],
)
def test_endings_of_a_single_answer(query: str, expected: Step) -> None:
    """A single answer has the counterparts of a stream's endings."""
    script = whole_script(chat(f"simulator/fast?{query}", stream=False), GENERATION)
    assert expected in list(script)


@pytest.mark.parametrize(
    ("query", "path"),
    [("", ("choices", 0)), ("&shape=bare", ()), ("&shape=empty", ())],
)
def test_error_of_a_single_answer(query: str, path: tuple[Any, ...]) -> None:
    """An error in a single answer is in the choice, or stands alone."""
    value = json.loads(answered(f"simulator/fast?end=error{query}"))
    for key in path:
        value = value[key]
    assert value["error"]["code"] == 502


def test_damaged_single_answers() -> None:
    """A single answer can be cut JSON, bad UTF-8, or giant."""
    bodies = {}
    for kind in ("json", "utf8", "giant"):
        model = f"simulator/fast?corrupt={kind}&size=5000"
        bodies[kind] = answered(model)
    with pytest.raises(json.JSONDecodeError):
        json.loads(bodies["json"])
    with pytest.raises(UnicodeDecodeError):
        bodies["utf8"].decode()
    assert json.loads(bodies["giant"])["choices"][0]["message"]["content"] == "x" * 5000
