"""Cancel any Trio program at every point at which a cancel can land."""

from trio_sweep.engine import sweep
from trio_sweep.errors import (
    MisuseError,
    SweepInterruptedError,
    TokenError,
    TrioChangedError,
    ViolationsError,
)
from trio_sweep.memory import (
    MemoryConnection,
    MemoryListener,
    MemoryStream,
    memory_listener,
)
from trio_sweep.program import Cause, Program
from trio_sweep.report import Report

__all__ = [
    "Cause",
    "MemoryConnection",
    "MemoryListener",
    "MemoryStream",
    "MisuseError",
    "Program",
    "Report",
    "SweepInterruptedError",
    "TokenError",
    "TrioChangedError",
    "ViolationsError",
    "memory_listener",
    "sweep",
]
