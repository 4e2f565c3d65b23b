"""The body of a chat completion on its way to upstream."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.wire.dialect import ParsedRequest, RequestLimits
from trio_ai_stream.wire.model_requests import CompletionRequest, request_parser
from trio_ai_stream.wire.problems import Refused

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def parse(body: bytes) -> ParsedRequest:
    """Parse with a default model and a limit that no test meets."""
    return request_parser(CompletionRequest)(
        body, RequestLimits("the/default", 100, 100)
    )


def test_a_body_that_names_its_model_keeps_every_byte() -> None:
    """Spaces, order of keys and digits of numbers reach upstream as they came."""
    body = (
        b'{ "zeta": 1.10e+2,\n"model":"a/b", "messages":[{"role":"user",'
        b'"content":"hi","name":"x"}], "big": 12345678901234567890.000, "stream":true}'
    )
    assert parse(body) == ParsedRequest("a/b", True, body, prompt_chars=2)


def test_a_model_is_filled_in_beside_unchanged_values() -> None:
    """Without a model the default is added; every other value keeps its bytes."""
    for model in (b"", b'"model":null,'):
        body = (
            b"{"
            + model
            + b'"seed":1.10e+2,"messages":[{"role":"user", "content":"hi"}]'
            b',"big":12345678901234567890.000}'
        )
        parsed = parse(body)
        assert parsed.model == "the/default"
        assert not parsed.stream
        assert json.loads(parsed.body)["model"] == "the/default"
        for kept in (
            b'"seed":1.10e+2',
            b'[{"role":"user", "content":"hi"}]',
            b'"big":12345678901234567890.000',
        ):
            assert kept in parsed.body


MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'


@pytest.mark.parametrize(
    ("chooses", "shown"),
    [
        (b'"models":["a/first","b/second"]', "a/first"),
        (b'"preset":"mine"', "@preset/mine"),
        (b'"models":["a/first"],"preset":"mine"', "a/first"),
    ],
)
def test_fallbacks_and_presets_need_no_model_of_ours(
    chooses: bytes, shown: str
) -> None:
    """OpenRouter's first example of `models` names no `model`; none is added."""
    body = b"{" + chooses + b',  "n":1.0,' + MESSAGES + b"}"
    assert parse(body) == ParsedRequest(shown, False, body, prompt_chars=2)
    named = parse(b"{" + chooses + b',"model":null,"n":1.0,' + MESSAGES + b"}")
    assert named.body == b"{" + chooses + b',"n":1.0,' + MESSAGES + b"}"
    named = parse(b'{"model":"x/y",' + chooses + b"," + MESSAGES + b"}")
    assert named.model == "x/y"


@pytest.mark.parametrize("empty", [b'"models":[],"preset":null,', b'"models":null,'])
def test_an_empty_choice_is_none(empty: bytes) -> None:
    """Without any name the default is filled in."""
    body = parse(b"{" + empty + MESSAGES + b"}").body
    assert json.loads(body)["model"] == "the/default"


def test_half_a_character_passes_wherever_it_stands() -> None:
    """Agents cut texts anywhere; upstream reads what JSON.parse reads."""
    lone = rb"\\ud800 \ud83d\ude00\uDE00 \uD83D \ud83d\ud83d\ude00 \ud83d\\ude00"
    body = (
        b'{"model":"a/b","tools":["' + lone + b'"],"messages":[{"role":"user",'
        b'"content":"' + lone + b'"}],"seed":1.50}'
    )
    assert parse(body) == ParsedRequest("a/b", False, body, prompt_chars=22)
    filled = parse(body.replace(b'"model":"a/b"', b'"model":null'))
    assert json.loads(filled.body) == {**json.loads(body), "model": "the/default"}


def test_half_characters_without_end_are_refused() -> None:
    """Some thousands are an accident, a body full of them is not."""
    body = b'{"model":"a/b","x":"' + rb"\ud800" * 10_001 + b'",' + MESSAGES + b"}"
    with pytest.raises(Refused, match="lone surrogate"):
        parse(body)


@given(st.text(st.characters(categories=["Cs", "Lu", "So"], include_characters="\\")))
def test_any_text_passes_in_ascii(text: str) -> None:
    """Escapes of whole and of half characters, and of backslashes, in any order."""
    body = json.dumps({"model": "a/b", "x": text, "messages": [{"role": "u"}]}).encode()
    assert parse(body).body == body


def test_what_is_wrong_is_not_put_on_what_may_be_there() -> None:
    """A control character in a text is no fault here, NaN is."""
    body = (
        rb'{"model":"a/b","temperature":NaN,"messages":[{"role":"user",'
        rb'"content":"\u001b[0m \ud800"}]}'
    )
    with pytest.raises(Refused, match="got NaN, which JSON does not have"):
        parse(body)


def test_nesting_without_end_is_refused() -> None:
    """However deep it goes: no error of ours."""
    body = b'{"model":"a/b","x":' + b"[" * 100_000
    with pytest.raises(Refused, match="nested less deeply"):
        parse(body)


def test_a_byte_order_mark_does_not_reach_upstream() -> None:
    """It is passed over here, and taken off there."""
    body = b'{"model":"a/b",' + MESSAGES + b"}"
    assert parse(b"\xef\xbb\xbf" + body) == ParsedRequest(
        "a/b", False, body, prompt_chars=2
    )


@given(st.dictionaries(st.text(min_size=1), values, max_size=5))
def test_unknown_fields_survive(fields: dict[str, object]) -> None:
    """Whatever else a body holds, it holds upstream as well."""
    known = {"messages": [{"role": "user", "content": "hi", "x": 1}]}
    fields = {k: v for k, v in fields.items() if k not in {"model", "stream"}} | known
    parsed = parse(json.dumps(fields).encode())
    assert json.loads(parsed.body) == {**fields, "model": "the/default"}
