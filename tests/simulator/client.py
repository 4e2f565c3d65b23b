"""A small HTTP client over any Trio stream, by h11: not the simulator's parser."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import h11
import trio
import trio.testing

from trio_ai_stream.simulator.simulator import Address, Simulator

CHAT = "/api/v1/chat/completions"


def body_of(model: str, prompt: str = "hello", **fields: Any) -> bytes:
    """Return a chat request's body; streamed unless `stream=False` is given."""
    messages = [{"role": "user", "content": prompt}]
    return json.dumps(
        {"model": model, "stream": True, "messages": messages, **fields}
    ).encode()


class Response(NamedTuple):
    """One whole response, and whether its body came to a proper end."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    interim: list[int]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def data(self) -> list[bytes]:
        """The data of each event, by the rules of server-sent events."""
        lines = self.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return [
            line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")
        ]

    @property
    def events(self) -> list[Any]:
        """Each event's JSON, without the end mark."""
        return [json.loads(data) for data in self.data if data != b"[DONE]"]

    @property
    def content(self) -> str:
        """All content deltas put together."""
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events
            for choice in event.get("choices", ())
        )


class Client:
    """One connection to a simulator."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def send(
        self,
        path: str = CHAT,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        method: str = "POST",
    ) -> None:
        """Send one whole request."""
        head = {"host": "test", "content-length": str(len(body)), **(headers or {})}
        request = h11.Request(method=method, target=path, headers=list(head.items()))
        parts = [
            self.http.send(event)
            for event in (request, h11.Data(data=body), h11.EndOfMessage())
        ]
        await self.stream.send_all(b"".join(part for part in parts if part))

    async def next_event(self) -> Any:
        """Return h11's next event of the response."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(bytes(await self.stream.receive_some(65536)))
        return event

    async def read(self) -> Response:
        """Read one whole response; a body cut short is returned as not complete."""
        interim: list[int] = []
        while isinstance(head := await self.next_event(), h11.InformationalResponse):
            interim.append(head.status_code)
        if not isinstance(head, h11.Response):
            msg = f"expected a response, got {head!r}"
            raise EOFError(msg)  # noqa: TRY004  the connection ended
        body, complete = bytearray(), False
        try:
            while isinstance(event := await self.next_event(), h11.Data):
                body += event.data
            complete = isinstance(event, h11.EndOfMessage)
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            complete = False
        if complete and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        headers = {name.decode(): value.decode() for name, value in head.headers}
        return Response(head.status_code, headers, bytes(body), complete, interim)

    async def ask(
        self, path: str = CHAT, body: bytes = b"", **options: Any
    ) -> Response:
        """Send a request and read its response."""
        await self.send(path, body, **options)
        return await self.read()

    async def get(self, path: str, **options: Any) -> Response:
        """Send a GET below /api/v1 and read its response."""
        return await self.ask("/api/v1" + path, method="GET", **options)


def in_memory(nursery: trio.Nursery, simulator: Simulator) -> Client:
    """Connect a client to a simulator without a socket."""
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(simulator.handle, theirs)
    return Client(ours)


async def ask_memory(
    model: str, simulator: Simulator | None = None, **fields: Any
) -> Response:
    """Ask one chat over a memory stream and return the whole response."""
    async with trio.open_nursery() as nursery:
        client = in_memory(nursery, simulator or Simulator())
        response = await client.ask(body=body_of(model, **fields))
        nursery.cancel_scope.cancel(reason="answered")
    return response


class Running:
    """A simulator that serves, and a way to ask it."""

    def __init__(self, simulator: Simulator, address: Address) -> None:
        self.simulator = simulator
        self.address = address

    async def connect(self) -> Client:
        """Open a connection."""
        stream = await trio.open_tcp_stream(self.address.host, self.address.port)
        return Client(stream)

    async def ask(self, model: str, **fields: Any) -> Response:
        """Ask one chat on a connection of its own."""
        client = await self.connect()
        async with client.stream:
            return await client.ask(body=body_of(model, **fields))
