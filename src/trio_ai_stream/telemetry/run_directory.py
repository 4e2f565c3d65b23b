"""A directory that the worker processes of one server share while it runs.

Workers find it without being told: they have the same parent, and the directory is
named after it. Plain Hypercorn starts them through `multiprocessing`; our own launch
starts this program again with `WORKER_VARIABLE` in its environment.

Each holds a shared lock on the directory's `alive` file; a directory whose file can be
locked exclusively belongs to a server that is gone, and the next start removes it.

What clears old files away (systemd-tmpfiles after ten days, by default) looks at their
times, not at locks. So each worker makes them young from time to time.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

import trio

WORKER_VARIABLE = "TRIO_AI_STREAM_LISTEN_FDS"
"""What server/launch.py gives its workers; this room stands below that one."""
BASE_VARIABLE = "TRIO_AI_STREAM_SHARED_FILES"
"""The same: where the directory is, for a place that is full is no longer found."""

TOUCH_S: Final = 3600.0
_ALIVE = "alive"


class RunDirectory:
    """One server's shared directory, kept alive by this object until `close`."""

    def __init__(self, path: Path) -> None:
        """Create the directory, or join it; `path`'s parent must exist.

        :raises PermissionError: somebody else owns that name, or may write there.
        """
        self.path = path
        self._alive = self._join(path)

    @staticmethod
    def _join(path: Path) -> int:
        """Create or enter the directory and lock its file; again if it was removed."""
        while True:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
            with contextlib.suppress(FileNotFoundError):
                _check_private(path)
                alive = os.open(path / _ALIVE, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(alive, fcntl.LOCK_SH)
                if os.fstat(alive).st_nlink:
                    return alive
                os.close(alive)

    async def keep_young(self) -> None:
        """Show until cancelled, now and then, that the files are in use."""
        while True:
            await trio.sleep(TOUCH_S)
            for path in self.path.glob("*"):
                # Its worker has ended, or the disk has become read-only.
                with contextlib.suppress(OSError):
                    os.utime(path)

    def close(self) -> None:
        """Stop keeping the directory alive; the last one to leave removes it."""
        if self._alive < 0:
            return
        if lock_nowait(self._alive):
            _remove(self.path)
        os.close(self._alive)  # whoever waits for the lock finds its file removed
        self._alive = -1


def join_run_directory() -> RunDirectory | None:
    """Return the directory shared with the other workers; None if there are none.

    :raises PermissionError: as `RunDirectory`.
    """
    parent = _parent()
    if parent is None:
        return None
    base = Path(os.environ.get(BASE_VARIABLE) or tempfile.gettempdir())
    prefix = f"trio-ai-stream-{os.getuid()}-"
    ours = base / f"{prefix}{parent}"
    for other in base.glob(f"{prefix}*"):
        # The parent's number may have been another server's before.
        _remove_if_dead(other)
    return RunDirectory(ours)


def _parent() -> int | None:
    """Return the process that started this one as one of its workers."""
    if WORKER_VARIABLE in os.environ:
        return os.getppid()
    parent = multiprocessing.parent_process()
    return None if parent is None else parent.pid


def _check_private(path: Path) -> None:
    status = path.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if not private or status.st_uid != os.getuid():
        raise PermissionError(
            f"expected {path} to be a directory of this user alone, mode 0700;"
            " remove it, or set TMPDIR to a private directory"
        )


def _remove_if_dead(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path / _ALIVE, os.O_RDWR)
        try:
            if lock_nowait(descriptor):
                _remove(path)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a directory whose `alive` the caller has locked for itself.

    It is given another name first: who comes meanwhile makes a directory of its own
    and never opens a file that is about to go.
    """
    going = path.with_name(f"{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
    with contextlib.suppress(OSError):
        shutil.rmtree(path.rename(going), ignore_errors=True)


def lock_nowait(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock a file if nobody else has it locked; return whether it is locked."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
