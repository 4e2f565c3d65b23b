"""The decoder: whole, byte by byte, in any cuts; and what is not a stream."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.upstream.decoder import Decoder, MalformedError
from trio_ai_stream.wire.events import (
    Comment,
    Done,
    Failure,
    Finish,
    Item,
    Raw,
    Reasoning,
    ToolCall,
    Usage,
)


def chunk(delta: object = None, **more: object) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish", None)}
    body = {"id": "gen-1", "choices": [choice], **more}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def content(text: str) -> bytes:
    """One event with content."""
    return chunk({"content": text})


USAGE = {"prompt_tokens": 1, "completion_tokens": 2}
CASES: list[tuple[str, bytes, list[Item]]] = [
    ("content", content("hi"), ["hi"]),
    ("no text, no item", content(""), []),
    ("the role only", chunk({"role": "assistant", "content": ""}), []),
    ("a comment", b": OPENROUTER PROCESSING\n\n", [Comment()]),
    ("the end marker", b"data: [DONE]\n\n", [Done()]),
    ("a chunk after the end", b"data: [DONE]\n\n" + content("x"), [Done()]),
    ("junk after the end", b"data: [DONE]\n\ndata: {junk\n\n", [Done()]),
    ("no space after data:", content("x").replace(b"data: ", b"data:"), ["x"]),
    ("CRLF", content("x").replace(b"\n", b"\r\n"), ["x"]),
    ("lone CR", content("x").replace(b"\n", b"\r"), ["x"]),
    ("U+2028 is no line end", content("a\u2028b\u0085c"), ["a\u2028b\u0085c"]),
    ("newline inside", content("a\nb"), ["a\nb"]),
    ("two in a row", content("a") + content("b"), ["a", "b"]),
    ("a comment between", b": x\n" + content("a"), [Comment(), "a"]),
    ("other fields", b"event: m\nid: 1\nretry: 5\n" + content("a"), ["a"]),
    ("data over lines", b'data: {"choices":\ndata: []}\n\n', []),
    ("a BOM first", b"\xef\xbb\xbf" + content("a"), ["a"]),
    ("usage without choices", b'data: {"choices":[],"usage":{"a":1}}\n\n',
     [Usage({"a": 1})]),
    ("usage on a choice", chunk({"content": "x"}, usage=USAGE), ["x", Usage(USAGE)]),
    ("finish", chunk({}, finish="stop"), [Finish("stop")]),
    ("reasoning", chunk({"reasoning": "hm"}), [Reasoning("hm")]),
    ("refusal is content", chunk({"refusal": "no"}), ["no"]),
    ("tool calls", chunk({"tool_calls": [{"index": 0}]}), [ToolCall()]),
    ("a debug chunk", b'data: {"choices":[],"debug":{}}\n\n', []),
    ("half a surrogate pair", b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}'
     b"\n\n", ["\ud83d"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "items"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_case_reads_the_same_in_any_cut(data: bytes, items: list[Item]) -> None:
    """Whole, byte by byte, and with a tail behind it."""
    whole = Decoder()
    assert whole.feed(data) + whole.end() == items
    single = Decoder()
    pieces = [single.feed(data[i : i + 1]) for i in range(len(data))]
    assert [item for piece in pieces for item in piece] + single.end() == items
    tail = Decoder()
    more: list[Item] = [] if Done() in items else ["tail"]
    assert tail.feed(data + b"\n\n" + content("tail")) == [*items, *more]


@given(
    st.lists(st.text(min_size=1), max_size=8),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_any_text_survives_any_cuts(
    texts: list[str], line_end: bytes, cuts: list[int]
) -> None:
    """What goes in as content comes out, wherever the network cuts it."""
    data = b"".join(map(content, texts)).replace(b"\n", line_end)
    decoder, items, last = Decoder(), [], 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        items += decoder.feed(data[last:cut])
        last = cut
    items += decoder.feed(data[last:]) + decoder.end()
    assert items == texts


@given(st.binary(max_size=300), st.integers(0, 300))
def test_rubbish_is_items_or_malformed_and_nothing_else(data: bytes, cut: int) -> None:
    """No bytes raise anything but `MalformedError`."""
    decoder = Decoder()
    items: list[Item] = []
    with contextlib.suppress(MalformedError):
        items = decoder.feed(data[:cut]) + decoder.feed(data[cut:]) + decoder.end()
    assert all(item is not None for item in items)


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"nonsense",
        b"[" * 9999,
        b"[]",
        b'{"choices":3}',
        b'{"choices":[{"delta":1}]}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
    ],
)
def test_what_is_no_chunk_is_malformed(payload: bytes) -> None:
    """Broken JSON, other JSON and broken UTF-8 are told apart from a stream."""
    with pytest.raises(MalformedError):
        Decoder().feed(b"data: " + payload + b"\n\n")


def test_an_event_without_end_is_bounded() -> None:
    """A giant event is refused at the bound, not held."""
    decoder = Decoder(max_event_bytes=1000)
    assert decoder.feed(b"data: " + b"x" * 900) == []
    with pytest.raises(MalformedError, match="at most 1000 bytes"):
        decoder.feed(b"x" * 200)


def test_raw_hands_on_each_payload_before_what_it_says() -> None:
    """In raw mode the payload comes first, byte for byte, before what it says."""
    data = b": c\n\n" + content("a") + b"data: [DONE]\n\n"
    payload = content("a")[6:-2]
    assert Decoder(raw=True).feed(data) == [Comment(), Raw(payload), "a", Done()]


ERRORS = [
    ({"code": 429, "message": "m"}, 429, True, None),
    ({"code": "server_error", "message": "m"}, 502, False, None),
    ({"code": 502}, 502, True, None),
    ({"code": "429"}, 429, True, None),
    ("just text", 502, True, None),
    ({"message": "m", "error_type": "rate_limit_exceeded", "http_status": 429,
      "availability": {"retryable": True, "retry_after": 40}}, 429, True, 40.0),
    ({"code": 503, "availability": {"retryable": False}}, 503, False, None),
    ({"code": True, "metadata": {"error_type": "timeout"}}, 504, True, None),
]  # fmt: skip


@pytest.mark.parametrize(("error", "status", "retryable", "after"), ERRORS)
def test_an_error_counts_before_choices_and_in_any_documented_shape(
    error: object, status: int, retryable: bool, after: float | None
) -> None:
    """`error` wins over content beside it; its code is a number or a word."""
    (item,) = Decoder().feed(chunk({"content": "x"}, error=error))
    assert isinstance(item, Failure)
    assert item.problem.status == status
    assert item.problem.retryable is retryable
    assert item.problem.retry_after == after


def test_only_a_callers_4xx_quotes_upstream() -> None:
    """Upstream's text reaches a client when it is meant for the caller, else never."""
    for code, quoted in [(400, True), (404, True), (401, False), (500, False)]:
        (item,) = Decoder().feed(chunk(error={"code": code, "message": "SECRET"}))
        assert isinstance(item, Failure)
        assert ("SECRET" in item.problem.message) is quoted
        assert "SECRET" not in item.detail
