"""Upstream as it is behind a proxy: nobody is told what closes its connections.

There the transport is httpx's own (`upstream/proxy.py`), so a request without an answer
can only be cancelled, and its answer may arrive after the stream has ended.
"""

from __future__ import annotations

from collections.abc import Callable

from trio_ai_stream.stream.protocols import (
    OnAbortable,
    OnSent,
    UpstreamRequest,
    UpstreamResponse,
)
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport.circuit import CircuitState


class Proxied:
    """Another upstream, without its `hold`."""

    def __init__(self, upstream: OpenRouter) -> None:
        self._upstream = upstream
        self.kind = upstream.kind

    @property
    def rejected_key(self) -> bool:
        """As the other."""
        return self._upstream.rejected_key

    @property
    def circuit(self) -> CircuitState:
        """As the other."""
        return self._upstream.circuit

    async def open(
        self, call: UpstreamRequest, on_sent: OnSent, on_abortable: OnAbortable
    ) -> UpstreamResponse:
        """Open an answer; give nothing to hold until it is there."""
        return await self._upstream.open(call, on_sent, _ignore_abort)


def _ignore_abort(_abort: Callable[[], None] | None) -> None:
    """Take what closes the connection, and forget it."""
