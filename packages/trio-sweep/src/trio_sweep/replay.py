"""One run again, step by step, as text."""

from __future__ import annotations

from pathlib import Path

from trio_sweep.engine import Sweep
from trio_sweep.injector import Act
from trio_sweep.run import Run
from trio_sweep.token import Token
from trio_sweep.trace import Trace


def replay(sweep: Sweep, text: str, trace: Path | None = None) -> tuple[str, bool]:
    """Run a token; return what happened, and whether every invariant held.

    With `trace` the run is also drawn there.

    :raises TokenError: when the text is no token, or means no run of this program.
    :raises OSError: if the trace cannot be written.
    """
    token = Token.parse(text)
    drawn = None if trace is None else Trace(f"{sweep.report.name} {token}")
    run, found = sweep.replayed(token, tracer=drawn)
    if drawn is not None and trace is not None:
        drawn.write(trace)
    head = f"{sweep.report.name}, {token}"
    wrong = [one for one in found if sweep.allowance(one) is None]
    lines = [head, *_steps(run), *_ending(run)]
    lines += [
        f"{'VIOLATED' if one in wrong else 'allowed'} {one.invariant}: {one.text}"
        for one in found
    ]
    return "\n".join(lines if found else [*lines, "every invariant holds"]), not wrong


def _steps(run: Run) -> list[str]:
    lines = []
    before: dict[str, str] = {}
    for k, boundary in enumerate(run.seen.survey):
        if k < len(run.seen.steps):
            who, at = run.seen.steps[k]
            moved = [
                f"{name} at {place}"
                for name, place in boundary.places.items()
                if before.get(name) != place
            ]
            gone = [f"{name} over" for name in before if name not in boundary.places]
            lines.append(f"{k:4} {at:9.3f} s  {who:16} {', '.join(moved + gone)}")
        before = boundary.places
        for act in run.acts:
            if act.k == k:
                lines += _act(act)
    return lines


def _act(act: Act) -> list[str]:
    lines = [f"     ---- {act.cause}"]
    lines += [f"          {name}: {fate} at {where}" for name, where, fate in act.state]
    return lines


def _ending(run: Run) -> list[str]:
    how = "returned" if run.error is None else f"raised {run.error.text}"
    if run.caught:
        how = "was cancelled"
    if run.seen.hung:
        how = "had to be broken up"
    at = "" if run.left_at is None else f" at {run.left_at:.3f} s"
    return [f"the body {how}{at}"]
