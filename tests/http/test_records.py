"""Which requests are worth a record at INFO."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger
from trio.testing import MockClock

from tests.support.completions import ask, over
from tests.support.world import world


@pytest.fixture
def logged() -> Iterator[list[tuple[str, str]]]:
    """The level and the event of each record."""
    records: list[tuple[str, str]] = []
    number = logger.add(
        lambda m: records.append((m.record["level"].name, m.record["extra"]["event"])),
        level="DEBUG",
    )
    yield records
    logger.remove(number)


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("/health", "DEBUG"),
        ("/ready", "DEBUG"),
        ("/metrics", "DEBUG"),
        ("/page/main.js", "DEBUG"),
        ("/page/nothing", "DEBUG"),
        ("/streams", "INFO"),
        ("/nowhere", "INFO"),
    ],
)
async def test_probes_and_files_are_not_logged_at_info(
    path: str, level: str, logged: list[tuple[str, str]], autojump_clock: MockClock
) -> None:
    """They come every second, or a dozen at a time."""
    async with world() as w:
        await over(w.visit({}, path, method="GET"))
    assert (level, "request_ended") in logged
    assert ("INFO" in {name for name, _ in logged}) == (level == "INFO")


async def test_a_stream_has_one_record_and_a_refusal_one(
    logged: list[tuple[str, str]], autojump_clock: MockClock
) -> None:
    """`stream_ended` for a stream (the world keeps it), `request_ended` without one."""
    async with world() as w:
        await over(ask(w))
        assert len(w.records) == 1
        assert "INFO" not in {name for name, _ in logged}
        await over(ask(w, messages=[]))
    assert [r for r in logged if r[0] == "INFO"] == [("INFO", "request_ended")]
