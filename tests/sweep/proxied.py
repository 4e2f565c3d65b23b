"""Upstream behind a proxy: each connection begins with a CONNECT, in memory as well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport import Origin, Proxy

PROXY: Final = Proxy(Origin(False, "proxy.test", 3128))


def use_proxy(upstream: OpenRouter) -> None:
    """Let the next connections go through a proxy, as its environment would have it."""
    upstream._transport._dialer._proxy = PROXY


async def serve_through_proxy(
    serve: Callable[[trio.abc.Stream], Awaitable[None]], stream: trio.abc.Stream
) -> None:
    """Answer CONNECT, and let `serve` have the connection then."""
    head = b""
    try:
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:
                await stream.aclose()
                return
            head += data
        assert head.startswith(b"CONNECT ")
        await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.aclose()
        return
    await serve(stream)
