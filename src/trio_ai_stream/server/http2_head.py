"""h2 as this server needs it: what it announces, reads and refuses.

h2 ends the whole connection where RFC 9113 has an error of one stream (5.4.2, 8.1.1) or
none at all (6.8). Changing that takes some of h2's private methods;
`tests/server/test_installation.py` says which, so that a new h2 is looked at before it
is used. Malformed fields are an error of the one stream too, so h2's own check is asked
for here, one request at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, cast

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    Event,
    RequestReceived,
    TrailersReceived,
)
from h2.exceptions import NoSuchStreamError, ProtocolError, StreamClosedError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamInputs
from h2.utilities import (
    HeaderValidationFlags,
    normalize_inbound_headers,
    validate_headers,
)
from hpack.exceptions import HPACKError
from hypercorn.config import Config
from hypercorn.utils import filter_pseudo_headers
from hyperframe.frame import (
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from trio_ai_stream.server.http1_parser import (
    TOKEN,
    BadRequestError,
    Headers,
    announced_length,
    list_members,
)
from trio_ai_stream.server.http_stream import RequestHead, make_head
from trio_ai_stream.server.limits import Limits

# What one field counts for besides its bytes (RFC 9113 6.5.2).
_FIELD_OVERHEAD: Final = 32
_REQUEST: Final = HeaderValidationFlags(
    is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
)
_TRAILERS: Final = _REQUEST._replace(is_trailer=True)
_LENGTH_BYTES: Final = 3  # RFC 9113 4.1: a frame starts with its length
_HEAD_BYTES: Final = 9
_NO_RESERVED_BIT: Final = 0x7FFF_FFFF


@dataclass(slots=True)
class RequestRest:
    """What comes of a request behind its response, and is dropped.

    :param missing_bytes: what of the announced length has not come yet; None: none was
        announced.
    """

    missing_bytes: int | None = None
    dropped_bytes: int = 0


@dataclass
class StreamError(Event):
    """A frame was an error of its stream, and of nothing else (RFC 9113 5.4.2)."""

    stream_id: int
    code: ErrorCodes


class BadFrame(ExtensionFrame):
    """Stands for a frame that hyperframe refuses, though only its stream is at fault.

    :param code: what RST_STREAM is to say.
    """

    def __init__(self, stream_id: int, code: ErrorCodes) -> None:
        super().__init__(type=-1, stream_id=stream_id)
        self.code = code


class CountedFrames(FrameBuffer):
    """h2's frames, counted, because many of them cause no event that could be.

    A frame that says it is too large is refused by its head; h2 would first wait for,
    and keep, up to 16 MiB of it.
    """

    count = 0

    def __next__(self) -> Frame:
        if len(self._data) >= _LENGTH_BYTES:
            self._validate_frame_length(int.from_bytes(self._data[:_LENGTH_BYTES]))
        frame: Frame | None
        try:
            frame = super().__next__()
        except ProtocolError:
            frame = self._stand_in()
            if frame is None:
                raise
        self.count += 1
        return frame

    def _stand_in(self) -> Frame | None:
        """Return what stands for the frame that has just been refused, if anything."""
        if self._headers_buffer or len(self._data) < _HEAD_BYTES:
            return None
        length = int.from_bytes(self._data[:_LENGTH_BYTES])
        kind = self._data[_LENGTH_BYTES]
        stream_id = int.from_bytes(self._data[5:_HEAD_BYTES]) & _NO_RESERVED_BIT
        body = bytes(self._data[_HEAD_BYTES : _HEAD_BYTES + length])
        frame: Frame | None = None
        if kind == PriorityFrame.type and stream_id:
            frame = BadFrame(stream_id, ErrorCodes.FRAME_SIZE_ERROR)  # RFC 9113 6.3
        elif kind == WindowUpdateFrame.type and length == 4:  # 6.9
            credit = int.from_bytes(body) & _NO_RESERVED_BIT
            if credit:
                frame = WindowUpdateFrame(stream_id, credit)
            elif stream_id:
                frame = BadFrame(stream_id, ErrorCodes.PROTOCOL_ERROR)
        if frame is not None:
            del self._data[: _HEAD_BYTES + length]
        return frame


class ServerConnection(H2Connection):
    """h2's connection; what one stream does wrong is a `StreamError` event."""

    def _begin_new_stream(
        self, stream_id: int, allowed_ids: AllowedStreamIDs
    ) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = _ServerStream
        return stream

    def _receive_frame(self, frame: Frame) -> list[Event]:
        if isinstance(frame, BadFrame):
            idle = frame.stream_id > self.highest_inbound_stream_id
            if idle and frame.code is ErrorCodes.PROTOCOL_ERROR:
                raise NoSuchStreamError(frame.stream_id)  # credit; RFC 9113 5.1
            return [StreamError(frame.stream_id, frame.code)]
        try:
            return super()._receive_frame(frame)
        except _MalformedError:
            return [StreamError(frame.stream_id, ErrorCodes.PROTOCOL_ERROR)]
        except ProtocolError as exc:
            if isinstance(exc.__cause__, HPACKError) and (
                exc.error_code is ErrorCodes.PROTOCOL_ERROR
            ):
                exc.error_code = ErrorCodes.COMPRESSION_ERROR  # RFC 9113 4.3
            raise

    def _receive_priority_frame(
        self, frame: HeadersFrame | PriorityFrame
    ) -> tuple[list[Frame], list[Event]]:
        if frame.depends_on == frame.stream_id:
            raise _MalformedError
        return super()._receive_priority_frame(frame)

    def _receive_goaway_frame(
        self, frame: GoAwayFrame
    ) -> tuple[list[Frame], list[Event]]:
        """Let the streams go on: h2 would end its connection (RFC 9113 6.8)."""
        if frame.error_code != ErrorCodes.NO_ERROR:
            return super()._receive_goaway_frame(frame)
        event = ConnectionTerminated()
        event.error_code = ErrorCodes.NO_ERROR
        return [], [event]

    def reset_stream(self, stream_id: int, error_code: ErrorCodes | int = 0) -> None:
        """Reset a stream, also one that has ended or not begun; h2 would refuse that.

        :raises ProtocolError: either side has reset it already.
        """
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.closed:
            super().reset_stream(stream_id, error_code)
        elif self._stream_is_closed_by_reset(stream_id):
            raise StreamClosedError(stream_id)
        else:
            frame = RstStreamFrame(stream_id, error_code=int(error_code))
            self._prepare_for_sending([frame])

    def release(self) -> None:
        """Break the cycle of h2's own table of its methods; the last call."""
        self._frame_dispatch_table.clear()


class _ServerStream(H2Stream):
    """h2's stream; what its fields say is looked at by us, request by request."""

    def receive_headers(
        self, headers: Any, end_stream: bool, header_encoding: Any
    ) -> tuple[list[Frame], list[Event]]:
        """Take a request's fields or its trailers as they are.

        Without the length that h2 would take from them, and hold the body to.
        """
        events = self.state_machine.process_input(StreamInputs.RECV_HEADERS)
        (event,) = events
        if end_stream:
            events += self.state_machine.process_input(StreamInputs.RECV_END_STREAM)
            event.stream_ended = events[1]  # type: ignore[attr-defined]
        elif isinstance(event, TrailersReceived):
            raise _MalformedError  # RFC 9113 8.1
        fields = normalize_inbound_headers(headers, None)  # type: ignore[arg-type]
        event.headers = list(fields)  # type: ignore[attr-defined]
        return [], events


class _MalformedError(Exception):
    """A frame makes its stream's message malformed."""


def make_connection(limits: Limits) -> ServerConnection:
    """Return h2's side of a new connection, under our bounds."""
    config = H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_inbound_headers=False,  # one by one, in `read_head`
    )
    connection = ServerConnection(config)
    connection.local_settings = own_settings(limits.h2_streams)
    # Past our own bound there is still an answer, 431; past this one h2 gives up.
    connection.decoder.max_header_list_size = 4 * limits.header_bytes
    return connection


def own_settings(streams: int) -> Settings:
    """Return SETTINGS that allow so many streams at a time."""
    return Settings(
        client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: streams}
    )


def read_head(
    event: RequestReceived, config: Config, limits: Limits
) -> tuple[RequestHead, int | None]:
    """Return the head of a request, and the length of its body if it says one.

    :raises BadRequestError: it may not be served.
    """
    given = cast("Headers", event.headers or [])
    pseudo = {name: value for name, value in given if name.startswith(b":")}
    method = pseudo.get(b":method", b"")
    _check_size(given, limits)
    if method == b"CONNECT":  # it has other fields than the check expects
        raise BadRequestError(501)
    _check_fields(given, _REQUEST)
    if not re.fullmatch(TOKEN, method):
        raise BadRequestError(400)
    target = pseudo.get(b":path", b"")
    head = make_head(config, method, target, filter_pseudo_headers(given))
    length = announced_length(_values(head.headers, b"content-length"))
    if length and event.stream_ended is not None:
        raise BadRequestError(400)
    return head, length


def expects_continue(headers: Headers) -> bool:
    """Tell whether the client waits to be told to go on (RFC 9110 10.1.1)."""
    return any(b"100-continue" in list_members(v) for v in _values(headers, b"expect"))


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for one, value in headers if one == name]


def check_trailers(fields: object, limits: Limits) -> None:
    """Look at the trailers of a request.

    :raises BadRequestError: they may not pass.
    """
    given = cast("Headers", fields or [])
    _check_size(given, limits)
    _check_fields(given, _TRAILERS)


def _check_size(fields: Headers, limits: Limits) -> None:
    size = sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in fields)
    if size > limits.header_bytes:
        raise BadRequestError(431)


def _check_fields(fields: Headers, flags: HeaderValidationFlags) -> None:
    try:
        list(validate_headers(fields, flags))
    except ProtocolError as exc:
        raise BadRequestError(400) from exc
