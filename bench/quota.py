"""A share of a core for a process: the CPU controller of Linux, where we may use it.

That is root's, and cgroup v1's (`/sys/fs/cgroup/cpu`); elsewhere nothing is limited.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

CONTROLLER: Final = Path("/sys/fs/cgroup/cpu")
PERIOD_US: Final = 10_000  # short against a measurement, long against a stream


@contextmanager
def share_of_a_core(pids: Sequence[int], share: float) -> Iterator[bool]:
    """Hold each process to its share within the block; tell whether that could be."""
    with ExitStack() as stack:
        try:
            for pid in pids:
                stack.enter_context(_group(pid, share))
            held = True
        except OSError:
            stack.close()  # all of them, or none
            held = False
        yield held


@contextmanager
def _group(pid: int, share: float) -> Iterator[None]:
    group = CONTROLLER / f"bench-{os.getpid()}-{pid}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD_US)))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with suppress(ProcessLookupError):  # it has ended, and left the group with that
            (CONTROLLER / "cgroup.procs").write_text(str(pid))
        group.rmdir()
