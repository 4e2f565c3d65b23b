"""The upstream that the settings ask for: its address, its headers, its transport."""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import trio
from loguru import logger

from trio_ai_stream.settings import Settings
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport import Connect, Origin, Proxy, UpstreamTransport

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
        headers["Authorization"] = f"Bearer {key.value}"
    if settings.OPENROUTER_REFERER:
        headers["HTTP-Referer"] = settings.OPENROUTER_REFERER
    if settings.OPENROUTER_TITLE:
        headers["X-OpenRouter-Title"] = settings.OPENROUTER_TITLE
    proxy = proxy_for(base_url) if connect is None else None
    if proxy is not None:
        logger.info(
            "upstream is reached through a proxy",
            event="proxied_upstream",
            proxy=f"{proxy.origin.host}:{proxy.origin.port}",
        )
    transport = UpstreamTransport(connect=connect, proxy=proxy)
    nursery.start_soon(transport.reap_idle, name="idle upstream connections")
    upstream = OpenRouter(
        transport,
        base_url=base_url,
        kind=settings.upstream_kind,
        headers=headers,
        connect_s=settings.CONNECT_TIMEOUT_SECS,
        on_status=on_status,
        buffer_bytes=settings.UPSTREAM_BUFFER_BYTES,
    )
    nursery.start_soon(_close_with_nursery, upstream, name="upstream")
    return upstream


def proxy_for(base_url: str) -> Proxy | None:
    """Return the proxy that the environment names for this URL, NO_PROXY heeded.

    :raises ValueError: when it is no HTTP proxy.
    """
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies_environment()
    if urllib.request.proxy_bypass(parts.hostname or "", proxies):
        return None
    named = proxies.get(parts.scheme) or proxies.get("all")
    if not named:
        return None
    url = urlsplit(named if "://" in named else f"http://{named}")
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError(
            "the environment's proxy: expected a URL with http:// or https:// and a"
            f" host, got {url.scheme}://; NO_PROXY takes it out of the way"
        )
    try:
        port = url.port
    except ValueError:
        raise ValueError(
            "the environment's proxy: expected a port of 1 to 65535, got another;"
            " NO_PROXY takes it out of the way"
        ) from None
    tls = url.scheme == "https"
    origin = Origin(tls, url.hostname, port or (443 if tls else 80))
    if url.username is None:
        return Proxy(origin)
    login = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return Proxy(origin, f"Basic {base64.b64encode(login.encode()).decode()}")


async def _close_with_nursery(upstream: OpenRouter) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.move_on_after(CLOSE_S, shield=True):
            await upstream.aclose()
