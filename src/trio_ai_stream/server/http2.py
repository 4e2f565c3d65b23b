"""HTTP/2 on one connection, each stream on its own.

There is no priority tree (RFC 9113 5.3 deprecates priorities, and a flood of them fills
it), no server push, no WebSocket and no sending task. A defect of one stream ends that
stream; what a client may cause at no cost to itself has a budget.

The application's task sends its own frames, as far as the client's flow control allows,
and then waits: so what a stream with a closed window holds is the one message being
sent, and nothing more. A send that is cancelled while it waits leaves the rest queued,
in front of the next.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from math import inf
from typing import Final

import h2.events
import trio
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from trio_ai_stream.server.connection import Connection, Phase
from trio_ai_stream.server.http1_parser import BadRequestError, Headers
from trio_ai_stream.server.http2_head import (
    CountedFrames,
    RequestRest,
    StreamError,
    check_trailers,
    expects_continue,
    make_connection,
    own_settings,
    read_head,
)
from trio_ai_stream.server.http_stream import HTTPStream
from trio_ai_stream.server.limits import Budget

log: Final = logging.getLogger("trio_ai_stream.server")

# Smaller pieces of a body, and smaller credit, cost the server more than the client:
# they count as control frames. Credit for a heartbeat (13 bytes) comes seldom.
_SMALL_DATA_BYTES: Final = 256
_SMALL_CREDIT_BYTES: Final = 16


class HTTP2Stream(HTTPStream):
    """A request over HTTP/2, with its flow control."""

    def __init__(self, http2: HTTP2, stream_id: int) -> None:
        super().__init__(http2.owner, http2)
        self.stream_id = stream_id
        self.inbox.on_taken = partial(http2.acknowledge, self)
        # Body bytes that the client has not been given credit for yet.
        self.unacknowledged_bytes = 0
        # What of the announced length has not come yet; None: none was announced.
        self.missing_bytes: int | None = None
        # What a cancelled send has left; goes out in front of the next.
        self.rest = bytearray()
        # Set when the client may have opened a window.
        self.window: trio.Event | None = None


class HTTP2:
    """One connection's HTTP/2."""

    def __init__(self, owner: Connection) -> None:
        """Make one, and send our SETTINGS."""
        self.owner = owner
        self.config = owner.config
        self.limits = limits = owner.limits
        self.connection = make_connection(limits)
        self._frames = CountedFrames(server=True)
        self.connection.incoming_buffer = self._frames
        self.open: dict[int, HTTP2Stream] = {}
        # Of streams whose request goes on behind its response.
        self.discarding: dict[int, RequestRest] = {}
        self.goaway_sent = False
        self._resets = Budget(limits.h2_resets, limits.h2_budget_s)
        self._control = Budget(limits.h2_control_frames, limits.h2_budget_s)
        self.connection.initiate_connection()
        # The client has not read our SETTINGS yet: a stream too many is refused, only
        # far too many end the connection.
        self.connection.local_settings = own_settings(4 * limits.h2_streams)
        self.flush()
        owner.await_within(Phase.IDLE, limits.keep_alive_s)

    def __str__(self) -> str:
        """The connection's state and its streams."""
        state = self.connection.state_machine.state.name
        return f"HTTP/2, {state}, {len(self.open)} streams"

    async def received(self, data: bytes) -> None:
        """Take bytes from the client; waits while replies to them are unread.

        An exception other than a protocol error is a defect of h2 or hpack that the
        bytes have found; the connection contains it.
        """
        self._frames.count = 0
        try:
            events = self.connection.receive_data(data)
        except ProtocolError:
            self.owner.intervened("bad_request")
            self.owner.end(lingering=True)
            self.flush()
            return
        except Exception:
            self.go_away(ErrorCodes.INTERNAL_ERROR)
            self.owner.end(lingering=True)
            raise
        useful = 0
        for event in events:
            if not self.owner.ending:
                useful += self._contain(event)
        self.count(self._control, self._frames.count - useful)
        self.flush()
        self.update_deadline()
        if self.owner.transport.pending:
            await self.owner.unless_hung_up(self.owner.transport.flushed)

    def _contain(self, h2_event: h2.events.Event) -> bool:
        """Act on one event; a failure ends its stream, not the neighbours'."""
        try:
            return self._act(h2_event)
        except Exception as exc:
            stream_id = getattr(h2_event, "stream_id", None)
            if not stream_id:
                raise
            self.owner.intervened("connection_error")
            text = "contained a failure of stream %d, %s"
            event = {"event": "stream_error"}
            log.exception(text, stream_id, self.owner, exc_info=exc, extra=event)
            self.forget(stream_id)
            self.reset(stream_id, ErrorCodes.INTERNAL_ERROR)
            return False

    def _act(self, event: h2.events.Event) -> bool:
        """Act on one event; False if its frame was of no use to any request."""
        match event:
            case h2.events.RequestReceived():
                return self._begin(event)
            case h2.events.DataReceived():
                self._body(event)
                large = len(event.data or b"") >= _SMALL_DATA_BYTES
                return large or event.stream_ended is not None
            case h2.events.TrailersReceived():
                try:
                    check_trailers(event.headers, self.limits)
                except BadRequestError as exc:
                    self._malformed(event.stream_id, exc.status)
            case h2.events.StreamEnded():
                self._request_ended(event.stream_id or 0)
            case h2.events.StreamReset():
                self.count(self._resets)
                self.forget(event.stream_id)
            case StreamError():
                self.owner.intervened("bad_request")
                self.count(self._resets)
                self.forget(event.stream_id)
                self.reset(event.stream_id, event.code)
            case h2.events.WindowUpdated():
                awaited = self.window_opened(event.stream_id)
                return awaited and (event.delta or 0) >= _SMALL_CREDIT_BYTES
            case h2.events.RemoteSettingsChanged():
                if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                    self.window_opened(0)
            case h2.events.ConnectionTerminated():
                if event.error_code == ErrorCodes.NO_ERROR:
                    # No more streams; those that live go on (RFC 9113 6.8).
                    self.go_away(ErrorCodes.NO_ERROR)
                else:
                    self.owner.lost()
        return False

    def count(self, budget: Budget, count: int = 1) -> None:
        """Count what costs a client nothing; past the budget the connection ends."""
        if count > 0 and not budget.spend(count) and not self.owner.ending:
            self.owner.intervened("flood")
            self.go_away(ErrorCodes.ENHANCE_YOUR_CALM)
            self.owner.lost()
            self.owner.end(lingering=True)

    def _begin(self, event: h2.events.RequestReceived) -> bool:
        stream_id = event.stream_id or 0
        if self.goaway_sent or len(self.open) >= self.limits.h2_streams:
            self.owner.intervened("stream_refused")
            self.count(self._resets)
            self.reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return False
        try:
            head, length = read_head(event, self.config, self.limits)
        except BadRequestError as exc:
            self._refuse(stream_id, exc.status)
            return False
        stream = HTTP2Stream(self, stream_id)
        stream.missing_bytes = length
        self.open[stream_id] = stream
        if event.stream_ended is None and expects_continue(head.headers):
            stream.inbox.on_asked = partial(self._go_on, stream)
        stream.begin(head, "2")
        if self.owner.last_request:
            self.go_away(ErrorCodes.NO_ERROR)
        return True

    def _go_on(self, stream: HTTP2Stream) -> None:
        """Ask for the body, which the application wants."""
        with suppress(ProtocolError):  # the connection has ended
            self.connection.send_headers(stream.stream_id, [(b":status", b"100")])
            self.flush()

    def _refuse(self, stream_id: int, status: int) -> None:
        """Answer a bad head with `status`; the connection and its streams go on.

        A malformed one is reset besides (RFC 9113 8.1.1), behind the answer.
        """
        self.owner.intervened("bad_request")
        self.count(self._resets)
        self._answer(stream_id, status)
        if status == HTTPStatus.BAD_REQUEST:
            self.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)

    def _answer(self, stream_id: int, status: int) -> None:
        """Answer with `status` alone; what still comes of the request is dropped."""
        headers = [(b":status", b"%d" % status), (b"content-length", b"0")]
        headers += self.config.response_headers("h2")
        with suppress(ProtocolError):  # reset by what came right behind it
            self.connection.send_headers(stream_id, headers, end_stream=True)
            self.discarding[stream_id] = RequestRest()

    def _malformed(self, stream_id: int, status: int) -> None:
        """End a stream whose request is malformed behind its head."""
        stream = self.open.get(stream_id)
        if stream is None and stream_id not in self.discarding:
            return
        self.forget(stream_id)
        if stream is None or stream.begun:
            self.owner.intervened("bad_request")
            self.count(self._resets)
            self.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
        else:
            self._refuse(stream_id, status)

    def _body(self, event: h2.events.DataReceived) -> None:
        stream_id = event.stream_id or 0
        length = event.flow_controlled_length or 0
        stream = self.open.get(stream_id)
        if stream is not None and not stream.closed:
            data = bytes(event.data or b"")
            # Credit comes back as the application reads: at most a window is queued.
            stream.unacknowledged_bytes += length
            if stream.missing_bytes is not None:
                stream.missing_bytes -= len(data)
                if stream.missing_bytes < 0:
                    self._malformed(stream_id, HTTPStatus.BAD_REQUEST)
                    return
            stream.body_came(data)
            self.acknowledge(stream)
            return
        self.connection.acknowledge_received_data(length, stream_id)
        rest = self.discarding.setdefault(stream_id, RequestRest())
        rest.dropped_bytes += length
        if rest.missing_bytes is not None:
            rest.missing_bytes -= len(event.data or b"")
        if rest.missing_bytes is not None and rest.missing_bytes < 0:
            self._malformed(stream_id, HTTPStatus.BAD_REQUEST)
        elif rest.dropped_bytes > self.limits.discard_bytes:
            self.reset(stream_id, ErrorCodes.NO_ERROR)

    def _request_ended(self, stream_id: int) -> None:
        stream = self.open.get(stream_id)
        request = self.discarding.get(stream_id) if stream is None else stream
        if request is not None and request.missing_bytes:
            self._malformed(stream_id, HTTPStatus.BAD_REQUEST)
            return
        self.discarding.pop(stream_id, None)
        if stream is not None:
            stream.request_ended = True
            stream.body_deadline = inf
            stream.inbox.put_nowait(b"", more_body=False)

    def update_deadline(self) -> None:
        """Set the connection's deadline by what its streams wait for."""
        if self.owner.ending:
            return
        if self.open:
            due = min(stream.body_deadline for stream in self.open.values())
            phase = Phase.RESPONSE if due == inf else Phase.BODY
            self.owner.await_until(phase, due)
        elif self.goaway_sent:
            self.owner.end(lingering=True)
        elif self.owner.phase is not Phase.IDLE:
            self.owner.await_within(Phase.IDLE, self.limits.keep_alive_s)

    def timed_out(self) -> None:
        """End the streams whose request should have arrived by now; others go on."""
        now = trio.current_time()
        for stream_id, stream in list(self.open.items()):
            if stream.body_deadline > now:
                continue
            self.forget(stream_id)
            if stream.begun:
                self.reset(stream_id, ErrorCodes.CANCEL)
            else:
                self._refuse(stream_id, 408)
        self.flush()
        self.update_deadline()

    def refuse_late(self) -> None:
        """Answer requests whose end has not come: there is no time for them."""
        for stream_id, stream in list(self.open.items()):
            if not (stream.request_ended or stream.begun):
                self.forget(stream_id)
                self._answer(stream_id, HTTPStatus.SERVICE_UNAVAILABLE)
        self.flush()
        self.update_deadline()

    def flush(self) -> None:
        """Hand what h2 has queued to the transport."""
        if data := self.connection.data_to_send():
            self.owner.transport.write(data)

    def go_away(self, code: ErrorCodes) -> None:
        """Send GOAWAY; unlike h2's own way live streams can go on after it."""
        if self.goaway_sent:
            return
        self.goaway_sent = True
        self.flush()
        last = self.connection.highest_inbound_stream_id
        frame = GoAwayFrame(last_stream_id=last, error_code=code)
        self.owner.transport.write(frame.serialize())

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
            self.acknowledge(stream)
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

    def acknowledge(self, stream: HTTP2Stream) -> None:
        """Give the client credit for the body bytes that the application took."""
        taken = stream.unacknowledged_bytes - stream.inbox.queued_bytes
        if taken > 0:
            stream.unacknowledged_bytes -= taken
            self.connection.acknowledge_received_data(taken, stream.stream_id)
            self.flush()

    async def send_head(
        self, stream: HTTP2Stream, status: int, headers: Headers, *, flush: bool
    ) -> None:
        """Write the head; it may wait for what follows if not `flush`."""
        if stream.stream_id not in self.open:
            return
        fields = [(b":status", b"%d" % status), *headers]
        fields += self.config.response_headers("h2")
        has_body = stream.method != "HEAD"
        try:
            self.connection.send_headers(stream.stream_id, fields)
            stream.response_begins(partial(self._write, stream) if has_body else None)
        except ProtocolError:
            self.forget(stream.stream_id)
        if flush:  # h2 keeps the frame until then
            self.flush()
            await self.owner.transport.drain()

    async def send_body(self, stream: HTTP2Stream, data: bytes) -> None:
        """Write a part of the body, as the client gives credit for it."""
        if stream.stream_id not in self.open:
            return
        await self._write(stream, data)
        self.flush()
        await self.owner.transport.drain()

    async def send_end(self, stream: HTTP2Stream, data: bytes) -> None:
        """Write the last part of the body, if there is one, and the response's end.

        Both are one frame: a client that has had the last event may reset the stream,
        and it has had the end.
        """
        if stream.stream_id not in self.open:
            return
        await self._write(stream, data, ends=True)
        self.flush()
        await stream.end_written()

    async def _write(
        self, stream: HTTP2Stream, data: bytes, *, ends: bool = False
    ) -> None:
        """Send `data` after what an earlier send has left; wait for credit.

        If the response `ends` with it, the last piece is left for the caller to flush.

        Cancellation: what is not yet sent is kept, up to `h2_buffered_bytes`.
        """
        view = memoryview(bytes(stream.rest) + data if stream.rest else data)
        stream.rest.clear()
        connection, stream_id = self.connection, stream.stream_id
        deadline = trio.current_time() + self.limits.write_stall_s
        try:
            if ends and not view:
                connection.end_stream(stream_id)
            while view and not stream.closed:
                size = min(
                    connection.local_flow_control_window(stream_id),
                    connection.max_outbound_frame_size,
                )
                if size <= 0:
                    await self._credit(stream, deadline)
                    continue
                last = ends and size >= len(view)
                connection.send_data(stream_id, view[:size], end_stream=last)
                if size < len(view) and size < _SMALL_DATA_BYTES:
                    self.count(self._control)  # credit given by the byte
                view = view[size:]
                if last:
                    return
                self.flush()
                await self.owner.transport.drain()
                deadline = trio.current_time() + self.limits.write_stall_s
        except ProtocolError:  # the stream or the connection has ended meanwhile
            self.forget(stream_id)
        finally:
            if view and not stream.closed:
                self._keep(stream, view)

    async def _credit(self, stream: HTTP2Stream, deadline: float) -> None:
        """Wait until the client may have opened a window, at most until `deadline`."""
        self.flush()  # credit is for bodies: a head that waits for one does not need it
        stream.window = trio.Event()
        with trio.move_on_at(deadline) as scope:
            await stream.window.wait()
        if scope.cancelled_caught:
            self.owner.intervened("write_stall")
            self.forget(stream.stream_id, stalled=True)
            self.reset(stream.stream_id, ErrorCodes.CANCEL)

    def _keep(self, stream: HTTP2Stream, view: memoryview) -> None:
        if len(view) > self.limits.h2_buffered_bytes:
            self.forget(stream.stream_id)
            self.reset(stream.stream_id, ErrorCodes.CANCEL)
        else:
            stream.rest += view

    def response_over(self, stream: HTTP2Stream) -> None:
        """Take a stream off the books; one that was left unfinished is reset."""
        if stream.stream_id not in self.open:
            return
        self.forget(stream.stream_id)
        if not stream.finished:
            # Without a failure it was given up: its client takes nothing.
            failed = ErrorCodes.INTERNAL_ERROR if stream.failed else ErrorCodes.CANCEL
            self.reset(stream.stream_id, failed)
        elif not stream.request_ended:
            self.discarding[stream.stream_id] = RequestRest(stream.missing_bytes)
        self.update_deadline()
        self.flush()

    def close(self) -> None:
        """Let go of the streams: they hold this protocol as well."""
        self.open.clear()
        self.connection.release()
