"""The upstream that the settings ask for: its address, its headers, its transport."""

from __future__ import annotations

import base64
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import trio
from loguru import logger

from trio_ai_stream.settings import Settings, SettingsError
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport import (
    Connect,
    Origin,
    Proxy,
    UpstreamTransport,
    client_tls,
)

CLOSE_S = 1.0


def open_upstream(
    settings: Settings,
    nursery: trio.Nursery,
    *,
    base_url: str,
    egress: Egress,
    connect: Connect | None = None,
    on_status: Callable[[int], None] | None = None,
) -> OpenRouter:
    """Make the upstream of one process; it is closed with `nursery`.

    `connect` stands for the network, if it is given; `on_status` is told the status of
    each answer.
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
    proxy = egress.proxy
    if proxy is not None:
        logger.info(
            "upstream is reached through a proxy",
            event="proxied_upstream",
            proxy=f"{proxy.origin.host}:{proxy.origin.port}",
        )
    transport = UpstreamTransport(connect=connect, proxy=proxy, ssl_context=egress.tls)
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


@dataclass(frozen=True, slots=True)
class Egress:
    """The way to upstream: what the environment says besides the settings."""

    proxy: Proxy | None = None
    # The default is for plain HTTP: it trusts nobody, and nobody is asked.
    tls: ssl.SSLContext = field(
        default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )


def egress_of(settings: Settings) -> Egress:
    """Return the way to upstream; the simulator, in this process, needs none.

    Blocks for some tens of milliseconds where TLS is spoken, to read the certificates.

    :raises SettingsError: the environment's proxy, or its certificates, cannot be used.
    """
    if settings.upstream_kind == "simulator":
        return Egress()
    base_url = settings.OPENROUTER_BASE_URL
    try:
        proxy = proxy_for(base_url)
        secure = base_url.startswith("https://")
        secure = secure or (proxy is not None and proxy.origin.tls)
        return Egress(proxy, client_tls()) if secure else Egress(proxy)
    except ValueError as exc:
        raise SettingsError([str(exc)]) from exc


def proxy_for(base_url: str) -> Proxy | None:
    """Return the proxy that the environment names for this URL, NO_PROXY heeded.

    :raises ValueError: when it is no HTTP proxy; what came may hold a password.
    """
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies_environment()
    # It may name a host with its port, or without; an IPv6 one has no brackets there.
    for host in (parts.hostname or "", parts.netloc.rpartition("@")[2]):
        if urllib.request.proxy_bypass(host, proxies):
            return None
    kind = parts.scheme if proxies.get(parts.scheme) else "all"
    named, name = proxies.get(kind), f"{kind.upper()}_PROXY"
    if not named:
        return None
    advice = "NO_PROXY takes it out of the way"
    try:
        url = urlsplit(named if "://" in named else f"http://{named}")
        got = f"{url.scheme}://"
    except ValueError:
        url, got = urlsplit(""), "something else"
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError(
            f"{name}: expected a proxy's URL with http:// or https:// and a host, got"
            f" {got}; {advice}"
        )
    try:
        port = url.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(
            f"{name}: expected a proxy's port of 1 to 65535, got another; {advice}"
        )
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
