"""One run of a sweep again, with all that it did, boundary by boundary."""

from __future__ import annotations

from pathlib import Path

from tests.sweep.injector import Survey
from tests.sweep.invariants import violations
from tests.sweep.labels import Site
from tests.sweep.run import Run, quiet, run_once
from tests.sweep.scenario import TARGET
from tests.sweep.scenarios import SCENARIOS
from tests.sweep.token import Token
from trio_ai_stream.tracing import internals
from trio_ai_stream.tracing.instrument import TraceInstrument, VirtualClock
from trio_ai_stream.tracing.trace_sink import TraceSink


def replay(token: Token, trace: Path | None = None) -> tuple[str, bool]:
    """Run a token; return what happened as text, and whether anything is wrong.

    With `trace` the run's Chrome trace goes there, in virtual time.

    :raises KeyError: for a scenario or a cause that does not exist.
    """
    internals.self_test()
    survey = Survey()
    with quiet():
        if trace is None:
            run = run_once(token, survey=survey)
        else:
            with TraceSink(trace, title=str(token)) as sink:
                drawn = TraceInstrument(sink, VirtualClock())
                run = run_once(token, survey=survey, drawn=drawn)
    return _text(run, survey), bool(violations(run))


def _text(run: Run, survey: Survey) -> str:
    scenario = SCENARIOS[run.token.scenario]
    lines = [f"{run.token}: {scenario.about}"]
    acts = {one.k: one for one in run.injections}
    before: dict[str, Site] = {}
    for number, (who, at) in enumerate(run.trace):
        places = survey.places[number]
        moved = {name: at for name, at in places.items() if before.get(name) != at}
        gone = [f"{name} over" for name in before if name not in places]
        before = places
        where = ", ".join(
            [f"{name} at {path}:{line}" for name, (path, line) in moved.items()] + gone
        )
        lines.append(f"{number:4} {at:8.3f} {who.rsplit('.', 1)[-1]:12} {where}")
        if number in acts:
            one = acts[number]
            met = "" if one.hit is not False else ", which meets nothing"
            lines.append(f"     ---- {one.cause.name} in {one.phase}{met}")
            for task, sites, fate in one.state or ():
                there = f"{sites[-1][0]}:{sites[-1][1]}" if sites else "elsewhere"
                lines.append(f"          {task}: {fate} at {there}")
    lines += _ending(run)
    return "\n".join(lines) + "\n"


def _ending(run: Run) -> list[str]:
    mine = [record for record in run.world.records if record.request_id == TARGET]
    outcome = mine[0].outcome.value if mine else "no stream"
    lines = [f"ended at {run.world.ended_at} s: {outcome}"]
    lines += [
        f"shield at {one.where}: {(one.until or one.since) - one.since:.3f} s of"
        f" {one.bound_s:.3f} s"
        for one in run.injector.shields.intervals
    ]
    found = violations(run)
    lines += [f"VIOLATED {name}: {what}" for name, what in found]
    return lines if found else [*lines, "every invariant holds"]
