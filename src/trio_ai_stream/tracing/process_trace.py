"""The trace of a live server: `TRACE=1`, one file for each process."""

from __future__ import annotations

import os
from pathlib import Path

import trio
from loguru import logger

from trio_ai_stream.tracing import internals
from trio_ai_stream.tracing.instrument import TraceInstrument
from trio_ai_stream.tracing.trace_sink import TraceSink


def file_of_process(path: Path) -> Path:
    """Return the path with the process's number before its suffix."""
    return path.with_name(f"{path.stem}-{os.getpid()}{path.suffix}")


async def trace_process(
    path: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Trace this Trio run until cancelled; then the file is whole.

    Costs some microseconds a step while it runs, and nothing when it does not.

    :raises TrioChangedError: if this Trio is not the one that is known here.
    :raises OSError: if the file cannot be written.
    """
    internals.check_version()
    target = file_of_process(path)
    with TraceSink(target, title=f"trio-ai-stream {os.getpid()}") as sink:
        instrument = TraceInstrument(sink)
        trio.lowlevel.add_instrument(instrument)
        logger.warning("tracing every task", event="trace_started", file=str(target))
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            trio.lowlevel.remove_instrument(instrument)
