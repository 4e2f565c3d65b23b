"""A short run of the fuzzer; `python -m bench.fuzz --minutes N` is the long one."""

from __future__ import annotations

from pathlib import Path

import trio

from bench.fuzz import LIMITS, run
from tests.support.server.servers import start_process


async def test_random_clients_find_nothing(tmp_path: Path) -> None:
    """Nobody dies, nothing is left, nothing had to be contained, no stream is cut."""
    server = start_process(tmp_path, limits=LIMITS)
    try:
        with trio.fail_after(60):
            findings = await run(server, seconds=2, seed=20_261_122, clients=8)
    finally:
        server.kill()
    assert findings.problems == []
    assert findings.sessions > 10
    assert findings.witnesses > 0
