"""HTTP/2 on one connection: what arrives, frame by frame, each stream on its own.

What differs from `H2Protocol`: no priority tree (RFC 9113 5.3 deprecates priorities,
and a flood of them fills it), no server push, no WebSocket, no sending task. A defect
of one stream ends that stream; what a client may cause at no cost to itself has a
budget.
"""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Any, Final

import h2.events
import trio
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypercorn.protocol.h2 import H2Protocol

from trio_ai_stream.server.guard import records
from trio_ai_stream.server.guard.budget import Budget
from trio_ai_stream.server.guard.h2_request import (
    announced_length,
    expects_continue,
    judge_trailers,
    read_head,
)
from trio_ai_stream.server.guard.h2_setup import (
    CountedFrames,
    StreamError,
    announcement,
    make_connection,
)
from trio_ai_stream.server.guard.h2_stream import H2Stream
from trio_ai_stream.server.guard.http2_send import H2Sending
from trio_ai_stream.server.guard.phases import Phase

if TYPE_CHECKING:
    from trio_ai_stream.server.guard.connection import Connection

# Smaller pieces of a body, and smaller credit, cost the server more than the client:
# they count as control frames. Credit for a heartbeat (13 bytes) comes seldom.
_SMALL_DATA_BYTES: Final = 256
_SMALL_CREDIT_BYTES: Final = 16


class GuardedH2(H2Sending, H2Protocol):
    """Hypercorn's HTTP/2 protocol, guarded."""

    def __init__(self, owner: Connection) -> None:
        super().__init__(
            owner.app,
            owner.config,
            owner.context,
            owner.task_group,
            owner.state,
            owner.transport.tls,
            owner.client,
            owner.server,
            owner.protocol_send,
        )
        self.owner = owner
        self.limits = limits = owner.limits
        self.connection = make_connection(limits)
        self._frames = CountedFrames(server=True)
        self.connection.incoming_buffer = self._frames
        self.open: dict[int, H2Stream] = {}
        self.discarding: dict[int, int] = {}
        self.goaway_sent = False
        self._resets = Budget(limits.h2_resets, limits.h2_budget_s)
        self.control = Budget(limits.h2_control_frames, limits.h2_budget_s)

    def __str__(self) -> str:
        """The connection's state and its streams."""
        state = self.connection.state_machine.state.name
        return f"HTTP/2, {state}, {len(self.open)} streams"

    async def initiate(self, headers: Any = None, settings: Any = None) -> None:
        """Send our SETTINGS."""
        self.connection.initiate_connection()
        # The client has not read our SETTINGS yet: a stream too many is refused, only
        # far too many end the connection.
        self.connection.local_settings = announcement(4 * self.limits.h2_streams)
        self.flush()
        self.owner.await_within(Phase.IDLE, self.limits.keep_alive_s)

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
        self.charge(self.control, self._frames.count - useful)
        self.flush()
        self.settle()
        if self.owner.transport.pending:
            await self.owner.transport.drained()

    def _contain(self, event: h2.events.Event) -> bool:
        """Act on one event; a failure ends its stream, not the neighbours'."""
        try:
            return self._act(event)
        except Exception as exc:
            stream_id = getattr(event, "stream_id", None)
            if not stream_id:
                raise
            self.owner.intervened("connection_error")
            records.stream_failed(stream_id, self.owner, exc)
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
                status = judge_trailers(event.headers, self.limits)
                if status is not None:
                    self._malformed(event.stream_id, status)
            case h2.events.StreamEnded():
                self._request_ended(event.stream_id or 0)
            case h2.events.StreamReset():
                self.charge(self._resets)
                self.forget(event.stream_id)
            case StreamError():
                self.owner.intervened("bad_request")
                self.charge(self._resets)
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

    def charge(self, budget: Budget, count: int = 1) -> None:
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
            self.charge(self._resets)
            self.reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return False
        head = read_head(event.headers, self.config, self.limits)
        if isinstance(head, int):
            self._refuse(stream_id, head)
            return False
        try:
            length = announced_length(head.headers)
        except ValueError:
            self._refuse(stream_id, HTTPStatus.BAD_REQUEST)
            return False
        if event.stream_ended is not None and length:
            self._refuse(stream_id, HTTPStatus.BAD_REQUEST)
            return False
        stream = H2Stream(self.owner, self.stream_send, stream_id, self.repay)
        stream.body_deadline = trio.current_time() + self.limits.body_read_s
        stream.missing_bytes = length
        self.open[stream_id] = stream
        if event.stream_ended is None and expects_continue(head.headers):
            with suppress(ProtocolError):  # reset by what came right behind it
                self.connection.send_headers(stream_id, [(b":status", b"100")])
        stream.begin(
            method=head.method,
            target=head.target,
            http_version="2",
            headers=head.headers,
        )
        if self.owner.last_request:
            self.go_away(ErrorCodes.NO_ERROR)
        return True

    def _refuse(self, stream_id: int, status: int) -> None:
        """Answer a bad head with `status`; the connection and its streams go on.

        A malformed one is reset besides (RFC 9113 8.1.1), behind the answer.
        """
        self.owner.intervened("bad_request")
        self.charge(self._resets)
        headers = [(b":status", b"%d" % status), (b"content-length", b"0")]
        headers += self.config.response_headers("h2")
        with suppress(ProtocolError):  # reset by what came right behind it
            self.connection.send_headers(stream_id, headers, end_stream=True)
            self.discarding[stream_id] = 0
        if status == HTTPStatus.BAD_REQUEST:
            self.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)

    def _malformed(self, stream_id: int, status: int) -> None:
        """End a stream whose request is malformed behind its head."""
        stream = self.open.get(stream_id)
        if stream is None:
            return
        self.forget(stream_id)
        if stream.begun:
            self.owner.intervened("bad_request")
            self.charge(self._resets)
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
            stream.owed_bytes += length
            if stream.missing_bytes is not None:
                stream.missing_bytes -= len(data)
                if stream.missing_bytes < 0:
                    self._malformed(stream_id, HTTPStatus.BAD_REQUEST)
                    return
            stream.inbox.put_nowait(data, more_body=True)
            self.repay(stream)
            return
        self.connection.acknowledge_received_data(length, stream_id)
        dropped = self.discarding.get(stream_id, 0) + length
        self.discarding[stream_id] = dropped
        if dropped > self.limits.discard_bytes:
            self.reset(stream_id, ErrorCodes.NO_ERROR)

    def _request_ended(self, stream_id: int) -> None:
        self.discarding.pop(stream_id, None)
        stream = self.open.get(stream_id)
        if stream is not None and stream.missing_bytes:
            self._malformed(stream_id, HTTPStatus.BAD_REQUEST)
        elif stream is not None:
            stream.request_ended = True
            stream.body_deadline = inf
            stream.inbox.put_nowait(b"", more_body=False)

    def settle(self) -> None:
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

    def too_slow(self) -> None:
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
        self.settle()
