"""Reading a chat request as OpenRouter would, and refusing it as OpenRouter would."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.simulator.simulated_answer import compose
from trio_ai_stream.simulator.simulated_chat import ChatError, SimulatedChat, parse_chat

DEFAULT = "simulator/fast"
HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> SimulatedChat:
    """Parse a request of these fields."""
    return parse_chat(json.dumps({"messages": HELLO, **fields}).encode(), DEFAULT)


def test_prompt_is_the_last_user_message() -> None:
    """The text answered to is the last user message, its text parts joined."""
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": "b"}]
    messages = [
        *HELLO,
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
    ]
    assert chat(messages=messages).prompt == "ab"


def test_an_alias_is_resolved() -> None:
    """The response names the concrete model of an alias."""
    model = chat(model="~anthropic/claude-sonnet-latest").model
    assert model == "anthropic/claude-sonnet-5"


@pytest.mark.parametrize(
    ("fields", "named", "status"),
    [
        ({"messages": []}, "messages", 400),
        ({"messages": "hi"}, "messages", 400),
        ({"messages": ["hi"]}, "messages", 400),
        ({"model": 7}, "model", 400),
        ({"model": "simulator/nope"}, "nope", 400),
        ({"model": "anthropic/claude-3.5-sonnet"}, "No endpoints found", 404),
        ({"max_tokens": 0}, "max_tokens", 400),
        ({"max_tokens": True}, "max_tokens", 400),
        ({"stop": ["a"] * 5}, "stop", 400),
        ({"stop": [1]}, "stop", 400),
        ({"stream": "yes"}, "stream", 400),
        ({"tools": {}}, "tools", 400),
        ({"session_id": 3}, "session_id", 400),
    ],
)
def test_a_bad_request_is_refused(
    fields: dict[str, Any], named: str, status: int
) -> None:
    """A request that cannot be answered is refused by status, naming the field."""
    with pytest.raises(ChatError, match=named) as caught:
        chat(**fields)
    assert caught.value.status == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"', b"[" * 9999])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    """A body that is not a JSON object is a 400."""
    with pytest.raises(ChatError):
        parse_chat(body, DEFAULT)


loose = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
)
fields = [
    "stream",
    "max_tokens",
    "stop",
    "seed",
    "tools",
    "tool_choice",
    "response_format",
    "debug",
    "session_id",
]


@given(st.dictionaries(st.sampled_from(fields), loose), loose, loose)
def test_any_fields_compose_or_are_refused(
    values: dict[str, Any], content: Any, function: Any
) -> None:
    """Whatever JSON a field holds, there is an answer or a ChatError."""
    messages = [{"role": "user", "content": content}]
    values.setdefault("tools", [{"function": function}])
    with contextlib.suppress(ChatError):
        request = chat(messages=messages, **values)
        assert compose(request).prompt_tokens >= 1


def test_max_tokens_cuts() -> None:
    """An answer longer than max_tokens is cut and says `length`."""
    answer = compose(chat(max_tokens=3))
    assert (len(list(answer.words)), answer.finish_reason) == (3, "length")
    assert answer.native_finish_reason() == "max_tokens"


def test_stop_cuts() -> None:
    """An answer ends before a stop sequence and says `stop`."""
    answer = compose(chat(stop="asked"))
    assert ("".join(answer.words), answer.finish_reason) == ("You ", "stop")


def test_seed_changes_the_answer() -> None:
    """Another `seed` gives another answer; the same one the same."""
    texts = ["".join(compose(chat(seed=seed)).words) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_tools_are_called_once() -> None:
    """Tools are called with fitting arguments, until a tool message is the last."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    (call,) = compose(chat(tools=tools)).tool_calls
    assert (call.name, json.loads(call.arguments)) == ("f", {"n": 1})
    assert "".join(call.fragments()) == call.arguments
    answered = [*HELLO, {"role": "tool", "content": "1", "tool_call_id": "x"}]
    for model in (DEFAULT, "simulator/tools", "simulator/agent"):
        again = chat(model=model, tools=tools, messages=answered)
        assert compose(again).tool_calls == ()
    assert compose(chat(tools=tools, tool_choice="none")).tool_calls == ()


def test_response_format_gives_json() -> None:
    """A JSON schema asked for is answered by a value of that schema."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    wrapper = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = compose(chat(response_format=wrapper))
    assert json.loads("".join(answer.words)) == {"city": "sample"}
    plain = compose(chat(response_format={"type": "json_object"}))
    assert json.loads("".join(plain.words)) == {"answer": "sample"}
