"""The body of `POST /chat`: what is taken, and how each refusal names its field."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.wire.problems import Refused
from trio_ai_stream.wire.requests import parse_chat_request
from trio_ai_stream.wire.validation import FORBIDDEN

USER = {"role": "user", "content": "hi"}
BAD: list[tuple[object, str]] = [
    ({}, "prompt: expected either prompt or messages, got neither"),
    ({"prompt": "a", "messages": [USER]}, "prompt: .* got both"),
    ({"prompt": 1}, "prompt: expected str, got int"),
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
    ({"prompt": "a", "seed": "1"}, "seed: expected int, got str"),
    ({"prompt": "a\0b"}, r"prompt: .* got U\+0000 at position 1"),
    ({"prompt": "a", "stop": "\x1b"}, r"stop\[0\]: .* got U\+001B at position 0"),
    ({"prompt": "\ud800"}, r"prompt: .* got U\+D800 at position 0"),
    ({"messages": [USER, {"role": "user", "content": "ab\udfff"}]},
     r"messages\[1\].content: .* got U\+DFFF at position 2"),
    ([], "body: expected object, got array"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message"), BAD)
def test_a_refusal_names_the_field_and_what_was_expected(
    body: object, message: str
) -> None:
    """Bad input is a 400 whose text starts with the field's name."""
    with pytest.raises(Refused, match=message) as caught:
        parse_chat_request(json.dumps(body).encode(), max_prompt_length=100)
    assert caught.value.problem.status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"prompt":NaN}'])
def test_what_is_not_json_is_refused_as_such(body: bytes) -> None:
    """Broken JSON, however deep, is a 400 and quotes nothing."""
    with pytest.raises(Refused, match="body: expected one JSON object"):
        parse_chat_request(body, max_prompt_length=100)


def test_the_length_counts_characters_over_all_contents() -> None:
    """413 past MAX_PROMPT_LENGTH, counted in characters and over all messages."""
    messages = [{"role": "user", "content": "😀" * 50}] * 2
    body = json.dumps({"messages": messages}).encode()
    assert len(parse_chat_request(body, max_prompt_length=100).conversation()) == 2
    with pytest.raises(Refused, match="at most 99 characters, got 100") as caught:
        parse_chat_request(body, max_prompt_length=99)
    assert caught.value.problem.status == 413


@given(st.text(min_size=1).filter(lambda t: t.strip() and not FORBIDDEN.search(t)))
def test_text_is_passed_on_unchanged(text: str) -> None:
    """Whatever is taken is taken as it is."""
    body = json.dumps({"prompt": text}).encode()
    request = parse_chat_request(body, max_prompt_length=10_000)
    assert [m.content for m in request.conversation()] == [text]


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_refusal(body: bytes) -> None:
    """Rubbish is refused, never an error of ours."""
    request = None
    with contextlib.suppress(Refused):
        request = parse_chat_request(body, max_prompt_length=100)
    assert request is None or len(request.conversation()) > 0
