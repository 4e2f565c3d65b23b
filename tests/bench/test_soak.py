"""The soak at a small size: everything comes back, without the garbage collector."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from bench.soak import main
from trio_ai_stream.telemetry.logs import configure_logging


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """Put the log back: the soak's lets only errors through, for the whole process."""
    yield
    configure_logging(stream=io.StringIO())


def test_streams_with_random_endings_leave_nothing_for_the_collector(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Streams, refusals and what Quart answers, over HTTP/1.1 and HTTP/2.

    The same over thousands: `python -m bench.soak --streams 5000`.
    """
    small = ["--streams", "150", "--warm-up", "60", "--clients", "40"]
    assert main(small) == 0, capsys.readouterr().out
