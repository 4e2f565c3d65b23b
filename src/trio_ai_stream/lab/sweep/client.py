"""One client as the server sees it: an ASGI scope, `receive` and `send`.

It stands where Hypercorn stands: a `send` is a checkpoint and waits while the client
does not read; after the client has gone, `send` does nothing, silently; `receive` gives
the request's body and later the disconnect.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import trio

from trio_ai_stream.wire.exchange import EXTENSION, Exchange

Message = dict[str, Any]


class Client:
    """One request; `run` is its ASGI call."""

    def __init__(
        self,
        name: str,
        path: str,
        body: dict[str, object] | None = None,
        *,
        method: str = "POST",
        read_every_s: float = 0.0,
        pieces: int = 1,
        tick: Callable[[], int] = lambda: 0,
    ) -> None:
        self.name = name
        self.exchange = Exchange()
        self.scope = trio.CancelScope()
        self.status: int | None = None
        self.body = b""
        self.writes: list[tuple[int, bytes]] = []  # (tick, data) that went out
        self.gone_noticed: int | None = None  # tick at which the server was told
        self.finished = False
        self.error: Exception | None = None
        self._path = path
        self._method = method
        self._read_every_s = read_every_s
        self._tick = tick
        self._gone = trio.Event()
        payload = b"" if body is None else json.dumps(body).encode()
        size = max(1, -(-len(payload) // pieces))
        parts = [payload[i : i + size] for i in range(0, len(payload), size)] or [b""]
        self._incoming = [
            {"type": "http.request", "body": part, "more_body": part is not parts[-1]}
            for part in parts
        ]

    @property
    def gone(self) -> bool:
        """Whether the client has left, noticed or not."""
        return self._gone.is_set()

    def disconnect(self) -> None:
        """Leave: the server's next `receive` says so."""
        self._gone.set()

    async def run(self, app: Callable[..., Any]) -> None:
        """Make the ASGI call; what escapes it stands in `error`."""
        try:
            with self.scope:
                await app(self._asgi_scope(), self.receive, self.send)
        except Exception as exc:
            self.error = exc
        finally:
            self.finished = True

    async def receive(self) -> Message:
        """Give the body, a piece a call, then the disconnect."""
        await trio.lowlevel.checkpoint()
        if self._incoming:
            return self._incoming.pop(0)
        await self._gone.wait()
        if self.gone_noticed is None:
            self.gone_noticed = self._tick()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take one message; wait as long as the client takes to read it."""
        await trio.lowlevel.checkpoint()
        if self._read_every_s and not self.gone:
            with trio.move_on_after(self._read_every_s):
                await self._gone.wait()
        if self.gone:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            self.writes.append((self._tick(), message.get("body", b"")))

    def events(self) -> list[dict[str, Any]]:
        """Return the SSE events that reached the client, as JSON."""
        lines = self.body.split(b"\n")
        data = [line.removeprefix(b"data: ") for line in lines if line[:6] == b"data: "]
        return [json.loads(line) for line in data if line.startswith(b"{")]

    def _asgi_scope(self) -> dict[str, Any]:
        headers = [(b"host", b"sweep.test"), (b"x-request-id", self.name.encode())]
        if self._method == "POST":
            headers.append((b"content-type", b"application/json"))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self._method,
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("192.0.2.1", 40000),
            "server": ("192.0.2.2", 80),
            "extensions": {EXTENSION: self.exchange},
        }
