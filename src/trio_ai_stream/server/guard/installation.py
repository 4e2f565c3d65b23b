"""Put the guard in Hypercorn's place, for both launches."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Final

import hypercorn.trio
import hypercorn.trio.run

from trio_ai_stream.server.drain import Drainable
from trio_ai_stream.server.guard.counters import Counters, Tally
from trio_ai_stream.server.guard.serving import Guard
from trio_ai_stream.server.limits import Limits

HYPERCORN_VERSION: Final = "0.18.0"

_installed: Guard | None = None


class UnsupportedHypercornError(RuntimeError):
    """The guard was not written for the Hypercorn that is installed."""


def install(
    limits: Limits,
    drainable: Drainable,
    reload: Callable[[], Limits] | None = None,
) -> Guard:
    """Serve from now on with the guard, in this process; the newest call counts.

    Hypercorn looks `worker_serve` up in its module when a worker starts, after it has
    imported the application. So a call where the application is created covers every
    worker, under `trio-ai-stream serve` and under the plain `hypercorn` command.

    :param reload: called on SIGHUP; returns the bounds from then on, or raises a
        `ValueError` that says why all stays as it is.
    :raises UnsupportedHypercornError: the version is another than the guard's.
    """
    global _installed
    found = version("hypercorn")
    if found != HYPERCORN_VERSION:
        raise UnsupportedHypercornError(
            f"expected Hypercorn {HYPERCORN_VERSION}, whose worker the guard replaces, "
            f"got {found}; install hypercorn=={HYPERCORN_VERSION}"
        )
    _installed = Guard(limits, drainable, reload)
    hypercorn.trio.run.worker_serve = _installed.serve
    hypercorn.trio.worker_serve = _installed.serve  # type: ignore[attr-defined]
    return _installed


def installed() -> Guard:
    """Return the guard that this process serves with.

    :raises LookupError: the application has not installed one.
    """
    if _installed is None:
        raise LookupError("expected the application to call install(), it did not")
    return _installed


def counters() -> Counters:
    """Return what the installed guard has counted; all zero without one."""
    return (Tally() if _installed is None else _installed.tally).snapshot()
