"""Upstreams that are reached otherwise, in memory as well.

Behind a proxy each connection begins with a CONNECT. One may refuse a request before
it has read it. And an upstream of another kind
may give nothing that closes a connection before it is answered: then its answer may
arrive after the stream has ended.
"""

from __future__ import annotations

from typing import Any, Final

import trio

from tests.sweep.scenario import HOST
from trio_ai_stream.stream.protocols import (
    OnAbortable,
    OnSent,
    UpstreamRequest,
    UpstreamResponse,
)
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport import Origin, Proxy

PROXY: Final = Proxy(Origin(False, HOST, 3128))


OPENED: Final = b"HTTP/1.1 200 Connected\r\n\r\n"
REFUSED: Final = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


def use_proxy(upstream: OpenRouter) -> None:
    """Let the next connections go through a proxy, as its environment would have it."""
    upstream._transport._dialer._proxy = PROXY


async def answer_connect(stream: trio.abc.Stream, answer: bytes) -> bool:
    """Answer CONNECT, or say nothing; tell whether the connection leads on."""
    head = b""
    try:
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:
                break
            head += data
        else:
            assert head.startswith(b"CONNECT ")
            if not answer:
                await stream.receive_some()
            await stream.send_all(answer)
            if answer == OPENED:
                return True
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    await trio.aclose_forcefully(stream)
    return False


async def refuse_early(stream: trio.abc.Stream) -> None:
    """Answer 413 when the first bytes of a request have come, and read no more."""
    body = b'{"error":{"code":413,"message":"too large"}}'
    head = b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\n"
    try:
        if await stream.receive_some():
            await stream.send_all(head + b"Content-Length: %d\r\n\r\n" % len(body))
            await trio.sleep(0.2)
            await stream.send_all(body)
            await trio.sleep(3)  # longer than the budget of the first token
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        with trio.move_on_after(0):
            await stream.aclose()


class Unheld:
    """An upstream that gives nothing to abort until its answer is there."""

    def __init__(self, upstream: OpenRouter) -> None:
        self.inner = upstream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def open(
        self, call: UpstreamRequest, on_sent: OnSent, _on_abortable: OnAbortable
    ) -> UpstreamResponse:
        """Open an answer, as the other does."""
        return await self.inner.open(call, on_sent, lambda _abort: None)
