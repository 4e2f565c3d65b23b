"""`python -m bench.fuzz --minutes N`: hostile clients against the server.

It ends with 1 if the server died, a well-behaved stream was disturbed, a task or a
descriptor was left, or the server had to contain an exception nobody expected.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import trio

from bench.fuzzing import campaign
from tests.support.server.servers import ServerProcess, start_process

LIMITS = {"linger_s": 0.2, "head_read_s": 2, "body_read_s": 2, "write_stall_s": 2}


def main() -> int:
    """Run one campaign and report."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1_000_000)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    server = start_process(folder, limits=LIMITS)
    try:
        findings = trio.run(_run, server, arguments)
    finally:
        server.kill()
    print(
        f"seed {arguments.seed}: {findings.sessions} sessions,"
        f" {findings.bytes_said / 1e6:.1f} MB said,"
        f" {findings.witnesses} well-behaved streams beside them"
    )
    print("\n".join(findings.problems) or "nothing found")
    return 1 if findings.problems else 0


async def _run(
    server: ServerProcess, arguments: argparse.Namespace
) -> campaign.Findings:
    return await campaign.run(
        server,
        seconds=60 * arguments.minutes,
        seed=arguments.seed,
        clients=arguments.clients,
    )


if __name__ == "__main__":
    sys.exit(main())
