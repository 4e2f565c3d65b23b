"""The soak at a small size: everything comes back, without the garbage collector."""

from __future__ import annotations

import pytest

from bench.soak import main


def test_streams_with_random_endings_leave_nothing_for_the_collector(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Streams, refusals and what Quart answers, over HTTP/1.1 and HTTP/2.

    The same over thousands: `python -m bench.soak --streams 5000`.
    """
    small = ["--streams", "150", "--warm-up", "60", "--clients", "40"]
    assert main(small) == 0, capsys.readouterr().out
