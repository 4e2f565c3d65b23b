"""A network of a test's own, so that what it changes there is nobody else's.

A browser drops all that it loads when an address of its machine comes or goes.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_CLONE_NEWNET: Final = 0x40000000


@contextmanager
def own_network() -> Iterator[None]:
    """Give this thread, and what it starts, a network with nothing but loopback.

    Without the right to make one it stays where it is.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_CLONE_NEWNET):
            yield
            return
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            assert not libc.setns(before, _CLONE_NEWNET), os.strerror(
                ctypes.get_errno()
            )
    finally:
        os.close(before)
