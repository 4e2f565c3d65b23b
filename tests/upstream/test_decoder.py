"""The decoder: whole, byte by byte, in any cuts; and what is not a stream."""

from __future__ import annotations

import json
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_ai_stream.dialects.plain_chat import PLAIN_CHAT
from trio_ai_stream.upstream.decoder import MAX_EMPTY_EVENTS, Decoder
from trio_ai_stream.upstream.responses import read_answer
from trio_ai_stream.wire.events import (
    Choice,
    Comment,
    Done,
    Failure,
    Finish,
    Identity,
    Item,
    Malformed,
    Progress,
    Raw,
    Reasoning,
    ToolCallPiece,
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
    ("tool calls", chunk({"tool_calls": [{"index": 0}]}), [Progress()]),
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


def items_of(data: bytes, cuts: list[int], **options: Any) -> list[Item]:
    """Feed `data` in pieces, cut where `cuts` say, and return all items."""
    decoder, items, last = Decoder(**options), [], 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        items += decoder.feed(data[last:cut])
        last = cut
    return items + decoder.feed(data[last:]) + decoder.end()


PIECES = [
    content("good"),
    content("naïve \U0001f916"),
    chunk({"content": [{"type": "text", "text": "part"}]}),
    chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}),
    chunk({}, finish="stop"),
    chunk({"content": "last"}, error={"code": 502}),
    b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n',
    b": comment\n\n",
    b"data: [DONE]\n\n",
    b"data: {broken\n\n",
    b"event: error\ndata: it broke\n\n",
    b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
    b"data: " + b"x" * 500 + b"\n\n",
    b"data:\n\n",
    b"data: null\n\n",
    b"\n",
    b"junk line\n",
    b"\xef\xbb\xbf",
]


@settings(max_examples=400)
@given(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=9),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 5000), max_size=12),
    st.booleans(),
)
def test_what_is_read_does_not_depend_on_the_cuts(
    pieces: list[bytes], line_end: bytes, cuts: list[int], raw: bool
) -> None:
    """Good, odd and bad events in any cuts: the same items in the same order."""
    data = b"".join(pieces).replace(b"\n", line_end)
    options = {"raw": raw, "named": True, "max_event_bytes": 400}
    whole = items_of(data, [], **options)
    assert items_of(data, cuts, **options) == whole
    assert items_of(data, list(range(len(data))), **options) == whole


@pytest.mark.parametrize(
    "bad", [b"data: {broken\n\n", b"data: " + b"x" * 900 + b"\n\n", b"x" * 900]
)
def test_what_came_before_a_bad_event_is_not_lost(bad: bytes) -> None:
    """Two good events and a bad one in one read: the good ones, then the failure."""
    decoder = Decoder(max_event_bytes=800)
    *good, last = decoder.feed(content("a") + content("b") + bad)
    assert good == ["a", "b"]
    assert isinstance(last, Malformed)
    assert decoder.feed(content("c")) + decoder.end() == []


def test_an_event_that_was_cut_off_at_the_end_is_dropped() -> None:
    """Half an event is no event, and no reason to call the whole thing malformed."""
    data = content("a") + chunk({}, finish="stop") + b'data: {"usage":{"prom'
    assert items_of(data, []) == ["a", Finish("stop")]
    assert items_of(content("a") + b"data: [DONE]", []) == ["a", Done()]


def test_each_event_is_passed_on_when_it_is_complete() -> None:
    """With a lone CR as line end, too: not one event later."""
    decoder = Decoder()
    assert decoder.feed(content("a").replace(b"\n", b"\r")) == ["a"]
    assert decoder.feed(content("b").replace(b"\n", b"\r\n")[:-1]) == ["b"]
    assert decoder.feed(b"\n" + content("c")) == ["c"]


class CountingBuffer(bytearray):
    """A buffer that counts the bytes it was made to look at or to copy."""

    work = 0

    def __iadd__(self, data: bytes) -> Self:  # type: ignore[override, misc]
        CountingBuffer.work += len(data)
        self.extend(data)
        return self

    def rfind(self, what: bytes, start: int = 0) -> int:  # type: ignore[override]
        """Search, and count how much."""
        CountingBuffer.work += len(self) - start
        return super().rfind(what, start)


@pytest.mark.parametrize("size", [1, 50, 16_384])
def test_feeding_is_linear_in_what_is_fed(size: int) -> None:
    """One large event in small pieces: each byte is looked at a few times, no more."""
    event = content("x" * 200_000)
    decoder = Decoder()
    decoder._buffer, CountingBuffer.work = CountingBuffer(), 0
    items: list[Item] = []
    for start in range(0, len(event), size):
        items += decoder.feed(event[start : start + size])
    assert items == ["x" * 200_000]
    assert CountingBuffer.work <= 4 * len(event)


@pytest.mark.parametrize(
    "payload", [b"{", b"nonsense", b"[" * 9999, b'{"choices":[', b"'single'"]
)
def test_what_is_no_json_is_malformed(payload: bytes) -> None:
    """Broken JSON may hide a piece of the answer, so it is told."""
    (item,) = Decoder().feed(b"data: " + payload + b"\n\n")
    assert isinstance(item, Malformed)


ODD: list[tuple[str, bytes, list[Item]]] = [
    ("null", b"null", []),
    ("a list", b"[]", []),
    ("a number", b"3", []),
    ("choices of another kind", b'{"choices":3}', []),
    ("no choices", b'{"id":"x"}', []),
    ("a choice of another kind", b'{"choices":[null,"x",{"delta":1}]}', []),
    ("PHP's empty objects", b'{"choices":[{"delta":[],"finish_reason":"stop"}],'
     b'"usage":[]}', [Finish("stop")]),
    ("an empty reasoning", b'{"choices":[{"delta":{"content":"a","reasoning":{}}}]}',
     ["a"]),
    ("a finish that is a number", b'{"choices":[{"delta":{},"finish_reason":1}]}',
     [Finish("1")]),
    ("a finish that is empty", b'{"choices":[{"delta":{},"finish_reason":""}]}', []),
    ("no delta", b'{"choices":[{"index":0,"finish_reason":"stop"}]}',
     [Finish("stop")]),
    ("NaN", b'{"choices":[{"delta":{"content":"a"},"logprobs":{"x":[NaN,-Infinity]}}]}',
     ["a"]),
    ("NaN and an odd content",
     b'{"choices":[{"delta":{"content":["a"]},"x":NaN}]}', ["a"]),
    ("parts", b'{"choices":[{"delta":{"content":[{"type":"text","text":"a"},"b",'
     b'{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},'
     b'{"type":"image_url","image_url":{}}]}}]}',
     ["a", "b", Reasoning("hm"), Progress()]),
    ("a whole message", b'{"choices":[{"message":{"content":"a"}}]}', ["a"]),
    ("the older API's text", b'{"choices":[{"text":"a"}]}', ["a"]),
    ("two choices", b'{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,'
     b'"delta":{"content":"b"},"finish_reason":"stop"}]}',
     ["a", Choice(1), "b", Finish("stop", 1)]),
    ("an index of another kind",
     b'{"choices":[{"index":null,"delta":{"content":"a"}}]}', ["a"]),
    ("no error", b'{"error":"","choices":[{"error":{},"delta":{"content":"a"}}]}',
     ["a"]),
    ("half a surrogate pair in a call of another shape",
     b'{"choices":[{"delta":{"content":["a"],"tool_calls":[{"function":"\\ud83d"}]}}]}',
     ["a", Progress()]),
    ("a byte that is not UTF-8", b'{"choices":[{"delta":{"content":"a\xffb"}}]}',
     ["a\ufffdb"]),
    ("such a byte in a call of another shape",
     b'{"choices":[{"delta":{"tool_calls":[{"function":"\xff"}]}}]}', [Progress()]),
]  # fmt: skip
WORK: list[tuple[str, Any, list[Item]]] = [
    ("reasoning_content", "hm", [Reasoning("hm")]),
    ("reasoning_details", [{"type": "reasoning.encrypted"}], [Progress()]),
    ("reasoning_details", [{"type": "reasoning.text", "text": "hm"}],
     [Reasoning("hm")]),
    ("audio", {"data": "UklG"}, [Progress()]),
    ("images", [{"type": "image_url"}], [Progress()]),
    ("function_call", {"name": "f"}, [Progress()]),
    ("tool_calls", {"index": 0}, [Progress()]),
    ("tool_calls", [{"index": 1, "id": "c", "function": {"name": "f"}}],
     [ToolCallPiece(1, "c", "f")]),
    ("tool_calls", [{"function": {"arguments": "{"}}],
     [ToolCallPiece(0, arguments="{")]),
    ("tool_calls", [{"id": "a", "function": {"name": "f"}},
                    {"id": "b", "index": None, "function": {"name": "g"}}],
     [ToolCallPiece(0, "a", "f"), ToolCallPiece(1, "b", "g")]),
    ("tool_calls", [{"index": -1, "function": {"name": "f"}}], [Progress()]),
    ("tool_calls", [{"function": {"arguments": {}}}], [Progress()]),
    ("tool_calls", [{"function": {}}] * 129, [Progress()]),
    ("annotations", [{"type": "url_citation"}], [Progress()]),
    ("audio", None, []),
    ("images", [], []),
    ("tool_calls", [], []),
    ("reasoning_details", [], []),
    ("reasoning_details", None, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "items"), [case[1:] for case in ODD], ids=[case[0] for case in ODD]
)
def test_an_odd_chunk_ends_nothing(payload: bytes, items: list[Item]) -> None:
    """What is understood is read, and what is not is passed on all the same."""
    data = b"data: " + payload + b"\n\n" + content("next")
    assert Decoder().feed(data) == [*items, "next"]
    valid = payload.decode("utf-8", "replace").encode()
    assert Decoder(raw=True).feed(data)[: len(items) + 1] == [Raw(valid), *items]


def test_a_tool_call_keeps_what_can_be_read() -> None:
    """A byte that is not UTF-8 becomes U+FFFD in it, as in a text."""
    call = b'{"index":1,"function":{"arguments":"a\xffb"}}'
    data = b'data: {"choices":[{"delta":{"tool_calls":[' + call + b"]}}]}\n\n"
    assert Decoder().feed(data) == [ToolCallPiece(1, arguments="a\ufffdb")]


def test_an_error_may_say_what_it_cost() -> None:
    """Usage beside an error is the whole bill."""
    chunk = b'{"error":{"code":502},"choices":[],"usage":{"cost":1}}'
    usage, failure = Decoder().feed(b"data: " + chunk + b"\n\n")
    assert usage == Usage({"cost": 1}, final=True)
    assert isinstance(failure, Failure)
    chunk = chunk.replace(b"[]", b'[{"delta":{"content":"half"}}]')
    text, usage, failure = Decoder().feed(b"data: " + chunk + b"\n\n")
    assert (text, usage) == ("half", Usage({"cost": 1}, final=True))
    assert isinstance(failure, Failure)


def test_a_document_that_is_not_utf8_is_an_answer() -> None:
    """The byte becomes U+FFFD, as SDKs read it, and nothing else changes."""
    body = b'{"choices":[{"message":{"content":"a\xffb"},"finish_reason":"stop"}]}'
    valid = body.decode("utf-8", "replace").encode()
    items = [Raw(valid), "a\ufffdb", Finish("stop"), Done()]
    assert read_answer(body, PLAIN_CHAT, as_stream=False) == items
    assert read_answer(body, PLAIN_CHAT, as_stream=True) == items[1:]


@pytest.mark.parametrize(("field", "value", "items"), WORK)
def test_whatever_a_model_works_at_is_progress(
    field: str, value: Any, items: list[Item]
) -> None:
    """All kinds of output count, and an empty field does not."""
    assert Decoder().feed(chunk({field: value})) == items
    assert Decoder().feed(chunk({"content": "", field: value})) == items


KEPT_ALIVE = [b"data:\n\n", b"data: \n\n", b": x\n\n", b"data\n: x\n\n"]


@pytest.mark.parametrize("event", KEPT_ALIVE)
def test_an_event_without_data_is_a_sign_of_life(event: bytes) -> None:
    """It counts as a comment does, and is not passed on."""
    assert Decoder(raw=True).feed(event) == [Comment()]


@pytest.mark.parametrize("marker", [b"[DONE]", b"[DONE] ", b" [DONE]\t", b"[DONE];"])
def test_the_end_marker_may_have_something_after_it(marker: bytes) -> None:
    """As OpenAI's SDKs read it: what begins with `[DONE]` is the end."""
    assert Decoder().feed(b"data: " + marker + b"\n\n" + content("x")) == [Done()]


def test_the_first_id_of_a_chunk_is_told_once() -> None:
    """Only if it is asked for; a chunk without one is passed over."""
    data = b'data: {"choices":[]}\n\n' + content("a") + content("b")
    assert Decoder(named=True).feed(data) == [Identity("gen-1"), "a", "b"]


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
    ({"code": None, "type": "invalid_request_error", "message": "m"}, 400, False, None),
    ({"type": "overloaded_error", "message": "m"}, 503, True, None),
    ({"type": "rate_limit_error"}, 429, True, None),
    ({"code": "insufficient_quota", "type": "insufficient_quota"}, 502, False, None),
    ({"code": None, "http_status": 429}, 429, True, None),
    ({"code": "other", "metadata": {"error_type": "invalid_prompt"}}, 400, False, None),
]  # fmt: skip


@pytest.mark.parametrize(("error", "status", "retryable", "after"), ERRORS)
def test_an_error_counts_before_choices_and_in_any_documented_shape(
    error: object, status: int, retryable: bool, after: float | None
) -> None:
    """`error` wins over content beside it; its code is a number or a word."""
    (item,) = Decoder().feed(chunk({"content": ""}, error=error))
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


DIALECTS = [
    b'data: {"object":"error","message":"SECRET no","code":400}\n\n',
    b'event: error\ndata: {"message":"SECRET no","code":400}\n\n',
    b'event: error\ndata: {"error":{"message":"SECRET no","code":400}}\n\n',
    b'data: {"error_message":"SECRET no","error_code":400}\n\n',
    b'data: {"detail":"SECRET no","code":400}\n\n',
    b'data: {"type":"error","error":{"message":"SECRET no","code":400}}\n\n',
    b'data: {"code":400,"message":"SECRET no","data":null}\n\n',
    b'data: {"choices":[{"error":{"code":400,"message":"SECRET no"}}]}\n\n',
]


@pytest.mark.parametrize("event", DIALECTS)
def test_an_error_is_read_in_each_dialect(event: bytes) -> None:
    """Whatever an upstream calls it, its reason and its status are told."""
    (item,) = Decoder(raw=True).feed(event)
    assert isinstance(item, Failure)
    assert item.problem.status == 400
    assert item.problem.message.endswith("SECRET no")


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":"SECRET"}\n\n',
        b"event: error\ndata: SECRET\n\n",
        b'data: {"detail":[{"msg":"SECRET"}]}\n\n',
    ],
)
def test_an_error_without_a_code_tells_its_text(event: bytes) -> None:
    """It is a failure of upstream's, and the text is all there is to go by."""
    (item,) = Decoder().feed(event)
    assert isinstance(item, Failure)
    assert item.problem.status == 502
    assert item.problem.message.endswith(": SECRET")
    assert "SECRET" not in item.detail


def test_the_last_words_of_a_chunk_with_an_error_are_kept() -> None:
    """The text is delivered, in a chunk without the error, and then the failure."""
    delta = {"content": "last words"}
    event = chunk(delta, error={"code": 502, "message": "SECRET"}, finish="error")
    passed, text, failure = Decoder(raw=True).feed(event)
    assert (text, type(failure)) == ("last words", Failure)
    assert isinstance(passed, Raw)
    assert b"SECRET" not in passed.payload
    (choice,) = json.loads(passed.payload)["choices"]
    assert choice == {"index": 0, "delta": delta, "finish_reason": None}


def test_choices_without_end_are_read_up_to_a_bound() -> None:
    """A chunk of 16 MiB has room for millions of them: that blocked the loop."""
    choices = [{"index": index, "delta": {"content": "a"}} for index in range(200)]
    data = b"data: " + json.dumps({"choices": [{}, *choices]}).encode() + b"\n\n"
    passed, *items = Decoder(raw=True).feed(data)
    assert isinstance(passed, Raw)
    assert passed.payload in data
    assert items.count("a") == 127
    far = {"choices": [{"index": 10**30, "finish_reason": "stop"}]}
    (finish,) = Decoder().feed(b"data: " + json.dumps(far).encode() + b"\n\n")
    assert finish == Finish("stop", 0)


def test_a_finish_in_error_tells_the_providers_word() -> None:
    """`finish_reason: error` without an error object: what there is, is told."""
    choice = {"delta": {}, "finish_reason": "error", "native_finish_reason": "BAD_CALL"}
    data = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    (failure,) = Decoder(raw=True).feed(data)
    assert isinstance(failure, Failure)
    assert failure.problem.message.endswith(": BAD_CALL")


@pytest.mark.parametrize("event", [b":\n\n", b"\n\n", b"data: \n\n", b"id\n\n"])
def test_empty_events_without_end_are_refused(
    event: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any item but a comment starts the count anew."""
    assert MAX_EMPTY_EVENTS >= 10_000  # what good upstreams send stays far below
    monkeypatch.setattr("trio_ai_stream.upstream.decoder.MAX_EMPTY_EVENTS", 3000)
    decoder = Decoder(named=True)
    most = event * 2000
    for data in (most, content("x"), most, content("x") + b":\n\n", most):
        assert not any(type(item) is Malformed for item in decoder.feed(data))
    assert type(decoder.feed(event * 2000)[-1]) is Malformed
