"""`/v1/messages`: what passes, what ends it, errors, signs of life."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.completions import over
from tests.support.scripted import COMMENT, HOLD, LAST_CHUNK, chunked, head, scripted
from tests.support.world import BUDGETS, Visit, World, world
from trio_ai_stream.dialects.messages import MESSAGES
from trio_ai_stream.dialects.named_events import data_of
from trio_ai_stream.upstream.decoder import Decoder
from trio_ai_stream.wire.events import Item, Raw, Reasoning, Stopped
from trio_ai_stream.wire.record import Outcome

PATH = "/v1/messages"


def event(kind: str, **fields: Any) -> bytes:
    """One event of Anthropic's."""
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


START = event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "m",
        "usage": {"input_tokens": 7, "output_tokens": 1},
    },
)
THINK = event(
    "content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}
)
THOUGHT = event(
    "content_block_delta",
    index=0,
    delta={"type": "thinking_delta", "thinking": "hm"},
)
SIGNED = event(
    "content_block_delta",
    index=0,
    delta={"type": "signature_delta", "signature": "s"},
)
CLOSE = event("content_block_stop", index=0)
OPEN = event("content_block_start", index=1, content_block={"type": "text", "text": ""})
HELLO = event(
    "content_block_delta", index=1, delta={"type": "text_delta", "text": "héllo"}
)
PING = event("ping")
STOP = event(
    "message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5}
)
END = event("message_stop")
NEW = event("a_new_event", whatever=[1, {"x": "\u2028"}])
ANSWER = b"".join(
    (START, PING, THINK, THOUGHT, SIGNED, CLOSE, OPEN, HELLO, NEW, CLOSE, STOP, END)
)


def ask(w: World, **fields: Any) -> Visit:
    """Begin a message."""
    headers = fields.pop("headers", {})
    body = {
        "model": "simulator/fast",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        **fields,
    }
    return w.visit(body, fields.pop("path", PATH), headers=headers)


def error_of(visit: Visit) -> dict[str, Any]:
    """The error of a refusal, in the shape that Anthropic's SDKs read."""
    body = visit.json()
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message", "metadata"}
    error: dict[str, Any] = body["error"]
    return error


async def test_events_pass_unchanged(autojump_clock: MockClock) -> None:
    """Those that nobody knows as well; the record has the answer's counts."""
    script = head(), chunked(ANSWER), LAST_CHUNK
    async with scripted(*script) as (w, _):
        visit = ask(w)
        await over(visit)
        assert visit.body == ANSWER
        assert visit.headers["content-type"].startswith("text/event-stream")
        record = w.record
        assert (record.outcome, record.told) == (Outcome.COMPLETED, True)
        assert (record.finish_reason, record.generation_id) == ("end_turn", "msg_1")
        assert (record.bill.prompt_tokens, record.bill.completion_tokens) == (7, 5)
        w.assert_clean()


def test_messages_are_read_the_same_however_they_are_cut() -> None:
    """Byte by byte the items are the same, and so is what is passed on."""
    options: Any = {"raw": True, "read": MESSAGES.read_events, "whole_events": True}
    data = COMMENT + ANSWER.replace(b"\n", b"\r\n")
    whole = Decoder(**options).feed(data)
    decoder, items = Decoder(**options), list[Item]()
    for byte in data:
        items += decoder.feed(bytes([byte]))
    assert items == whole
    passed = [item.payload for item in whole if isinstance(item, Raw)]
    assert b"\n\n".join(passed) + b"\n\n" == ANSWER
    assert [i for i in whole if isinstance(i, str | Reasoning | Stopped)] == [
        Reasoning("hm"),
        "héllo",
        Stopped("end_turn"),
    ]


@pytest.mark.parametrize(
    "steps",
    [
        (START, OPEN, HELLO),
        (START, OPEN, HELLO, CLOSE, STOP),
        (START, OPEN, HELLO, b"event: x\ndata: no json\n\n"),
        (START, OPEN, HELLO, b"data: [DONE]\n\n"),
        (START, OPEN, HELLO, b"data:  [DONE]\n\n"),
    ],
    ids=["in a block", "before message_stop", "no JSON", "[DONE]", "blank"],
)
async def test_what_lacks_its_end_is_told_as_an_error(
    autojump_clock: MockClock, steps: tuple[bytes, ...]
) -> None:
    """One `error`, the last event; a stop reason alone makes no answer whole."""
    script = head(), *map(chunked, steps), LAST_CHUNK
    async with scripted(*script) as (w, _):
        visit = ask(w)
        await over(visit)
        error = visit.body[visit.body.index(b"event: error") :]
        assert json.loads(error.split(b"data: ")[1])["error"]["type"] == "api_error"
        assert visit.body.count(b"event: error") == 1
        assert b"[DONE]" not in visit.body  # SDKs take it for the end of a whole answer
        assert w.record.outcome is Outcome.UPSTREAM_FAILED
        w.assert_clean()


async def test_an_error_in_the_stream_is_told_in_our_words(
    autojump_clock: MockClock,
) -> None:
    """Upstream's may be about our key, or quote the prompt."""
    said = {"type": "authentication_error", "message": "key sk-1 is wrong"}
    script = head(), chunked(START + event("error", error=said)), LAST_CHUNK
    async with scripted(*script) as (w, _):
        visit = ask(w)
        await over(visit)
        assert b"sk-1" not in visit.body
        assert visit.body.count(b"event: error") == 1
        assert visit.body.startswith(START)
        assert w.record.outcome is Outcome.UPSTREAM_FAILED


OTHERS = [
    b'{"object":"error","message":"no such thing","code":400}',
    b'{"type":"error","message":"no such thing","code":400}',
    b'{"detail":"no such thing","code":400}',
    b'{"error":{"message":"no such thing","type":"invalid_request_error"}}',
]


@pytest.mark.parametrize("said", [*OTHERS, b"no such thing"])
async def test_another_apis_error_is_told_once(
    autojump_clock: MockClock, said: bytes
) -> None:
    """A proxy answers in words of its own: the reason is told, in ours."""
    named = b"event: error\ndata: " + said + b"\n\n"
    plain = b"data: " + said + b"\n\n"
    for error in (named, plain) if said in OTHERS else (named,):
        async with scripted(head(), chunked(START + error), HOLD) as (w, _):
            visit = ask(w)
            assert await over(visit) < 1
            (told,) = visit.body.split(b"event: error\n")[1:]
            assert b"no such thing" in told
            assert (b"invalid_request_error" in told) is (said in OTHERS)
            assert w.record.outcome is Outcome.UPSTREAM_FAILED


@pytest.mark.parametrize("path", [PATH, "/v1/responses"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("said", OTHERS)
async def test_another_apis_error_under_200_is_a_refusal(
    autojump_clock: MockClock, path: str, said: bytes, *, stream: bool
) -> None:
    """Where events or a document were expected."""
    script = head("application/json"), chunked(said), LAST_CHUNK
    async with scripted(*script) as (w, _):
        visit = ask(w, path=path, stream=stream, input="hello")
        await over(visit)
        assert visit.status == 400
        assert "no such thing" in visit.json()["error"]["message"]


async def test_a_field_of_another_shape_does_not_hide_the_rest(
    autojump_clock: MockClock,
) -> None:
    """Text is counted as text, work as progress, and the end is the end."""
    text = {"type": "text_delta", "text": "hi", "thinking": None}
    odd = [
        START,
        event("content_block_delta", index=0, delta=text),
        event("content_block_delta", index=0, delta=["new"]),
        event("content_block_delta", index=0, delta="half a pair: \ud83d"),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage=[]),
        event("message_stop", message="x", usage=[]),
    ]
    async with scripted(head(), chunked(b"".join(odd)), LAST_CHUNK) as (w, _):
        visit = ask(w)
        await over(visit)
        assert visit.body == b"".join(odd)
        assert w.record.outcome is Outcome.COMPLETED
        assert w.record.finish_reason == "end_turn"


async def test_life_is_shown_while_upstream_lives(autojump_clock: MockClock) -> None:
    """A ping, with an empty piece of the open block; upstream's own count for nothing.

    When upstream has said nothing for too long there is silence, then the idle budget.
    """
    budgets = dataclasses.replace(BUDGETS, heartbeat_s=4, idle_s=14, alive_s=9)
    script = head(), chunked(START + OPEN + HELLO), 3.0, chunked(PING), HOLD
    async with scripted(*script, budgets=budgets) as (w, _):
        visit = ask(w)
        assert await over(visit) == 17
        times = [at for at, _ in visit.arrived]
        assert times == [0, 3, 4, 8, 12, 17]
        empty = {"type": "text_delta", "text": ""}
        piece = event("content_block_delta", index=1, delta=empty)
        (_, life) = visit.arrived[2]
        assert life.replace(b" ", b"") == (PING + piece).replace(b" ", b"")
        assert b"event: error" in visit.arrived[-1][1]
        assert w.record.outcome is Outcome.STREAM_IDLE_TIMEOUT


async def test_no_block_is_open_before_the_first(autojump_clock: MockClock) -> None:
    """Then a ping alone is the sign of life, and the head goes out with it."""
    async with scripted(head(), chunked(COMMENT), 5.0, HOLD) as (w, _):
        visit = ask(w)
        await over(visit)
        assert visit.arrived[0][1].replace(b" ", b"") == PING.replace(b" ", b"")


async def test_a_document_passes_unchanged(autojump_clock: MockClock) -> None:
    """`stream: false`; what is no message is an error under 502."""
    usage = {"input_tokens": 3, "output_tokens": 2}
    content = [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "y"}]
    message = {"id": "msg_1", "type": "message", "content": content, "usage": usage}
    body = json.dumps({**message, "stop_reason": "max_tokens"}).encode()
    script = head("application/json"), chunked(body), LAST_CHUNK
    async with scripted(*script) as (w, _):
        visit = ask(w, stream=False)
        await over(visit)
        assert (visit.status, visit.body) == (200, body)
        assert w.record.finish_reason == "max_tokens"
        assert w.record.bill.completion_tokens == 2
    script = head("application/json"), chunked(b'{"type":"odd"}'), LAST_CHUNK
    async with scripted(*script) as (w, _):
        visit = ask(w, stream=False)
        await over(visit)
        assert (visit.status, error_of(visit)["type"]) == (502, "api_error")


async def test_a_document_instead_of_events_is_an_answer(
    autojump_clock: MockClock,
) -> None:
    """A client that asked for events gets the events of such a message."""
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "a\ud83d"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
        {"type": "redacted_thinking", "data": "?"},
    ]
    usage = {"input_tokens": 3, "output_tokens": 2}
    message = {"id": "msg_1", "type": "message", "content": content, "usage": usage}
    body = json.dumps({**message, "stop_reason": "tool_use"}).encode()
    script = head("application/json"), chunked(body), LAST_CHUNK
    async with scripted(*script) as (w, _):
        visit = ask(w)
        await over(visit)
        said = [json.loads(data_of(e)) for e in visit.body.split(b"\n\n")[:-1]]
        kinds = [one["type"].removeprefix("content_block_") for one in said]
        pieces = [*("start", "delta", "stop") * 2, "start", "stop"]
        blocks = ["start", "delta", "delta", "stop", *pieces]
        assert kinds == ["message_start", *blocks, "message_delta", "message_stop"]
        deltas = [one["delta"] for one in said if one["type"].endswith("block_delta")]
        assert [list(one.values())[1] for one in deltas] == [
            "hm",
            "s",
            "a\ud83d",
            '{"x":1}',
        ]
        assert said[0]["message"]["content"] == []
        assert said[-2]["delta"]["stop_reason"] == "tool_use"
        record = w.record
        assert (record.outcome, record.finish_reason) == (Outcome.COMPLETED, "tool_use")
        assert (record.bill.prompt_tokens, record.bill.completion_tokens) == (3, 2)
        w.assert_clean()


async def test_tokens_are_counted_for_nothing(autojump_clock: MockClock) -> None:
    """The count is upstream's; the bill of it is none."""
    body = b'{"input_tokens": 2095}'
    script = head("application/json"), chunked(body), LAST_CHUNK
    async with scripted(*script) as (w, _):
        visit = ask(w, path=f"{PATH}/count_tokens")
        await over(visit)
        assert (visit.status, visit.body) == (200, body)
        assert w.record.bill.cost_usd == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [[]]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content"),
        ({"system": [5]}, "system[0]"),
        ({"stream": "yes"}, "stream"),
        ({"models": ["a", ""]}, "models[1]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role"),
        ({"system": 5}, "system"),
        ({"model": ""}, "model"),
    ],
)
async def test_a_bad_body_is_refused_by_field(
    autojump_clock: MockClock, fields: dict[str, Any], field: str
) -> None:
    """400 in Anthropic's shape, and upstream is not asked."""
    async with world() as w:
        visit = ask(w, **fields)
        await over(visit)
        error = error_of(visit)
        assert (visit.status, error["type"]) == (400, "invalid_request_error")
        assert error["message"].startswith(f"{field}: ")
        assert visit.headers["x-should-retry"] == "false"


async def test_long_texts_are_refused_wherever_they_stand(
    autojump_clock: MockClock,
) -> None:
    """What tools answered counts as well."""
    block = {"type": "tool_result", "content": [{"type": "text", "text": "x" * 50}]}
    async with world(env={"MAX_MESSAGES_LENGTH": "80"}) as w:
        long = ask(w, messages=[{"role": "user", "content": [block]}], system="y" * 31)
        await over(long)
        assert (long.status, error_of(long)["type"]) == (413, "request_too_large")


async def test_a_key_is_taken_from_either_field(autojump_clock: MockClock) -> None:
    """`x-api-key` or Bearer; two that differ are refused, as is none."""
    key = "a-long-key-of-a-client"
    script = head(), chunked(ANSWER), LAST_CHUNK
    bearer = {"authorization": f"Bearer {key}"}
    async with scripted(*script, env={"API_KEYS": key}) as (w, _):
        for headers, status in (
            ({"x-api-key": key}, 200),
            (bearer, 200),
            ({"x-api-key": key, **bearer}, 200),
            ({"x-api-key": "another-key", **bearer}, 400),
            ({"x-api-key": "another-key"}, 401),
            ({}, 401),
        ):
            visit = ask(w, headers=headers)
            await over(visit)
            assert visit.status == status, headers
            if status == 401:
                assert error_of(visit)["type"] == "authentication_error"


async def test_headers_on_the_list_reach_upstream(autojump_clock: MockClock) -> None:
    """Anthropic's and OpenRouter's; no other, and no key."""
    async with scripted(head(), chunked(ANSWER), LAST_CHUNK) as (w, _):
        opened = w.services.upstream
        assert opened is not None
        sent: dict[bytes, bytes] = {}
        real = opened.open

        async def note(call: Any, *rest: Any) -> Any:
            sent.update(call.headers)
            return await real(call, *rest)

        opened.open = note  # type: ignore[method-assign, assignment]
        headers = {
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "a,b",
            "x-session-id": "s",
            "x-title": "t\x01",
            "x-other": "no",
            "x-api-key": "no",
        }
        await over(ask(w, headers=headers))
        assert sent == {
            b"anthropic-version": b"2023-06-01",
            b"anthropic-beta": b"a,b",
            b"x-session-id": b"s",
        }


@pytest.mark.parametrize("apart", [False, True], ids=["one block", "alone"])
async def test_who_has_the_last_event_may_leave(
    autojump_clock: MockClock, *, apart: bool
) -> None:
    """A client that leaves at `message_stop` has been told, and has no permit.

    What upstream still says is not waited for.
    """
    rest = ANSWER.removesuffix(END)
    blocks = (chunked(rest), chunked(END)) if apart else (chunked(ANSWER),)
    async with scripted(head(), *blocks, HOLD) as (w, _):
        visit = ask(w)
        while END not in visit.body:
            await visit.news.wait()
        assert w.permits.held == 0
        visit.leave()
        await over(visit)
        assert visit.body == ANSWER
        assert visit.arrived[-1][0] < BUDGETS.done_grace_s
        assert (w.record.outcome, w.record.told) == (Outcome.COMPLETED, True)
        w.assert_clean()
