"""What the management listener answers: `/metrics`, `/health` and `/ready`.

It needs no key: who may connect is decided by the address that METRICS_PORT names,
which is loopback unless it names another. A plain ASGI application: neither rate limit,
nor keys, nor request records stand before a probe. On loopback the `Host` must name
loopback, as on the first port: a page from elsewhere may try DNS rebinding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from trio_ai_stream.http.health import health, readiness
from trio_ai_stream.http.keys import is_loopback, names_loopback
from trio_ai_stream.http.services import Services

Answer = tuple[int, str, bytes]
_JSON: Final = "application/json"


def management_app(services: Services) -> Callable[..., Any]:
    """Return the ASGI application of the management listener."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        status, content_type, body = _answer(services, scope)
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        await send({"type": "http.response.body", "body": body})

    return app


def _answer(services: Services, scope: Any) -> Answer:
    headers = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    if is_loopback(scope["server"][0]) and not names_loopback(host):
        return 403, "text/plain", b"expected a Host that names loopback\n"
    if scope["method"] not in {"GET", "HEAD"}:
        return 405, "text/plain", b"expected GET\n"
    if scope["path"] == "/metrics":
        accept = headers.get(b"accept", b"").decode("latin-1")
        return 200, *services.metrics.render(accept)
    if scope["path"] == "/health":
        return 200, _JSON, msgspec.json.encode(health(services))
    if scope["path"] == "/ready":
        document = readiness(services)
        status = 200 if document.status == "ready" else 503
        return status, _JSON, msgspec.json.encode(document)
    return 404, "text/plain", b"expected /metrics, /health or /ready\n"
