"""Chat requests over HTTP/2: one connection, any number of streams on it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from cancel_lab.clients.acts import Act
from cancel_lab.clients.chat_stream import ChatRequest, ChatStream
from cancel_lab.clients.connection import Connection, ConnectionEndedError
from cancel_lab.clients.sse import SINK_BYTES

FRAME_HEAD = 9  # bytes
GOAWAY = 7  # frame type


class HTTP2Connection:
    """The connection; only one task at a time may read, for all streams together."""

    def __init__(self, connection: Connection, *, scheme: str = "http") -> None:
        """Take a connection on which nothing was sent yet."""
        self.connection = connection
        self.scheme = scheme
        self.reading = True
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.streams: dict[int, HTTP2Stream] = {}
        self._opened = False
        self._buffer = b""

    async def open(
        self, request: ChatRequest, *, sink: bytearray | None = None
    ) -> HTTP2Stream:
        """Return a stream for one request; nothing of it is sent before ``start``."""
        if not self._opened:
            self._opened = True
            self.h2.initiate_connection()
            await self.flush()
        return HTTP2Stream(self, request, sink)

    async def flush(self) -> int:
        """Send what hyper-h2 has to say and return when."""
        return await self.connection.send(self.h2.data_to_send())

    async def read(self) -> None:
        """Read once and hand what came to its streams."""
        try:
            data = await self.connection.receive()
        except ConnectionEndedError as exc:
            self._end_all(str(exc))
            return
        if not data:
            self._end_all("closed")
            return
        now = time.monotonic_ns()
        try:
            for frame in self._frames(data):
                for event in self.h2.receive_data(frame):
                    self._dispatch(event, now)
        except h2.exceptions.ProtocolError as exc:
            self._end_all(f"protocol error: {exc}")
        if pending := self.h2.data_to_send():
            try:
                await self.connection.send(pending)
            except ConnectionEndedError as exc:
                self._end_all(str(exc))

    def _frames(self, data: bytes) -> Iterator[bytes]:
        """Yield whole frames (RFC 9113, section 4.1: 24 bits of length, 9 of head).

        hyper-h2 takes nothing more after a GOAWAY. The RFC (section 6.8) lets streams
        up to its last id finish, and a server that drains relies on it, so the
        connection is reopened for them, between two frames.
        """
        self._buffer += data
        while len(self._buffer) >= FRAME_HEAD:
            length = FRAME_HEAD + int.from_bytes(self._buffer[:3])
            if len(self._buffer) < length:
                return
            frame, self._buffer = self._buffer[:length], self._buffer[length:]
            yield frame
            if frame[3] == GOAWAY and self.unfinished:
                machine = self.h2.state_machine
                machine.state = h2.connection.ConnectionState.CLIENT_OPEN

    @property
    def unfinished(self) -> bool:
        """Whether any stream is still open."""
        return any(not stream.seen.over for stream in self.streams.values())

    def _dispatch(self, event: h2.events.Event, now: int) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self._end_all(f"GOAWAY {event.error_code}", above=event.last_stream_id or 0)
            return
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
        if stream is None:
            return
        match event:
            case h2.events.ResponseReceived():
                stream.answered(event.headers or [])
            case h2.events.DataReceived():
                stream.received(event.data or b"", now)
                if self.reading and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(
                        event.flow_controlled_length, stream.identifier
                    )
            case h2.events.StreamEnded():
                stream.end(cut=None)
            case h2.events.StreamReset():
                stream.end(cut=f"RST_STREAM {event.error_code}")

    def _end_all(self, cut: str, *, above: int = 0) -> None:
        for identifier, stream in self.streams.items():
            if identifier > above and not stream.seen.over:
                stream.end(cut=cut)


class HTTP2Stream(ChatStream):
    """One request on an HTTP/2 connection, and what has been seen of its answer."""

    def __init__(
        self,
        carrier: HTTP2Connection,
        request: ChatRequest,
        sink: bytearray | None = None,
    ) -> None:
        """Made by ``HTTP2Connection.open``; ``sink`` as for ``HTTP1Stream``."""
        super().__init__(carrier.connection, request)
        self._sink = sink
        self.carrier = carrier
        self.identifier = 0

    async def start(self) -> int:
        """Send the request and return when that began."""
        carrier, request = self.carrier, self._request
        self.identifier = carrier.h2.get_next_available_stream_id()
        carrier.streams[self.identifier] = self
        headers = [
            (":method", request.method),
            (":scheme", carrier.scheme),
            (":authority", request.authority),
            (":path", request.path),
            *((name.lower(), value) for name, value in request.headers.items()),
        ]
        carrier.h2.send_headers(self.identifier, headers, end_stream=not request.body)
        if request.body:
            carrier.h2.send_data(self.identifier, request.body, end_stream=True)
        return await carrier.flush()

    async def read(self) -> None:
        """Read once, for all streams of the connection."""
        await self.carrier.read()

    async def idle(self) -> None:
        """Do what a client that stopped reading does: take frames, give no window."""
        self.carrier.reading = False
        await self.read_to_end()

    def stop_reading(self) -> int:
        """Read on, but give the peer no window back."""
        self.carrier.reading = False
        return super().stop_reading()

    async def say(self, act: Act) -> int:
        """Reset the stream, or end the connection with a GOAWAY; return when."""
        if act is Act.RST_STREAM:
            self.carrier.h2.reset_stream(self.identifier, h2.errors.ErrorCodes.CANCEL)
            self.end(cut="reset by this client")
            return await self.carrier.flush()
        self.carrier.h2.close_connection()
        told = await self.carrier.flush()
        self.connection.fin()
        return told

    def answered(
        self, headers: list[tuple[str, str]] | list[tuple[bytes, bytes]]
    ) -> None:
        """Note the response head."""
        for name, value in headers:
            self.seen.headers[str(name)] = str(value)
        self.seen.status = int(self.seen.headers[":status"])

    def received(self, data: bytes, now: int) -> None:
        """Note bytes of the body."""
        if self._sink is not None:
            self._sink += data
            if len(self._sink) > SINK_BYTES:
                self.end(cut=f"expected at most {SINK_BYTES} bytes, got more")
        else:
            self._parser.feed(data, now)
