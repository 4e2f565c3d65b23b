"""A client that has been told its stream's end may ask for the next one at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.completions import over
from tests.support.world import Visit, world

PROMPT = {"prompt": "x"}
MESSAGES = {"messages": [{"role": "user", "content": "x"}], "stream": True}


@pytest.mark.parametrize(
    ("path", "body"), [("/chat", PROMPT), ("/v1/chat/completions", MESSAGES)]
)
@pytest.mark.parametrize("model", ["echo", "silent", "default?status=400"])
async def test_no_permit_is_held_when_the_last_bytes_leave(
    path: str, body: dict[str, Any], model: str, autojump_clock: MockClock
) -> None:
    """Its next request may be here before this call has ended."""
    data = json.dumps({**body, "model": f"simulator/{model}"}).encode()
    held: list[int] = []
    async with world(permits=1) as w:

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            held.append(w.permits.held)
            await trio.lowlevel.checkpoint()

        await w.app(Visit(w.app, path, data).scope, receive, send)
        *_, last = held
        assert last == 0
        assert len(w.records) == 1
        w.assert_clean()


async def test_who_fails_at_an_ending_keeps_it_from_nobody_else(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has the record, the entry is gone, and the others are told as well."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("from a callback")

    told: list[object] = []
    async with world() as w:
        monkeypatch.setattr(w.services.metrics, "stream_ended", fail)
        monkeypatch.setattr(w.services.subscribers, "stream_ended", told.append)
        visit = w.visit({**PROMPT, "model": "simulator/echo"}, "/chat")
        await over(visit)
        assert b'"type":"done"' in visit.body
        assert len(w.records) == len(told) == 1
        assert not len(w.services.registry)
