"""What a caller does while upstream works: when it is done, and how it may end."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.upstream.transport.servers import OK, client_of, forever, serving
from trio_ai_stream.upstream.transport import UpstreamTransport


async def test_it_is_done_before_every_wait_of_a_request() -> None:
    """Before the dial; with the request on its way; on the second way as well.

    A kept connection that takes no byte is given up before anything was waited for.
    """
    streams: list[trio.SocketStream] = []
    order: list[str] = []

    async def connect(host: str, port: int, tls: bool) -> trio.SocketStream:
        order.append("dialled")
        streams.append(await trio.open_tcp_stream(host, port))
        return streams[-1]

    async def on_sent() -> None:
        order.append("on_sent")
        await trio.lowlevel.checkpoint()

    with trio.fail_after(30):
        async with (
            serving(forever(OK)) as server,
            httpx.AsyncClient(transport=UpstreamTransport(connect=connect)) as client,
        ):
            more = {"on_sent": on_sent}
            await client.post(server.url, content=b"x", extensions=more)
            await client.post(server.url, content=b"x", extensions=more)
            streams[0].socket.shutdown(trio.socket.SHUT_WR)  # the next write fails
            await client.post(server.url, content=b"x", extensions=more)
    assert order == ["on_sent", "dialled", "on_sent", "on_sent", "dialled"]


class Passes(trio.abc.Instrument):
    """Counts the passes of the scheduler."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        """Count one."""
        self.count += 1


async def test_an_answer_that_came_meanwhile_needs_no_wait() -> None:
    """It is read in the step that comes back: no epoll call, no scheduler pass."""
    streams: list[trio.SocketStream] = []
    passes = Passes()

    async def connect(host: str, port: int, tls: bool) -> trio.SocketStream:
        streams.append(await trio.open_tcp_stream(host, port))
        return streams[-1]

    async def on_sent() -> None:
        await trio.lowlevel.wait_readable(streams[0].socket)
        passes.count = 0

    with trio.fail_after(30):
        transport = UpstreamTransport(connect=connect)
        async with (
            serving(forever(OK)) as server,
            httpx.AsyncClient(transport=transport) as client,
        ):
            await client.post(server.url, content=b"x")
            trio.lowlevel.add_instrument(passes)
            request = client.build_request(
                "POST", server.url, content=b"x", extensions={"on_sent": on_sent}
            )
            response = await transport.handle_async_request(request)
            assert passes.count == 0
            trio.lowlevel.remove_instrument(passes)
            assert await response.aread() == b"ok"
    assert len(streams) == 1


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "failed"])
async def test_its_end_ends_the_request_that_is_on_its_way(cancelled: bool) -> None:
    """The connection is closed: an answer that nobody awaits is on its way to it."""

    async def on_sent() -> None:
        if cancelled:
            await trio.sleep_forever()
        raise LookupError

    with trio.fail_after(30):
        async with serving(forever(OK)) as server, client_of() as (client, transport):
            await client.post(server.url, content=b"x")
            with trio.move_on_after(0.05 if cancelled else 20) as scope:
                with pytest.raises(LookupError):
                    await client.post(
                        server.url, content=b"x", extensions={"on_sent": on_sent}
                    )
            assert scope.cancelled_caught is cancelled
            assert transport.statistics().live == transport.statistics().idle == 0
            await server.wait_open(0)
            assert (await client.post(server.url, content=b"x")).text == "ok"
