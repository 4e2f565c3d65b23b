"""When the garbage collector may look at what lives: never while streams wait for it.

A full pass takes a tenth of a millisecond for each live stream, and all of them stand
meanwhile. What this server makes has no cycles (`python -m bench.soak` counts them), so
a pass finds next to nothing.

A young pass is no way out. CPython counts allocations less releases, whatever
generation is released; so while as much is released as made, no pass comes, and the
young generation gathers all that the streams have renewed since the last one. The pass
that some new streams then start took 5 to 12 microseconds for each live one.

So there are young passes while few streams live, and none while many do. Full passes
are asked for here, at a quiet moment; or at any, once memory has grown by more than
live streams explain. On CPython up to 3.13 the thresholds keep the older generations
from being looked at; on 3.14 they keep the increments of an old one small.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final, Literal

import trio

Reason = Literal["quiet", "memory"]

# Allocations, less releases, before a young pass.
YOUNG_AFTER: Final = 5_000
_NEVER: Final = 2**31 - 1
# So few streams make a full pass no longer than a few milliseconds, and a young one
# half a millisecond.
QUIET_STREAMS: Final = 20
# Between two passes at a quiet moment, and between any two.
QUIET_EVERY_S: Final = 60.0
# What memory may grow by since the last pass, besides what live streams explain.
GROWTH_BYTES: Final = 64 * 2**20
STREAM_BYTES: Final = 64 * 2**10


def settle_collector() -> None:
    """Leave alone what lives as long as the process, and the older generations.

    It ends a start, during which the collector may have been off (`cli.py`). There is
    no pass before: it would find 2,700 objects of 140,000 and take a tenth of a start.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(YOUNG_AFTER, _NEVER, _NEVER)


def _set_young_passes(wanted: bool) -> None:
    if wanted:
        gc.enable()
    else:
        gc.disable()


class CollectorPolicy:
    """Decides which passes are made; call `look` once a second, and `close` at the end.

    There is one in a process that serves: it turns the process's collector on and off.
    """

    def __init__(
        self,
        collect: Callable[[], object] = gc.collect,
        set_young_passes: Callable[[bool], None] = _set_young_passes,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._collect = collect
        self._set_young_passes = set_young_passes
        self._clock = clock
        self._passed_at = clock()
        self._base = 0  # what the process held after the last pass
        self._most = 0  # live streams at once since then
        self._worked = False  # whether there were any
        self._busy = False  # more streams live than young passes may look at

    def look(self, live: int, resident: int) -> Reason | None:
        """Make a full pass if it is time for one; return why.

        :param live: streams.
        :param resident: bytes of this process; 0 if that cannot be told.
        """
        self._turn(busy=live > QUIET_STREAMS)
        self._base = self._base or resident
        self._most = max(self._most, live)
        self._worked = self._worked or live > 0
        if self._clock() < self._passed_at + QUIET_EVERY_S:
            return None
        reason: Reason
        if resident > self._base + GROWTH_BYTES + self._most * STREAM_BYTES:
            reason = "memory"
        elif self._worked and live <= QUIET_STREAMS:
            reason = "quiet"
        else:
            return None
        self._collect()
        self._passed_at = self._clock()
        self._base, self._most, self._worked = resident, 0, live > 0
        return reason

    def close(self) -> None:
        """Leave the collector as it was; idempotent."""
        self._turn(busy=False)

    def _turn(self, *, busy: bool) -> None:
        if busy != self._busy:
            self._busy = busy
            self._set_young_passes(not busy)
