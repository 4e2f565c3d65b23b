"""What upstream said and what the client got, compared byte for byte."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.completions import COMPLETIONS, ask, over
from tests.support.world import BASE_URL, world
from trio_ai_stream.simulator.simulator import Simulator
from trio_ai_stream.upstream.transport import UpstreamTransport

MESSAGES = [{"role": "user", "content": "hello"}]
STREAMED = [
    "fast",
    "default",
    "reasoning",
    "tools",
    "refusal",
    "thinking",
    "fragments",
    "crlf",
    "odd-fields",
    "merged-usage",
    "giant",
    "close-delimited",
    "trailing",
]
WHOLE = ["fast", "reasoning", "tools", "refusal", "giant", "close-delimited"]


async def upstreams_own_answer(body: dict[str, Any]) -> bytes:
    """Ask another simulator, which has answered nobody yet, without the server."""
    async with trio.open_nursery() as nursery:

        async def connect(_host: str, _port: int, _tls: bool) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(Simulator().handle, theirs)
            return ours

        url = f"{BASE_URL}/chat/completions"
        async with httpx.AsyncClient(
            transport=UpstreamTransport(connect=connect)
        ) as client:
            answer = await client.post(url, json=body, timeout=None)
        nursery.cancel_scope.cancel(reason="answered")
    return answer.content


def data_of(body: bytes) -> list[bytes]:
    """The payloads up to `[DONE]`, whatever ends a line and whatever stands between."""
    lines = body.replace(b"\r\n", b"\n").split(b"\n")
    found = [line[5:].strip(b" ") for line in lines if line.startswith(b"data:")]
    return found[: found.index(b"[DONE]") + 1]


@pytest.mark.parametrize("preset", STREAMED)
async def test_chunks_are_upstreams_bytes(
    preset: str, autojump_clock: MockClock
) -> None:
    """However upstream cut, framed and spaced them, the payloads are the same bytes."""
    body = {"model": f"simulator/{preset}", "messages": MESSAGES, "stream": True}
    theirs = await upstreams_own_answer(body)
    async with world() as w:
        visit = w.visit(body, COMPLETIONS)
        await over(visit)
        assert data_of(visit.body) == data_of(theirs)
        w.assert_clean()


@pytest.mark.parametrize("preset", WHOLE)
async def test_documents_are_upstreams_bytes(
    preset: str, autojump_clock: MockClock
) -> None:
    """One document is the same bytes, too."""
    body = {"model": f"simulator/{preset}", "messages": MESSAGES}
    theirs = await upstreams_own_answer(body)
    async with world() as w:
        visit = w.visit(body, COMPLETIONS)
        await over(visit)
        assert visit.body == theirs
        assert json.loads(theirs)["choices"]
        w.assert_clean()


async def test_the_echo_comes_back_unharmed(autojump_clock: MockClock) -> None:
    """Text of any script, terminal codes included, survives both directions."""
    text = "\x1b[1mnaïve\x1b[0m \0"
    text += "\u2028 \u0085 \U0001f916 'quotes' \"double\" back\\slash\ttab\n\nend"
    async with world() as w:
        messages = [{"role": "user", "content": text}]
        visit = ask(w, "simulator/echo", messages=messages, stream=False)
        await over(visit)
        assert visit.json()["choices"][0]["message"]["content"] == text
