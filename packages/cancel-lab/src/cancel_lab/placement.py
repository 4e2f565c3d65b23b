"""Which cores the server under test may use, and which those that watch it.

Upstream and the clients stand for other machines. Left to the kernel they share cores
with the server, and the instant at which upstream notices can wait for whatever the
server does after it has closed the connection: seen as 1.1 ms in one run and 0.3 ms in
the next. So the watchers get cores of their own, where the system lets us say so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple


class Placement(NamedTuple):
    """Two sets of cores without a common one."""

    watchers: frozenset[int]  # the instrument itself and the simulator
    server: frozenset[int]

    def __str__(self) -> str:
        """For the manifest."""
        return f"watchers {sorted(self.watchers)}, server {sorted(self.server)}"


def split(cores: Sequence[int]) -> Placement | None:
    """Return who gets which cores: two for the watchers, half if there are but few."""
    count = min(2, len(cores) // 2)
    if not count:
        return None
    return Placement(frozenset(cores[:count]), frozenset(cores[count:]))


# What this process was given, read before it restricts itself.
PLACEMENT: Final = (
    split(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None
)


# The name is looked up as the shell would, so that the command stays what it was.
_BECOME: Final = "os.execvp(sys.argv[1], sys.argv[1:])"


@contextmanager
def watching() -> Iterator[None]:
    """Keep this process, and the children it starts, to the watchers' cores."""
    if PLACEMENT is None:
        yield
        return
    os.sched_setaffinity(0, PLACEMENT.watchers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, PLACEMENT.watchers | PLACEMENT.server)


def on_server_cores(argv: Sequence[str]) -> list[str]:
    """Return a command that runs another one on the server's cores, and becomes it."""
    if PLACEMENT is None:
        return list(argv)
    cores = sorted(PLACEMENT.server)
    program = f"import os, sys; os.sched_setaffinity(0, {cores}); {_BECOME}"
    return [sys.executable, "-I", "-S", "-c", program, *argv]
