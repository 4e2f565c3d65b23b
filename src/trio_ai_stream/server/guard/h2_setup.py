"""How an HTTP/2 connection starts: its preface, and what we announce."""

from __future__ import annotations

from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame

from trio_ai_stream.server.limits import Limits

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LENGTH_BYTES: Final = 3  # RFC 9113 4.1: a frame starts with its length


class CountedFrames(FrameBuffer):
    """h2's frames, counted, because many of them cause no event that could be.

    A frame that says it is too large is refused by its head; h2 would first wait for,
    and keep, up to 16 MiB of it.
    """

    count = 0

    def __next__(self) -> Frame:
        if len(self._data) >= _LENGTH_BYTES:
            self._validate_frame_length(int.from_bytes(self._data[:_LENGTH_BYTES]))
        frame = super().__next__()
        self.count += 1
        return frame


def make_connection(limits: Limits) -> H2Connection:
    """Return h2's side of a new connection, under our bounds."""
    config = H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_inbound_headers=False,  # one by one, in h2_request.py
    )
    connection = H2Connection(config)
    connection.local_settings = announcement(limits.h2_streams)
    # Past our own bound there is still an answer, 431; past this one h2 gives up.
    connection.decoder.max_header_list_size = 4 * limits.header_bytes
    return connection


def announcement(streams: int) -> Settings:
    """Return SETTINGS that allow so many streams at a time."""
    return Settings(
        client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: streams}
    )
