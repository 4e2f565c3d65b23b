"""A run of the sweep as a row of results: the lab's record format, tier 0.

Times are virtual nanoseconds from the run's start: equal on every machine.
"""

from __future__ import annotations

from collections import Counter

from cancel_lab.records import RunRecord, Status, Sut
from tests.sweep.invariants import violations
from tests.sweep.run import Run
from tests.sweep.scenario import TARGET

SUT = Sut(name="trio-ai-stream")


def row(run: Run) -> RunRecord:
    """Return the row of one run."""
    found = violations(run)
    acts = run.injections
    first = acts[0] if acts else None
    state = next((one.state for one in acts if one.state), None) or ()
    records = [r for r in run.world.records if r.request_id == TARGET]
    status = Status.VIOLATED if found else Status.PASS
    if run.injector.hung:
        status = Status.HUNG
    elif first is not None and first.hit is False:
        status = Status.SKIPPED if not found else status
    return RunRecord(
        run_id=str(run.token),
        tier="0",
        sut=SUT,
        experiment="sweep",
        cause="+".join(one.cause.name for one in acts) or "none",
        phase=first.phase if first is not None and first.phase else "none",
        transport="memory",
        policy=run.token.scenario,
        status=status,
        seed=run.token.seed,
        k=first.k if first is not None else None,
        violations=[f"{name}: {what}" for name, what in found],
        times={
            "t_cause": _ns(first.at if first is not None else None),
            "t_exit": _ns(run.world.ended_at),
        },
        verdicts=dict(Counter(fate for _, _, fate in state)),
        sites=sorted({f"{path}:{line}" for _, own, _ in state for path, line in own}),
        cause_recorded=records[0].outcome.value if records else None,
        replay=str(run.token),
    )


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)
