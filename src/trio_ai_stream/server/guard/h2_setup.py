"""How an HTTP/2 connection starts: its preface, and what we announce."""

from __future__ import annotations

from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from trio_ai_stream.server.limits import Limits

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def make_connection(limits: Limits) -> H2Connection:
    """Return h2's side of a new connection, under our bounds."""
    config = H2Configuration(client_side=False, header_encoding=None)
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
