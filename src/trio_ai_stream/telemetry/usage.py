"""What this process uses of the machine, as Linux tells it."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from typing import Final

_PAGE: Final = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Usage:
    """One reading; `started_at` is Unix time."""

    cpu_s: float
    resident_bytes: float
    open_fds: float
    max_fds: float
    started_at: float


def read_usage() -> Usage:
    """Read /proc, in some tens of microseconds; where there is none, zeros stand."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            resident = int(statm.read().split()[1]) * _PAGE
        # Linux since 6.2 counts them itself; before, the size of the folder is 0.
        open_fds = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:  # no /proc, or no descriptor left to read it with
        resident = open_fds = 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Usage(time.process_time(), resident, open_fds, soft, _STARTED_AT)


# When this module was imported: a fraction of a second after the start.
_STARTED_AT: Final = time.time()
