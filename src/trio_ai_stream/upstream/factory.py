"""The upstream that the settings ask for: its address, its headers, its transport."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import trio
from loguru import logger

from trio_ai_stream.settings import Settings
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.proxy import ProxiedTransport, proxy_for
from trio_ai_stream.upstream.transport import UpstreamTransport
from trio_ai_stream.upstream.transport.dial import Connect

CLOSE_S = 1.0


def open_upstream(
    settings: Settings,
    nursery: trio.Nursery,
    *,
    base_url: str,
    connect: Connect | None = None,
    on_status: Callable[[int], None] | None = None,
) -> OpenRouter:
    """Make the upstream of one process; it is closed with `nursery`.

    `connect` stands for the network, if it is given; `on_status` is told the status of
    each answer. Blocks for some tens of
    milliseconds, to read the trusted certificates.
    """
    headers = {"User-Agent": "trio-ai-stream"}
    key = settings.OPENROUTER_API_KEY
    # The simulator is ours, on this machine: it is not told the key.
    if key is not None and settings.upstream_kind == "openrouter":
        headers["Authorization"] = f"Bearer {key.get_secret_value()}"
    if settings.OPENROUTER_REFERER:
        headers["HTTP-Referer"] = settings.OPENROUTER_REFERER
    if settings.OPENROUTER_TITLE:
        headers["X-OpenRouter-Title"] = settings.OPENROUTER_TITLE
    upstream = OpenRouter(
        _transport(base_url, nursery, connect),
        base_url=base_url,
        kind=settings.upstream_kind,
        headers=headers,
        connect_s=settings.CONNECT_TIMEOUT_SECS,
        on_status=on_status,
        buffer_bytes=settings.UPSTREAM_BUFFER_BYTES,
    )
    nursery.start_soon(_close_with_nursery, upstream, name="upstream")
    return upstream


def _transport(
    base_url: str, nursery: trio.Nursery, connect: Connect | None
) -> httpx.AsyncBaseTransport:
    proxy = proxy_for(base_url) if connect is None else None
    if proxy is None:
        transport = UpstreamTransport(connect=connect)
        nursery.start_soon(transport.reap_idle, name="idle upstream connections")
        return transport
    logger.warning(
        "a proxy is configured: httpx's own transport is used, slower and not measured;"
        " NO_PROXY takes it out of the way",
        event="proxied_upstream",
    )
    return ProxiedTransport(proxy, nursery)


async def _close_with_nursery(upstream: OpenRouter) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.move_on_after(CLOSE_S, shield=True):
            await upstream.aclose()
