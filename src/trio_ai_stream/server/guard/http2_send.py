"""HTTP/2 on one connection: what is sent, under the client's flow control.

The application's task sends its own frames, as far as the windows allow, and then
waits: so what a stream with a closed window holds is the one message being sent, and
nothing more. A send that is cancelled while it waits leaves the rest queued, in front
of the next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.config import Config
from hypercorn.protocol.events import (
    Body,
    EndBody,
    Event,
    InformationalResponse,
    Response,
    StreamClosed,
    Trailers,
)
from hyperframe.frame import GoAwayFrame

from trio_ai_stream.server.guard.budget import Budget
from trio_ai_stream.server.guard.h2_stream import H2Stream
from trio_ai_stream.server.limits import Limits

if TYPE_CHECKING:
    from trio_ai_stream.server.guard.connection import Connection


# A piece of a body as small as this that the client's credit has cut off.
_SMALL_PIECE_BYTES: Final = 256


class H2Sending(ABC):
    """The sending half of a guarded HTTP/2 connection."""

    owner: Connection
    limits: Limits
    config: Config
    connection: H2Connection
    open: dict[int, H2Stream]
    discarding: dict[int, int]
    goaway_sent: bool
    control: Budget

    def flush(self) -> None:
        """Hand what h2 has queued to the transport."""
        data = self.connection.data_to_send()
        if data:
            self.owner.transport.push(data)

    def go_away(self, code: ErrorCodes) -> None:
        """Send GOAWAY; unlike h2's own way live streams can go on after it."""
        if self.goaway_sent:
            return
        self.goaway_sent = True
        self.flush()
        frame = GoAwayFrame(0)
        frame.last_stream_id = self.connection.highest_inbound_stream_id
        frame.error_code = code
        self.owner.transport.push(frame.serialize())

    def begin_drain(self) -> None:
        """Tell the client at once to open no more streams here."""
        self.go_away(ErrorCodes.NO_ERROR)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """End one stream from our side, as far as it is still open."""
        try:
            self.connection.reset_stream(stream_id, code)
        except ProtocolError:
            return
        self.discarding.pop(stream_id, None)
        self.flush()

    def forget(self, stream_id: int, *, stalled: bool = False) -> None:
        """Take a stream off the books and tell its application."""
        self.discarding.pop(stream_id, None)
        stream = self.open.pop(stream_id, None)
        if stream is not None:
            stream.disconnect(stalled=stalled)
            self.repay(stream)
            stream.rest.clear()
            if stream.window is not None:
                stream.window.set()

    def window_opened(self, stream_id: int | None) -> bool:
        """Wake who waited for credit; False if the credit is for nobody."""
        if stream_id:
            stream = self.open.get(stream_id)
            waiting = [] if stream is None else [stream]
        else:
            waiting = list(self.open.values())
        for stream in waiting:
            if stream.window is not None:
                stream.window.set()
        return bool(waiting)

    def repay(self, stream: H2Stream) -> None:
        """Give the client credit for the body bytes that the application took."""
        taken = stream.owed_bytes - stream.inbox.queued_bytes
        if taken > 0:
            stream.owed_bytes -= taken
            self.connection.acknowledge_received_data(taken, stream.stream_id)
            self.flush()

    async def stream_send(self, event: Event) -> None:
        """Write one part of a response."""
        stream = self.open.get(event.stream_id)
        if stream is None:
            return
        try:
            if isinstance(event, (Response, InformationalResponse)):
                self._send_head(stream, event)
                if stream.more_follows:
                    return  # h2 keeps the frame until the next flush
            elif isinstance(event, Body):
                await self._write(stream, event.data)
            elif isinstance(event, EndBody):
                await self._write(stream, b"")
                self.connection.end_stream(stream.stream_id)
            elif isinstance(event, Trailers):
                await self._write(stream, b"")
                self.connection.send_headers(
                    stream.stream_id, event.headers, end_stream=True
                )
            elif isinstance(event, StreamClosed):
                self._response_over(stream)
        except ProtocolError:
            # The stream or the connection has ended while this was under way.
            self.forget(stream.stream_id)
        self.flush()
        if isinstance(event, EndBody):
            await stream.end_written()
        else:
            await self.owner.transport.breathe()

    def _send_head(
        self, stream: H2Stream, event: Response | InformationalResponse
    ) -> None:
        headers = [(b":status", b"%d" % event.status_code), *event.headers]
        self.connection.send_headers(
            stream.stream_id, headers + self.config.response_headers("h2")
        )
        if isinstance(event, Response):
            has_body = stream.scope["method"] != "HEAD"
            stream.begins(partial(self._write_piece, stream) if has_body else None)

    async def _write_piece(self, stream: H2Stream, data: bytes) -> None:
        """Write a piece of a body, the short way from the application."""
        try:
            await self._write(stream, data)
        except ProtocolError:
            self.forget(stream.stream_id)

    async def _write(self, stream: H2Stream, data: bytes) -> None:
        """Send `data` after what an earlier send has left; wait for credit.

        Cancellation: what is not yet sent is kept, up to `h2_buffered_bytes`.
        """
        view = memoryview(bytes(stream.rest) + data if stream.rest else data)
        stream.rest.clear()
        connection, stream_id = self.connection, stream.stream_id
        deadline = trio.current_time() + self.limits.write_stall_s
        try:
            while view and not stream.closed:
                size = min(
                    connection.local_flow_control_window(stream_id),
                    connection.max_outbound_frame_size,
                )
                if size <= 0:
                    await self._credit(stream, deadline)
                    continue
                connection.send_data(stream_id, view[:size])
                if size < len(view) and size < _SMALL_PIECE_BYTES:
                    self.charge(self.control)  # credit given by the byte
                view = view[size:]
                self.flush()
                await self.owner.transport.breathe()
                deadline = trio.current_time() + self.limits.write_stall_s
        finally:
            if view and not stream.closed:
                self._keep(stream, view)

    async def _credit(self, stream: H2Stream, deadline: float) -> None:
        """Wait until the client may have opened a window, at most until `deadline`."""
        self.flush()  # credit is for bodies: a head that waits for one does not need it
        stream.window = trio.Event()
        with trio.move_on_at(deadline) as scope:
            await stream.window.wait()
        if scope.cancelled_caught:
            self.owner.intervened("write_stall")
            self.forget(stream.stream_id, stalled=True)
            self.reset(stream.stream_id, ErrorCodes.CANCEL)

    def _keep(self, stream: H2Stream, view: memoryview) -> None:
        if len(view) > self.limits.h2_buffered_bytes:
            self.forget(stream.stream_id)
            self.reset(stream.stream_id, ErrorCodes.CANCEL)
        else:
            stream.rest += view

    def _response_over(self, stream: H2Stream) -> None:
        """Take a stream off the books; one that was left unfinished is reset."""
        self.forget(stream.stream_id)
        if not stream.finished:
            self.reset(stream.stream_id, ErrorCodes.INTERNAL_ERROR)
        elif not stream.request_ended:
            self.discarding[stream.stream_id] = 0
        self.settle()

    @abstractmethod
    def charge(self, budget: Budget, count: int = 1) -> None:
        """Count what costs a client nothing; past the budget the connection ends."""

    @abstractmethod
    def settle(self) -> None:
        """Set the connection's deadline by what its streams wait for."""
