"""What a caller holds while there is no answer: the connection's end, and no longer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest
import trio
import trio.testing
from trio.testing import MemoryReceiveStream, MemorySendStream

from tests.upstream.transport.servers import (
    OK,
    Peer,
    both,
    client_of,
    forever,
    serving,
)
from trio_ai_stream.upstream.transport import UpstreamTransport

URL = "http://host/"


class Holder:
    """Keeps what it is given, and everything that it was given."""

    def __init__(self) -> None:
        self.abort: Callable[[], None] | None = None
        self.given: list[bool] = []

    def on_abortable(self, abort: Callable[[], None] | None) -> None:
        """The extension."""
        self.abort = abort
        self.given.append(abort is not None)


async def mute(peer: Peer) -> None:
    """Take a request and say nothing."""
    await peer.request()
    await peer.more()


@both
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_an_abort_ends_the_wait_for_the_head(tls: bool, large: bool) -> None:
    """The socket is closed in the call; the request fails, and nothing is left."""
    holder = Holder()
    content = b"x" * (300_000 if large else 1)
    with trio.fail_after(30):
        async with serving(mute, tls=tls) as server, client_of() as (client, transport):

            async def ask() -> None:
                with pytest.raises(httpx.ReadError):
                    await client.post(
                        server.url,
                        content=content,
                        extensions={"on_abortable": holder.on_abortable},
                    )

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await server.wait_open(1)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert holder.abort is not None
                holder.abort()
                assert transport.statistics().live == 0
                await server.wait_open(0)
    assert holder.given == [True, False]


@pytest.mark.parametrize("passes", range(6))
async def test_a_closed_connection_is_never_handed_on(passes: int) -> None:
    """Closed so many scheduler passes after the head arrived: no answer, or too late.

    Found by the sweep: the head was read, the task that had sent the request was not
    yet over, and the connection that was closed just then went to the idle ones.
    """
    for _ in range(10):  # Trio's order within a pass is random
        holder = Holder()
        incoming = MemoryReceiveStream()

        async def connect(
            _host: str,
            _port: int,
            _tls: bool,
            incoming: MemoryReceiveStream = incoming,
        ) -> trio.StapledStream[MemorySendStream, MemoryReceiveStream]:
            await trio.lowlevel.checkpoint()
            return trio.StapledStream(MemorySendStream(), incoming)

        transport = UpstreamTransport(connect=connect)
        answers: list[str] = []
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ask, transport, holder, answers)
                await trio.testing.wait_all_tasks_blocked()
                incoming.put_data(OK)
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                aborted = holder.abort is not None
                if holder.abort is not None:
                    holder.abort()
        assert answers == ([] if aborted else ["ok"])
        assert transport.statistics().idle == len(answers)
        assert transport.statistics().live == 0


async def _ask(
    transport: UpstreamTransport, holder: Holder, answers: list[str]
) -> None:
    client = httpx.AsyncClient(transport=transport)  # closing it would close the idle
    with suppress(httpx.ReadError):
        answer = await client.post(
            URL, content=b"x", extensions={"on_abortable": holder.on_abortable}
        )
        answers.append(answer.text)


async def test_a_connection_with_an_answer_is_let_go() -> None:
    """Once the head is there the connection is the body's, or the next request's."""
    holder = Holder()
    with trio.fail_after(30):
        async with serving(forever(OK)) as server, client_of() as (client, _):
            for _ in range(2):
                answer = await client.post(
                    server.url,
                    content=b"x",
                    extensions={"on_abortable": holder.on_abortable},
                )
                assert answer.text == "ok"
                assert holder.abort is None
    assert holder.given == [True, False, True, False]
