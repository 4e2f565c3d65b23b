"""A model that thinks for two minutes, and one that is dead, with the default settings.

Many clients give up after a time without an event; the shortest time known is 20 s.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.completions import over
from tests.support.scripted import COMMENT, HOLD, LAST_CHUNK, chunked, head, scripted
from trio_ai_stream.app_factory import budgets_of
from trio_ai_stream.settings.loading import load_settings
from trio_ai_stream.wire.record import Outcome

THINKING_S, NEEDS_S = 120, 20
DEFAULTS = budgets_of(load_settings({}, None))
TURNS = [{"role": "user", "content": "hi"}]


def event(kind: str, **fields: Any) -> bytes:
    """One event with a name."""
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One chunk of a completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"


USAGE = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "content": []}
# For each API: the path, the request, how the answer begins, a first thought, the rest,
# and what tells its clients that the stream lives, before the first event and after it.
# All are events where clients may wait for those.
APIS = {
    "chat": (
        "/chat",
        {"prompt": "hi", "include_reasoning": True},
        b"",
        chunk({"reasoning": "hm"}),
        chunk({"content": "yes"}, "stop") + b"data: [DONE]\n\n",
        (b": heartbeat\n\n", b": heartbeat\n\n"),
    ),
    "completions": (
        "/v1/chat/completions",
        {"messages": TURNS, "stream": True},
        b"",
        chunk({"reasoning": "hm"}),
        chunk({"content": "yes"}, "stop") + b"data: [DONE]\n\n",
        (b'"delta":{},', b'"delta":{},'),
    ),
    "messages": (
        "/v1/messages",
        {"messages": TURNS, "stream": True, "max_tokens": 9},
        event("message_start", message={**MESSAGE, "usage": USAGE}),
        event(
            "content_block_start",
            index=0,
            content_block={"type": "thinking", "thinking": ""},
        )
        + event(
            "content_block_delta",
            index=0,
            delta={"type": "thinking_delta", "thinking": "hm"},
        ),
        event("content_block_stop", index=0)
        + event("message_delta", delta={"stop_reason": "end_turn"}, usage=USAGE)
        + event("message_stop"),
        (b"event: ping\n", b"event: content_block_delta\n"),
    ),
    "responses": (
        "/v1/responses",
        {"input": "hi", "stream": True},
        event("response.created", sequence_number=0, response={"id": "r"}),
        event("response.reasoning_text.delta", sequence_number=1, delta="hm"),
        event(
            "response.completed",
            sequence_number=2,
            response={"id": "r", "status": "completed", "usage": USAGE},
        ),
        (b"event: keepalive\n", b"event: keepalive\n"),
    ),
}
every_api = pytest.mark.parametrize("api", APIS)
SETTINGS = {"HEARTBEAT_EVENTS": "1"}


@every_api
@pytest.mark.parametrize("after", ["nothing", "begin", "thought"])
async def test_two_minutes_of_thinking_are_survived(
    autojump_clock: MockClock, api: str, after: str
) -> None:
    """While upstream comments, no client waits for 20 s without what it needs."""
    path, body, begin, thought, rest, (before, within) = APIS[api]
    said = {"nothing": b"", "begin": begin, "thought": begin + thought}[after]
    script = [chunked(said)] if said else []
    comments = [step for _ in range(THINKING_S // 10) for step in (10.0, COMMENT)]
    script += [chunked(s) if isinstance(s, bytes) else s for s in comments]  # type: ignore[misc]
    left = (begin + thought + rest).removeprefix(said)
    script += [chunked(left), LAST_CHUNK]
    async with scripted(head(), *script, budgets=DEFAULTS, env=SETTINGS) as (w, _):
        visit = w.visit({"model": "m", **body}, path)
        assert await over(visit) == THINKING_S
        opened = said and (api != "messages" or after == "thought")
        needed = within if opened else before
        times = [at for at, data in visit.arrived if needed in data]
        gaps = [b - a for a, b in zip([0, *times], [*times, THINKING_S], strict=True)]
        assert max(gaps) < NEEDS_S
        assert w.record.outcome is Outcome.COMPLETED


@every_api
@pytest.mark.parametrize("after", ["nothing", "thought"])
async def test_a_dead_upstream_is_not_hidden(
    autojump_clock: MockClock, api: str, after: str
) -> None:
    """Signs of life end long before the budget, which ends the stream with an error."""
    path, body, begin, thought, _, (before, within) = APIS[api]
    said = [chunked(begin + thought)] if after == "thought" else []
    budget_s, outcome, needed = {
        "nothing": (DEFAULTS.first_token_s, Outcome.FIRST_TOKEN_TIMEOUT, before),
        "thought": (DEFAULTS.idle_s, Outcome.STREAM_IDLE_TIMEOUT, within),
    }[after]
    async with scripted(head(), *said, HOLD, budgets=DEFAULTS, env=SETTINGS) as (w, _):
        visit = w.visit({"model": "m", **body}, path)
        assert await over(visit) == budget_s
        times = [at for at, data in visit.arrived if needed in data]
        assert times[-1] == DEFAULTS.alive_s
        assert w.record.outcome is outcome
        assert b"error" in visit.arrived[-1][1]
