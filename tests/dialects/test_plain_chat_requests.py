"""The body of `POST /chat`: what is taken, and how each refusal names its field."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.dialects.plain_chat import ChatRequest, parse_chat_request
from trio_ai_stream.dialects.plain_chat import parse as parse_for_upstream
from trio_ai_stream.wire.dialect import RequestLimits
from trio_ai_stream.wire.problems import Refused
from trio_ai_stream.wire.validation import FORBIDDEN


def parse(body: bytes, *, prompt: int = 100, messages: int = 100) -> ChatRequest:
    """Parse under limits that few tests meet."""
    return parse_chat_request(body, RequestLimits("m", prompt, messages))


USER = {"role": "user", "content": "hi"}
BAD: list[tuple[object, str]] = [
    ({}, "prompt: expected either prompt or messages, got neither"),
    ({"prompt": "a", "messages": [USER]}, "prompt: .* got both"),
    ({"prompt": 1}, r"prompt: expected str \| null, got int"),
    ({"prompt": ""}, "prompt: expected some text"),
    ({"messages": []}, "messages: expected array of length >= 1"),
    ({"messages": [{"role": "user"}]}, r"messages\[0\].content: expected this field"),
    ({"messages": [{**USER, "x": 1}]}, r"messages\[0\].x: unknown field"),
    ({"messages": [{"role": "x", "content": ""}]}, "role: expected system, developer"),
    ({"prompt": "a", "tools": []}, "tools: unknown field"),
    ({"prompt": "a", "model": ""}, "model: expected str of length >= 1"),
    ({"prompt": "a", "temperature": 2.1}, "temperature: expected float <= 2"),
    ({"prompt": "a", "top_p": 0}, "top_p: expected float > 0"),
    ({"prompt": "a", "max_tokens": 0}, "max_tokens: expected int >= 1"),
    ({"prompt": "a", "stop": ["x"] * 5}, "stop: expected array of length <= 4"),
    ({"prompt": "a", "seed": "1"}, r"seed: expected int \| null, got str"),
    ({"prompt": "a\0b"}, r"prompt: .* got U\+0000 at position 1"),
    ({"prompt": "a", "stop": "\x1b"}, r"stop\[0\]: .* got U\+001B at position 0"),
    ({"prompt": "\ud800"}, r"prompt: .* surrogate U\+D800\) at position 0"),
    ({"messages": [USER, {"role": "user", "content": "ab\udfff"}]},
     r"messages\[1\].content: .* surrogate U\+DFFF\) at position 2"),
    ([], "body: expected object, got array"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message"), BAD)
def test_a_refusal_names_the_field_and_what_was_expected(
    body: object, message: str
) -> None:
    """Bad input is a 400 whose text starts with the field's name."""
    with pytest.raises(Refused, match=message) as caught:
        parse(json.dumps(body).encode())
    assert caught.value.problem.status == 400


@pytest.mark.parametrize(
    ("body", "came"),
    [
        (b"", "got something else at byte 0: expecting value"),
        (b"{", "got something else at byte 1: expecting property name"),
        (b'{"prompt":"a",}', "got something else at byte 1[34]: "),
        ('{"prompt":"é"} x'.encode(), "got something else at byte 16: extra data"),
        (b'{"prompt":"a" "b"}', "got something else at byte 14: expecting ',' delim"),
        (b'{"prompt":"\x01"}', "at byte 11: invalid control character"),
        (b'{"prompt":NaN}', "got NaN, which JSON does not have"),
        (
            b'{"prompt":"a","temperature":-Infinity}',
            "got -Infinity, which JSON does not",
        ),
        (b'{"prompt":"\xff"}', "got byte 0xff at position 11"),
        ('{"prompt":"a"}'.encode("utf-16"), "got UTF-16 or UTF-32"),
        ('{"prompt":"a"}'.encode("utf-16-le"), "got UTF-16 or UTF-32"),
        ('{"prompt":"a"}'.encode("utf-32-be"), "got UTF-16 or UTF-32"),
        (b'{"prompt":' + b" " * 2_000_000 + b"x}", "expected one JSON object"),
        (b" " * (1_048_576 - 1) + "é".encode(), "expected one JSON object in UTF-8$"),
    ],
)
def test_what_is_not_json_is_refused_as_what_it_is(body: bytes, came: str) -> None:
    """Broken JSON is a 400 that says where and what, and quotes nothing."""
    with pytest.raises(Refused, match=r"^body: expected one JSON object") as caught:
        parse(body)
    assert re.search(came, caught.value.problem.message)
    assert caught.value.problem.status == 400


@pytest.mark.parametrize("field", ["prompt", "messages"])
def test_half_a_character_is_named_with_its_field(field: str) -> None:
    """Not called a control character, and not put on a field before it."""
    text = "ab\udfff"
    value: object = [{"role": "user", "content": text}] if field == "messages" else text
    body = json.dumps({"model": "\x1b", field: value}).encode()
    with pytest.raises(
        Refused, match=r"lone surrogate U\+DFFF\) at position 2"
    ) as caught:
        parse(body)
    assert caught.value.problem.field == {"messages": "messages[0].content"}.get(
        field, field
    )


def test_a_byte_order_mark_is_passed_over() -> None:
    """RFC 8259 section 8.1 lets a parser ignore it."""
    assert parse(b'\xef\xbb\xbf{"prompt":"a"}').prompt == "a"


def test_null_counts_as_left_out() -> None:
    """As OpenAI's API has it: for every field."""
    nulls = dict.fromkeys(ChatRequest.__struct_fields__)
    assert parse(json.dumps({**nulls, "prompt": "a"}).encode()) == ChatRequest("a")
    asked = parse(json.dumps({**nulls, "messages": [USER]}).encode())
    assert asked.conversation()[0].content == "hi"


def test_a_prompt_and_messages_have_limits_of_their_own() -> None:
    """413 past the one's, counted in characters, and over all of the messages."""
    prompt = json.dumps({"prompt": "😀" * 50}).encode()
    assert parse(prompt, prompt=50, messages=1).prompt
    with pytest.raises(Refused, match=r"prompt: .* at most 49 characters, got 50"):
        parse(prompt, prompt=49)
    body = json.dumps({"messages": [{"role": "user", "content": "😀" * 50}] * 2})
    assert len(parse(body.encode(), prompt=1).conversation()) == 2
    with pytest.raises(Refused, match=r"messages: .* 99 characters, got 100") as caught:
        parse(body.encode(), messages=99)
    assert caught.value.problem.status == 413


@given(st.text(min_size=1).filter(lambda t: t.strip() and not FORBIDDEN.search(t)))
def test_text_is_passed_on_unchanged(text: str) -> None:
    """Whatever is taken is taken as it is."""
    body = json.dumps({"prompt": text}).encode()
    request = parse(body, prompt=10_000)
    assert [m.content for m in request.conversation()] == [text]


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_refusal(body: bytes) -> None:
    """Rubbish is refused, never an error of ours."""
    request = None
    with contextlib.suppress(Refused):
        request = parse(body)
    assert request is None or len(request.conversation()) > 0


@pytest.mark.parametrize(
    ("user", "recorded"),
    [("alice", "alice"), ("a\nb", None), ("", None), (None, None)],
)
def test_only_a_plain_name_of_a_user_is_recorded(
    user: str | None, recorded: str | None
) -> None:
    """As for the other APIs; upstream is told what came."""
    body = json.dumps({"prompt": "hi", "user": user}).encode()
    parsed = parse_for_upstream(body, RequestLimits("m", 100, 100))
    assert parsed.user == recorded
    assert json.loads(parsed.body).get("user") == user
