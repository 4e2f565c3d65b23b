"""One client as the server sees it: an ASGI scope, `receive` and `send`.

It stands where the server stands (server/http_stream.py): a `send` takes a
message whole and then waits while the client does not read; after the client has gone,
it drops it, silently; the exchange tells of a disconnect at once. `receive` gives the
request's body and later the disconnect, for servers that are told by nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import trio

from trio_ai_stream.server.http_stream import EXTENSION, Exchange

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
        origin: str = "",
        key: str = "",
        read_every_s: float = 0.0,
        pieces: int = 1,
        piece_every_s: float = 0.0,
        reports_disconnect: bool = True,
        tick: Callable[[], int] = lambda: 0,
    ) -> None:
        self.name = name
        self.exchange = Exchange(reports_disconnect=reports_disconnect)
        self.scope = trio.CancelScope()
        self.status: int | None = None
        self.body = b""
        self.gone_noticed: int | None = None  # tick at which the server was told
        self.late_writes = 0  # sends after that, which go nowhere
        self.response_ended = False
        self.overlaps = 0  # sends that began while another was waiting
        self._sending = 0
        self.error: Exception | None = None
        self._path = path
        self._method = method
        self._origin = origin
        self._key = key
        self._read_every_s = read_every_s
        self._piece_every_s = piece_every_s
        self._tick = tick
        self._gone = trio.Event()
        self._finished = trio.Event()
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
        """Leave: the exchange says so now, or the server's next `receive` does."""
        self._gone.set()
        if self.exchange.reports_disconnect:
            self._notice()
            self._incoming.clear()
            self.exchange.disconnect()

    async def run(self, app: Callable[..., Any]) -> None:
        """Make the ASGI call; what escapes it stands in `error`."""
        try:
            with self.scope:
                await app(self._asgi_scope(), self.receive, self.send)
        except Exception as exc:
            self.error = exc
        finally:
            self._finished.set()

    async def wait_finished(self) -> None:
        """Wait for the end of the ASGI call."""
        await self._finished.wait()

    async def receive(self) -> Message:
        """Give the body, a piece a call, then the disconnect."""
        await trio.lowlevel.checkpoint()
        if self._incoming and self._piece_every_s:
            with trio.move_on_after(self._piece_every_s):
                await self._gone.wait()
        if self._incoming:
            return self._incoming.pop(0)
        await self._gone.wait()
        self._notice()
        return {"type": "http.disconnect"}

    def _notice(self) -> None:
        if self.gone_noticed is None:
            self.gone_noticed = self._tick()

    async def send(self, message: Message) -> None:
        """Take one message whole, then wait as long as the client takes to read it.

        Cancellation: the message is taken all the same, as the server has it.
        """
        if not self.gone:
            self._take(message)
        else:
            self.late_writes += self.gone_noticed is not None
        self.overlaps += self._sending > 0
        self._sending += 1
        try:
            await trio.lowlevel.checkpoint()
            if self._read_every_s and not self.gone:
                with trio.move_on_after(self._read_every_s):
                    await self._gone.wait()
        finally:
            self._sending -= 1

    def _take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.status is not None:
                raise RuntimeError("the response has a second head")
            self.status = message["status"]
            return
        if self.status is None or self.response_ended:
            raise RuntimeError("a piece of a body outside its response")
        self.body += message.get("body", b"")
        self.response_ended = not message.get("more_body", False)

    def _asgi_scope(self) -> dict[str, Any]:
        headers = [(b"host", b"localhost"), (b"x-request-id", self.name.encode())]
        if self._method == "POST":
            headers.append((b"content-type", b"application/json"))
        if self._key:
            headers.append((b"authorization", f"Bearer {self._key}".encode()))
        if self._origin:
            headers.append((b"origin", self._origin.encode()))
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
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 80),
            "extensions": {EXTENSION: self.exchange},
        }
