"""The bounds that an operator may choose reach the server."""

from __future__ import annotations

import dataclasses

import pytest

from trio_ai_stream.app_factory import server_limits
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.settings import load_settings

BOUNDS = {
    "WRITE_TIMEOUT_SECS": ["write_stall_s"],
    "READ_TIMEOUT_SECS": ["head_read_s", "body_read_s"],
    "IDLE_TIMEOUT_SECS": ["keep_alive_s"],
    "TLS_HANDSHAKE_TIMEOUT_SECS": ["tls_handshake_s"],
    "DRAIN_TIMEOUT_SECS": ["drain_s"],
    "MAX_CONNECTIONS": ["connections"],
    "MAX_REQUESTS_PER_CONNECTION": ["requests_per_connection"],
    "MAX_HEADER_BYTES": ["header_bytes"],
    "MAX_READ_AHEAD_BYTES": ["read_ahead_bytes"],
    "H2_MAX_STREAMS": ["h2_streams"],
    "H2_MAX_RESETS": ["h2_resets"],
    "H2_MAX_CONTROL_FRAMES": ["h2_control_frames"],
    "H2_MAX_BUFFERED_BYTES": ["h2_buffered_bytes"],
    "MAX_CONCURRENT_STREAMS": ["streams", "backlog"],
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_setting_changes_its_bounds_and_no_other(name: str) -> None:
    """Each of the server's settings reaches exactly the bounds it is named for."""
    plain = dataclasses.asdict(server_limits(load_settings({}, None)))
    other = dataclasses.asdict(server_limits(load_settings({name: "77"}, None)))
    assert [key for key in plain if plain[key] != other[key]] == BOUNDS[name]


def test_the_defaults_of_both_are_the_same() -> None:
    """What stands in the settings and in `Limits` does not drift apart."""
    assert server_limits(load_settings({}, None)) == Limits()
