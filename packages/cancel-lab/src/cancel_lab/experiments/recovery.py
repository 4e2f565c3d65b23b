"""After the cancels: does the server still serve, and did it keep anything?"""

from __future__ import annotations

import time

import trio

from cancel_lab import procfs
from cancel_lab.clients.acts import Transport
from cancel_lab.clients.dial import dial
from cancel_lab.records import RunRecord, Status
from cancel_lab.scenes import Scene
from cancel_lab.trial import Arena, sut

TOKENS = 5
HEALTHY = Scene(
    name="healthy",
    # Usage of its own has no choices, which ends some servers; that is another matter.
    script=f"endless=0&chunks={TOKENS}&delay_ms=1&usage=last",
    upstream_phase="streaming",
)
WITHIN_S = 10.0


async def recovery(
    arena: Arena,
    *,
    transport: Transport = Transport.H1,
    baseline: dict[str, int] | None = None,
) -> RunRecord:
    """Make one short stream that nobody cancels, then compare with the baseline.

    ``baseline`` is what ``procfs.open_files`` said before the cancels; a stream's own
    connection is kept alive by both ends, so up to two descriptors are no leak.
    """
    tag = arena.upstream.tag()
    request = arena.adapter.request(HEALTHY.model(tag))
    stream = await dial(arena.port, request, transport)
    try:
        started = time.monotonic_ns()
        with trio.move_on_after(WITHIN_S):
            started = await stream.start()
            await stream.read_to_end()
    finally:
        stream.connection.close()
    seen = stream.seen
    violations = []
    if seen.tokens != TOKENS or seen.terminals[:1] != ["done"]:
        violations.append(f"a healthy stream ended as {seen.ending}")
    return RunRecord(
        run_id=f"recovery-{arena.adapter.name}-{tag}",
        tier="probe",
        experiment="recovery",
        sut=sut(arena.adapter),
        cause="none",
        phase="after the cancels",
        transport=transport.value,
        status=Status.VIOLATED if violations else Status.PASS,
        violations=violations,
        times={"t_cause": started, "t_first_token": seen.first_token_ns},
        watched_until_ns=started + int(WITHIN_S * 1e9),
        terminal=seen.ending,
        leaks={} if baseline is None else leaks(arena, baseline),
    )


def leaks(arena: Arena, baseline: dict[str, int]) -> dict[str, int]:
    """Return by how much the server's open files exceed a baseline."""
    now = procfs.open_files(arena.server.pid)
    return {name: now[name] - baseline[name] for name in baseline}
