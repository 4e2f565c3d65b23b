"""What upstreams really send: cases out of public bug reports, in our own words.

Real application and real transport over memory streams, on a mock clock; each case is
asked for on `/chat` and on `/v1`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
import trio
from trio.testing import MockClock

from tests.support.completions import DONE, ask, over, payloads
from tests.support.scripted import (
    CLOSE,
    HOLD,
    LAST_CHUNK,
    MUMBLE,
    Step,
    chunked,
    head,
    scripted,
)
from tests.support.world import BUDGETS
from trio_ai_stream.wire.record import Outcome

GRACE = BUDGETS.done_grace_s


def event(delta: Any = None, finish: Any = None, index: int = 0, **more: Any) -> bytes:
    """One event of a stream."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    chunk = {"id": "gen-7", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps({**chunk, **more}).encode() + b"\n\n"


def text(content: str) -> bytes:
    """One event with content."""
    return event({"content": content})


HELLO = text("hel") + text("lo")
STOP = event({}, "stop")
USAGE = b'data: {"id":"gen-7","choices":[],"usage":{"total_tokens":3}}\n\n'
MARKER = b"data: [DONE]\n\n"
MEMBERS = b"".join(gzip.compress(one, mtime=0) for one in (HELLO, STOP, MARKER))
BARE = zlib.compress(HELLO + STOP + MARKER, wbits=-zlib.MAX_WBITS)
WHOLE = {
    "id": "gen-8",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"total_tokens": 3},
}
DOCUMENT = json.dumps(WHOLE).encode()


def sse(*parts: bytes) -> list[Step]:
    """A well-formed response with an event stream, each part in a write of its own."""
    return [head(), *map(chunked, parts), LAST_CHUNK]


def body(kind: str | None, data: bytes, **more: str) -> list[Step]:
    """A response with another content type."""
    return [head(kind, **more), chunked(data) if data else b"", LAST_CHUNK]


@dataclass(frozen=True)
class Case:
    """What upstream sends, and what a client is to get of it."""

    name: str
    steps: list[Step]
    text: str = "hello"
    error: str | None = None  # its type; else the answer is whole
    after: float = 0.0  # seconds until the end
    finish: str | None = "stop"
    passes: bytes = b""  # what the client of /v1 gets byte for byte


HELD = [head(), chunked(HELLO), chunked(STOP), chunked(USAGE)]
CASES = [
    Case("healthy", sse(HELLO, STOP, USAGE, MARKER)),
    # An answer is whole when upstream has said so.
    Case("finish, then silence", [*HELD, HOLD], after=GRACE),
    Case("finish, then comments without end", [*HELD, MUMBLE], after=GRACE),
    Case("finish, then a cut", [*HELD, CLOSE]),
    Case("finish, then a late marker", [*HELD, 1.0, chunked(MARKER), LAST_CHUNK],
         after=1.0),
    Case("finish, then a broken event", sse(HELLO, STOP, b"data: {brok\n\n")),
    Case("finish and a broken event in one read",
         sse(HELLO + STOP + b"data: {brok\n\n")),
    Case("finish, then half a chunk of the body", [*HELD, b"20\r\ndata", CLOSE]),
    Case("finish, then bad framing in the same read",
         [head(), chunked(HELLO + STOP) + b"nonsense\r\n", HOLD]),
    Case("finish on every event",
         [head(), chunked(event({"content": "hel"}, "stop")), 1.5,
          chunked(event({"content": "lo"}, "stop")), 1.5, HOLD], after=1.5 + GRACE),
    Case("an empty answer, then silence", [head(), chunked(STOP), HOLD], text="",
         after=GRACE),
    Case("only the marker at the end", sse(HELLO, MARKER), finish=None),
    # Cut before that is an error.
    Case("a cut in mid-answer", [head(), chunked(HELLO), CLOSE],
         error="upstream_failed"),
    Case("an orderly end in mid-answer", sse(HELLO), error="upstream_failed"),
    Case("an empty finish, then the end", sse(event({"content": "hello"}, "")),
         error="upstream_failed"),
    Case("nothing but the marker", sse(MARKER), text="", error="upstream_failed"),
    Case("usage and the marker", sse(USAGE + MARKER), text="", error="upstream_failed"),
    Case("nothing", sse(), text="", error="upstream_failed"),
    # Nothing that has arrived is lost.
    Case("good events and a broken one in one read", sse(HELLO + b"data: {brok\n\n"),
         error="upstream_failed"),
    Case("good events and an error in one read",
         sse(HELLO + b'data: {"error":{"code":503}}\n\n'), error="upstream_overloaded"),
    Case("good events and bad framing in one read",
         [head() + chunked(HELLO) + b"nonsense\r\n", HOLD], error="upstream_failed"),
    Case("an error with the last words",
         sse(text("hel"), event({"content": "lo"}, "error", error={"code": 502})),
         error="upstream_unavailable"),
    Case("the marker without a line end, then a cut",
         [head(), chunked(HELLO + STOP + MARKER[:-2]), CLOSE]),
    Case("the last event without a line end", sse(HELLO + STOP[:-2])),
    # One odd chunk ends nothing.
    Case("a list of parts",
         sse(event({"content": [{"type": "text", "text": "hel"}]}), text("lo"), STOP,
             MARKER), passes=b'"content": [{"type": "text", "text": "hel"}]'),
    Case("PHP's empty objects", sse(HELLO, b'data: {"choices":[{"delta":[],'
         b'"finish_reason":"stop"}],"usage":[]}\n\n', MARKER), passes=b'"delta":[]'),
    Case("null and empty data", sse(b"data: null\n\ndata:\n\n" + HELLO, STOP, MARKER),
         passes=b"data: null\n\n"),
    Case("a blank after the marker", sse(HELLO, STOP, b"data: [DONE] \n\n")),
    Case("a finish that is a number", sse(HELLO, event({}, 1), MARKER), finish="1",
         passes=b'"finish_reason": 1'),
    Case("no error", sse(event({"content": "hello"}, error=""), STOP, MARKER)),
    Case("lone CR", sse((HELLO + STOP + MARKER).replace(b"\n", b"\r"))),
    # Another content type, or another coding.
    Case("a whole completion", body("application/json", DOCUMENT),
         passes=b'"delta":{"role":"assistant","content":"hello"}'),
    Case("a whole completion as an event stream",
         body("text/event-stream", DOCUMENT)),
    Case("a whole completion after blanks",
         body("application/json", b" \n" + DOCUMENT)),
    Case("events as JSON", body("application/json", HELLO + STOP + MARKER)),
    Case("events without a type", body(None, b": x\n\n" + HELLO + STOP + MARKER)),
    Case("an error document", body("application/json", b'{"error":{"code":400}}'),
         text="", error="invalid_request"),
    Case("an error document as an event stream",
         body("text/event-stream", b'{"error":{"code":400}}'), text="",
         error="invalid_request"),
    Case("a web page", body("text/html", b"<html>"), text="",
         error="upstream_misconfigured"),
    Case("a web page without a type", body(None, b"<!doctype html>"), text="",
         error="upstream_misconfigured"),
    Case("an empty body without a type", body(None, b""), text="",
         error="upstream_failed"),
    Case("an empty document", body("application/json", b"{}"), text="",
         error="upstream_failed"),
    Case("gzip",
         body("text/event-stream", gzip.compress(HELLO + STOP + MARKER, mtime=0),
              Content_Encoding="gzip")),
    Case("deflate", body("text/event-stream", zlib.compress(HELLO + STOP + MARKER),
                         Content_Encoding="deflate")),
    Case("deflate without zlib's frame, in single bytes",
         [head(Content_Encoding="deflate"),
          *(chunked(bytes([byte])) for byte in BARE), LAST_CHUNK]),
    Case("deflate that is cut",
         body("text/event-stream", BARE[:-9], Content_Encoding="deflate"),
         error="upstream_failed"),
    Case("one byte of deflate",
         body("text/event-stream", BARE[:1], Content_Encoding="deflate"), text="",
         error="upstream_failed"),
    Case("br", body("text/event-stream", brotli.compress(HELLO + STOP + MARKER),
                    Content_Encoding="br")),
    Case("gzip, each event by itself",
         [head(Content_Encoding="gzip"),
          *(chunked(bytes([byte])) for byte in MEMBERS), LAST_CHUNK]),
    Case("gzip in several members, and padding",
         body("text/event-stream", MEMBERS + bytes(50), Content_Encoding="gzip")),
    Case("gzip whose last member is cut",
         body("text/event-stream", gzip.compress(HELLO, mtime=0) + MEMBERS[:20],
              Content_Encoding="gzip"),
         text="hello", error="upstream_failed"),
    Case("gzip of a document",
         body("application/json", gzip.compress(DOCUMENT, mtime=0),
              Content_Encoding="gzip")),
    Case("gzip of comments without end",
         body("text/event-stream", gzip.compress(b":\n\n" * 200_000, mtime=0),
              Content_Encoding="gzip"), text="", error="upstream_failed"),
    Case("a text of very many parts",
         body("text/event-stream", b'data: {"choices":[{"delta":{"content":['
              + b'"",' * 60_000 + b'""]}}]}\n\n'), text="", error="upstream_failed"),
    Case("a reasoning of very many parts",
         body("text/event-stream", b'data: {"choices":[{"delta":{"reasoning_details":['
              + b'1,' * 60_000 + b'1]}}]}\n\n'), text="", error="upstream_failed"),
    Case("gzip that is none", body("text/event-stream", HELLO, Content_Encoding="gzip"),
         text="", error="upstream_failed"),
    Case("a coding that nobody knows",
         body("text/event-stream", HELLO, Content_Encoding="zip"), text="",
         error="upstream_failed"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_chat_tells_each_case_as_it_is(
    case: Case, autojump_clock: MockClock
) -> None:
    """All text that came, one ending, at its time, and upstream asked once."""
    async with scripted(*case.steps) as (w, upstream):
        visit = w.chat()
        assert await over(visit) == pytest.approx(case.after)
        assert visit.text == case.text
        last = visit.events[-1]
        if case.error is None:
            assert (last["type"], last["finish_reason"]) == ("done", case.finish)
            assert w.record.outcome is Outcome.COMPLETED
        else:
            assert (last["type"], last["error_type"]) == ("error", case.error)
        assert upstream.requests == 1
        w.assert_clean()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_v1_tells_each_case_as_it_is(
    case: Case, autojump_clock: MockClock
) -> None:
    """The same for a client of OpenAI's API, who gets upstream's chunks."""
    async with scripted(*case.steps) as (w, upstream):
        visit = ask(w, "m")
        assert await over(visit) == pytest.approx(case.after)
        if visit.status != 200:
            assert case.error is not None
            assert visit.json()["error"]["type"]
        else:
            *chunks, last = payloads(visit)
            said = [c for c in chunks if isinstance(c, dict) and c.get("choices")]
            assert "".join(map(content_of, said)) == case.text
            assert (last == DONE) == (case.error is None)
            assert case.passes in visit.body
        assert upstream.requests == 1
        w.assert_clean()


def content_of(chunk: dict[str, Any]) -> str:
    """The text in a chunk, also in parts."""
    said = chunk["choices"][0]["delta"] or {}
    content = said.get("content") or ""
    return content if isinstance(content, str) else content[0]["text"]


@pytest.mark.parametrize("kind", ["application/json", "text/html", None])
async def test_what_is_no_answer_has_a_true_status_on_v1(
    kind: str | None, autojump_clock: MockClock
) -> None:
    """It is known before the response begins, so it is a 502 and not to be retried."""
    async with scripted(*body(kind, b"<html>")) as (w, _):
        visit = ask(w, "m")
        await over(visit)
        assert visit.status == 502
        assert visit.headers["x-should-retry"] == "false"
        assert b"OPENROUTER_BASE_URL" in visit.body


async def test_each_choice_needs_its_own_finish(autojump_clock: MockClock) -> None:
    """Two were asked for: the first one's end is not the answer's."""
    first = event({"content": "a"}, "stop")
    second = event({"content": "b"}, index=1)
    steps: list[Step] = [head(), chunked(first), 5.0, chunked(second)]
    async with scripted(*steps, CLOSE) as (w, _):
        visit = ask(w, "m", n=2)
        assert await over(visit) == 5
        assert "error" in payloads(visit)[-1]
    last = chunked(event({}, "stop", index=1))
    async with scripted(*steps, last, HOLD) as (w, _):
        visit = ask(w, "m", n=2)
        began = trio.current_time()
        assert await over(visit) - began == 5 + GRACE
        assert payloads(visit)[-1] == DONE
        w.assert_clean()


WORK: list[dict[str, Any]] = [
    {"reasoning_content": "hm"},
    {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
    {"audio": {"data": "UklG"}},
    {"images": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
    {"function_call": {"name": "f"}},
    {"refusal": "no"},
    {"annotations": [{"type": "url_citation"}]},
]


@pytest.mark.parametrize("delta", WORK, ids=[next(iter(one)) for one in WORK])
async def test_work_is_progress_for_all_budgets(
    delta: dict[str, Any], autojump_clock: MockClock
) -> None:
    """A model that works for longer than the first token may take is left to work."""
    steps: list[Step] = [head()]
    while len(steps) < 12:
        steps += [chunked(event(delta)), 9.0]
    steps += [chunked(HELLO + STOP + MARKER), LAST_CHUNK]
    async with scripted(*steps) as (w, _):
        visit = w.chat()
        assert await over(visit) > 2 * BUDGETS.first_token_s
        assert visit.types[-1] == "done"
        assert visit.text.endswith("hello")


@pytest.mark.parametrize("delta", WORK, ids=[next(iter(one)) for one in WORK])
async def test_after_any_work_the_request_is_not_sent_again(
    delta: dict[str, Any], autojump_clock: MockClock
) -> None:
    """The model has begun, and is billed: a refusal after that is told, not retried."""
    error = b'data: {"error":{"code":429,"message":"m"}}\n\n'
    async with scripted(*sse(event(delta), error)) as (w, upstream):
        visit = w.chat()
        await over(visit)
        assert visit.events[-1]["error_type"] == "upstream_rate_limited"
        assert upstream.requests == 1


async def test_a_deadline_in_the_grace_finds_the_answer_whole(
    autojump_clock: MockClock,
) -> None:
    """STREAM_DEADLINE_SECS is over while only the marker is waited for: `done`."""
    steps: list[Step] = [head(), chunked(text("hello"))]
    while len(steps) < 26:
        steps += [8.2, chunked(b": alive\n\n")]
    steps += [BUDGETS.deadline_s - 8.2 * 12 - 1, chunked(STOP), HOLD]
    async with scripted(*steps) as (w, _):
        visit = w.chat()
        assert await over(visit) == pytest.approx(BUDGETS.deadline_s)
        assert visit.types[-1] == "done"
        w.assert_clean()


@pytest.mark.parametrize("stream", [True, False])
async def test_the_generation_id_is_that_of_the_chunks(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Where upstream sends no `X-Generation-Id`."""
    steps = sse(HELLO, STOP, MARKER) if stream else body("application/json", DOCUMENT)
    async with scripted(*steps) as (w, _):
        await over(ask(w, "m", stream=stream))
        assert w.record.generation_id == ("gen-7" if stream else "gen-8")


async def test_an_image_of_six_megabytes_passes(autojump_clock: MockClock) -> None:
    """One event, in the 16 KiB pieces in which it arrives."""
    image = {"images": [{"image_url": {"url": "data:" + "A" * 6_000_000}}]}
    async with scripted(*sse(event(image), STOP, MARKER)) as (w, _):
        visit = ask(w, "m")
        await over(visit)
        assert event(image) in visit.body
        assert payloads(visit)[-1] == DONE
        w.assert_clean()


@pytest.mark.parametrize("stream", [True, False])
async def test_all_streams_together_hold_no_more_than_the_budget(
    stream: bool, autojump_clock: MockClock
) -> None:
    """What does not fit is told as such; the next one finds the room free again."""
    large = {**WHOLE, "padding": "A" * 200_000}
    document = json.dumps(large).encode()
    steps = body("application/json", document)
    if stream:
        image = event({"images": ["A" * 200_000]})
        steps = [
            head(),
            chunked(text("hello") + image),
            chunked(STOP + MARKER),
            LAST_CHUNK,
        ]
    env = {"UPSTREAM_BUFFER_BYTES": "150000"}
    async with scripted(*steps, env=env) as (w, _):
        for _ in range(2):
            visit = ask(w, "m", stream=stream)
            await over(visit)
            assert b"server_overloaded" in visit.body
            if stream:
                assert text_of_chunks(visit) == "hello"
        assert w.services.upstream is not None
        assert w.services.upstream.buffers.refused == 2
        w.assert_clean()
    env = {"UPSTREAM_BUFFER_BYTES": "250000"}
    async with scripted(*steps, env=env) as (w, _):
        for _ in range(3):
            visit = ask(w, "m", stream=stream)
            await over(visit)
            assert b"server_overloaded" not in visit.body
        assert w.services.upstream is not None
        assert w.services.upstream.buffers.held == 0
        assert w.services.upstream.buffers.refused == 0
        w.assert_clean()


def text_of_chunks(visit: Any) -> str:
    """The content up to an error chunk."""
    return "".join(
        choice["delta"].get("content") or ""
        for payload in payloads(visit)
        if "error" not in payload
        for choice in payload["choices"]
    )
