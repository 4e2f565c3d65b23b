"""A share of a core is held for the block, or the block is told that it is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.quota import CONTROLLER, share_of_a_core

SPIN = "while True: pass"
NOBODY = 2**22 - 1  # one below the highest number that a process may have


def throttled(pid: int) -> int:
    """How often the kernel has held a process back."""
    (stat,) = CONTROLLER.glob(f"bench-*-{pid}/cpu.stat")
    words = stat.read_text().split()
    return int(words[words.index("nr_throttled") + 1])


def test_a_process_is_held_back_within_the_block() -> None:
    """Where the kernel lets us; either way nothing is left behind."""
    with subprocess.Popen([sys.executable, "-c", SPIN]) as process:
        try:
            with share_of_a_core([process.pid], 0.2) as held:
                gives_up_at = time.monotonic() + 20
                while held and not throttled(process.pid):
                    assert time.monotonic() < gives_up_at
        finally:
            process.kill()
    assert not list(CONTROLLER.glob(f"bench-*-{process.pid}"))


def test_with_a_process_that_is_not_there_nobody_is_held_back() -> None:
    """The block is run all the same."""
    with share_of_a_core([os.getpid(), NOBODY], 0.5) as held:
        assert not held
        assert not list(CONTROLLER.glob(f"bench-{os.getpid()}-*"))
