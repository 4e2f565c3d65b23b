"""The process around the runs: what they leave and say, the collector, Ctrl-C."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from trio_sweep.injector import BrokenUp

_DESCRIPTORS = next(
    (path for path in (Path("/proc/self/fd"), Path("/dev/fd")) if path.is_dir()), None
)
_NUMBERED = re.compile(r"^(Thread|Dummy|ThreadPoolExecutor)-\d+(_\d+)?")
CAN_SEE_DESCRIPTORS = _DESCRIPTORS is not None


def descriptors() -> dict[int, str]:
    """Return what each open descriptor of this process is."""
    if _DESCRIPTORS is None:
        return {}
    found = {}
    for name in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError):  # that of the listing itself
            kind = os.readlink(_DESCRIPTORS / name)
            found[int(name)] = re.sub(r"\[\d+\]", "", kind)
    return found


def threads() -> dict[int, str]:
    """Return the threads of this process, without the idle ones that Trio keeps.

    The numbers that Python gives to them count all threads of the process: they differ
    from run to run, and are left out.
    """
    return {
        thread.ident or 0: _NUMBERED.sub(r"\1-…", thread.name)
        for thread in threading.enumerate()
        if not thread.name.startswith("Trio thread ")
    }


class _Errors(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self, complaints: list[tuple[str, str]]) -> None:
        super().__init__(logging.ERROR)
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message and the exception's kind, but not its frames."""
        text = f"{record.name}: {record.getMessage()}"
        if record.exc_info and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__}: {record.exc_info[1]})"
        self._complaints.append(("logged", text))


@contextlib.contextmanager
def listening(complaints: list[tuple[str, str]]) -> Iterator[None]:
    """Collect logged errors, warnings of leaks, and what Python cannot raise."""
    hooks = sys.unraisablehook, threading.excepthook

    def unraisable(args: Any) -> None:
        if not issubclass(args.exc_type, BrokenUp):
            complaints.append(
                ("unraisable", f"{args.exc_type.__name__}: {args.exc_value}")
            )

    root, handler = logging.getLogger(), _Errors(complaints)
    sys.unraisablehook = threading.excepthook = unraisable
    root.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for one in caught:
            text = str(one.message)
            if issubclass(one.category, ResourceWarning):
                complaints.append(("resource-warning", text))
            elif "was never awaited" in text:
                complaints.append(("unawaited", text))
    finally:
        root.removeHandler(handler)
        sys.unraisablehook, threading.excepthook = hooks


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
