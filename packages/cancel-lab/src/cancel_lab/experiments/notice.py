"""How long after a client's act upstream notices, and what is wasted until then."""

from __future__ import annotations

from msgspec.structs import replace

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
    failed = RunRecord(
        run_id=f"notice-{arena.adapter.name}-failed-{arena.upstream.tag()}",
        tier="probe",
        experiment="notice",
        sut=sut(arena.adapter),
        cause=act.value,
        phase=scene.name,
        transport=transport.value,
        variant=variant,
        status=Status.ERROR,
    )
    try:
        live = await bring(arena, scene, transport)
        observed = await act_and_watch(arena, live, act, watch_s=watch_s)
    except (TrialError, OSError) as exc:
        return replace(failed, reason=str(exc))
    status, violations = _verdict(observed, within_s)
    return replace(
        failed,
        run_id=f"notice-{arena.adapter.name}-{observed.tag}",
        status=status,
        violations=violations,
        times=observed.times(),
        watched_until_ns=observed.watched_until_ns,
        within_ns=int(within_s * 1e9),
        tokens=observed.tokens(),
    )


def _verdict(observed: Observed, within_s: float) -> tuple[Status, list[str]]:
    """Return the verdict, and what was violated."""
    if observed.gone_ns is None:
        return Status.CENSORED, []
    if observed.gone_ns - observed.cause_ns > within_s * 1e9:
        return (
            Status.VIOLATED,
            [f"upstream noticed after the bound of {within_s:g} s"],
        )
    return Status.PASS, []
