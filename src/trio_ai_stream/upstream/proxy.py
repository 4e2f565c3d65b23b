"""Upstream through a proxy that the environment names: httpx's own transport.

Our transport knows no proxies. httpx's does, but its pool may leak a slot when a
request is cancelled while it connects (encode/httpcore#1093); so the pool is unlimited
here, and the operator is warned. Each body is closed by a task of its own, because
`abort` cannot wait.
"""

from __future__ import annotations

import urllib.request
from contextlib import suppress
from types import AsyncGeneratorType
from typing import Final
from urllib.parse import urlsplit

import httpx
import trio

CLOSE_S: Final = 1.0


def proxy_for(base_url: str) -> str | None:
    """Return the proxy that the environment names for this URL, NO_PROXY heeded."""
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies_environment()
    if urllib.request.proxy_bypass(parts.hostname or "", proxies):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


class ProxiedTransport(httpx.AsyncBaseTransport):
    """httpx's transport behind the seam of ours; live as long as `nursery`."""

    def __init__(self, proxy: str, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._inner = httpx.AsyncHTTPTransport(
            proxy=proxy,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the response carries a body that can be aborted."""
        on_sent = request.extensions.pop("on_sent", None)
        request.extensions.pop(
            "on_abortable", None
        )  # httpx's connections cannot be told apart
        if on_sent is not None:
            await on_sent()
        response = await self._inner.handle_async_request(request)
        body = _Body(response, self._nursery)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=response.stream,
            extensions={**response.extensions, "body": body},
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


class _Body:
    """One response's body, block by block."""

    def __init__(self, response: httpx.Response, nursery: trio.Nursery) -> None:
        self._response = response
        self._nursery = nursery
        assert isinstance(response.stream, httpx.AsyncByteStream)
        blocks = aiter(response.stream)
        assert isinstance(blocks, AsyncGeneratorType)
        self._blocks: AsyncGeneratorType[bytes, None] = blocks
        self._over = False

    @property
    def ended(self) -> bool:
        """Whether the connection has been given back."""
        return self._over

    async def receive(self) -> bytes:
        """Return the next block, `b""` at the end."""
        async for block in self._blocks:
            return block
        return b""

    async def drain(self) -> bool:
        """Read to the end and give the connection back."""
        while await self.receive():
            pass
        self._over = True
        await self._response.aclose()
        return True

    def abort(self) -> None:
        """Close the socket at once; the pool hears of it a moment later."""
        if self._over:
            return
        self._over = True
        stream = self._response.extensions.get("network_stream")
        if stream is not None:
            stream.get_extra_info("socket").close()
        self._nursery.start_soon(self._close)

    async def _close(self) -> None:
        with trio.move_on_after(CLOSE_S, shield=True):
            # httpx reads through a chain of generators; a last read of the closed
            # socket unwinds them all, which `aclose` does not. Whoever is reading does
            # the same by itself.
            with suppress(httpx.HTTPError, trio.ClosedResourceError):
                if not self._blocks.ag_running:
                    await self.receive()
            with suppress(httpx.HTTPError, trio.ClosedResourceError):
                await self._response.aclose()
