"""How long after a client's act upstream notices, and what is wasted until then."""

from __future__ import annotations

from cancel_lab.clients.acts import Act, Transport
from cancel_lab.records import RunRecord, Status
from cancel_lab.scenes import Scene
from cancel_lab.trial import (
    Arena,
    Observed,
    TrialError,
    act_and_watch,
    bring,
    sut,
)

WATCH_S = 5.0  # longer than a scene holds, so that a late notice is still seen


async def notice(
    arena: Arena,
    scene: Scene,
    act: Act = Act.FIN,
    transport: Transport = Transport.H1,
    *,
    watch_s: float = WATCH_S,
) -> RunRecord:
    """Make one run; a stream that misses its phase makes an ``error`` record."""
    try:
        live = await bring(arena, scene, transport)
        observed = await act_and_watch(arena, live, act, watch_s=watch_s)
    except (TrialError, OSError) as exc:
        return RunRecord(
            run_id=f"notice-{arena.adapter.name}-failed-{arena.upstream.tag()}",
            tier="probe",
            experiment="notice",
            sut=sut(arena.adapter),
            cause=act.value,
            phase=scene.name,
            transport=transport.value,
            status=Status.ERROR,
            reason=str(exc),
        )
    return _record(arena, scene, act, transport, observed)


def _record(
    arena: Arena, scene: Scene, act: Act, transport: Transport, observed: Observed
) -> RunRecord:
    noticed = observed.gone_ns is not None
    return RunRecord(
        run_id=f"notice-{arena.adapter.name}-{observed.tag}",
        tier="probe",
        experiment="notice",
        sut=sut(arena.adapter),
        cause=act.value,
        phase=scene.name,
        transport=transport.value,
        status=Status.PASS if noticed else Status.CENSORED,
        times=observed.times(),
        watched_until_ns=observed.watched_until_ns,
        tokens=observed.tokens(),
    )
