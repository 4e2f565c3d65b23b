"""The guard: no bytes on a connection end the process, no client holds it."""

from trio_ai_stream.server.guard.counters import Counters
from trio_ai_stream.server.guard.installation import (
    UnsupportedHypercornError,
    counters,
    install,
)

__all__ = ["Counters", "UnsupportedHypercornError", "counters", "install"]
