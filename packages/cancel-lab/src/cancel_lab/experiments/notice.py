"""How long after a client's act upstream notices, and what is wasted until then."""

from __future__ import annotations

import msgspec

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

WITHIN_S = 1.0  # the bound of a verdict, unless another is said
WATCH_S = 5.0  # longer than a scene holds, so that a late notice is still seen


async def notice(
    arena: Arena,
    scene: Scene,
    act: Act = Act.FIN,
    transport: Transport = Transport.H1,
    *,
    watch_s: float = WATCH_S,
    within_s: float = WITHIN_S,
    variant: str = "",
) -> RunRecord:
    """Make one run; a stream that misses its phase makes an ``error`` record.

    A run passes if upstream notices within ``within_s``.
    """
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
            variant=variant,
            status=Status.ERROR,
            reason=str(exc),
        )
    made = _record(arena, scene, act, transport, observed, within_s)
    return msgspec.structs.replace(made, variant=variant)


def _record(
    arena: Arena,
    scene: Scene,
    act: Act,
    transport: Transport,
    observed: Observed,
    within_s: float,
) -> RunRecord:
    late_s = None
    if observed.gone_ns is not None:
        late_s = (observed.gone_ns - observed.cause_ns) / 1e9
    status, violations = Status.PASS, []
    if late_s is None:
        status = Status.CENSORED
    elif late_s > within_s:
        status = Status.VIOLATED
        violations = [f"upstream noticed after the bound of {within_s:g} s"]
    return RunRecord(
        run_id=f"notice-{arena.adapter.name}-{observed.tag}",
        tier="probe",
        experiment="notice",
        sut=sut(arena.adapter),
        cause=act.value,
        phase=scene.name,
        transport=transport.value,
        status=status,
        violations=violations,
        times=observed.times(),
        watched_until_ns=observed.watched_until_ns,
        within_ns=int(within_s * 1e9),
        tokens=observed.tokens(),
    )
