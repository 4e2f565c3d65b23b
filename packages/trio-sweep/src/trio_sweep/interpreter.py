"""What a sweep changes in the interpreter while it runs: the collector and Ctrl-C."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def undisturbed(stop: threading.Event) -> Iterator[None]:
    """Keep the collector and Ctrl-C out of the runs inside.

    The first Ctrl-C sets `stop`; a second one is a KeyboardInterrupt at once.
    """

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    if ours:
        signal.signal(signal.SIGINT, on_signal)
    gc.collect()
    gc.freeze()  # so that the collection after each run sees only what the run made
    gc.disable()
    try:
        yield
    finally:
        if not frozen:  # else what the caller froze would thaw with it
            gc.unfreeze()
        if enabled:
            gc.enable()
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
