"""What must hold of every run, each by a name under which it can be switched off."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from trio_sweep.program import CANCEL, SCOPE, Program
from trio_sweep.run import Run

EPSILON_S: Final = 1e-6
_ADDRESS: Final = re.compile(r"\b(0x)?(?=[0-9a-f]*\d)[0-9a-f]{8,16}\b")
_VARYING: Final = re.compile(
    r"\d+(\.\d+)?(?= s\b)|\b\d{4,}\b|(?<=fd=)\d+|(?<=from task )<Task [^>]*>"
    r"|(?<=FileIO name=)\d+|(?<=subprocess )\d+"
)
INVARIANTS: Final[dict[str, str]] = {
    "undisturbed": "the body works as long as nobody cancels it",
    "deterministic": "one token gives one run, also after many others",
    "ends": "the run ends: nobody waits for ever or runs in circles",
    "at-once": "a cancelled body ends in no time, or within its shields' deadlines",
    "not-swallowed": "a body that was delivered Cancelled does not return as if not",
    "not-replaced": "no other exception comes out of a cancelled body",
    "not-escaped": "what surrounds the body, and who was not cancelled, goes on",
    "tasks": "no task is left that an undisturbed run does not leave",
    "connections": "no connection in memory is left open",
    "descriptors": "no file descriptor is left open",
    "generators": "no async generator is left suspended",
    "threads": "no thread is left",
    "resource-warning": "nothing is left to the garbage collector to close",
    "unawaited": "no coroutine is made that nobody awaits",
    "unraisable": "no exception is lost in a destructor or a thread",
    "logged": "nothing is logged as an error",
    "shield-bounded": "every shield that a cancelled task waits behind has a deadline",
    "shield-limit": "no such deadline is further away than shield_limit_s",
    "usable": "what the world yields still works (`after`)",
    "state": "its state is right (`check`, `observe`)",
    "excuse": "an await site that is excused is one that no act met",
}


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One invariant that did not hold in one run."""

    invariant: str
    text: str

    @property
    def kind(self) -> tuple[str, str]:
        """What is the same in other runs: the text without numbers that vary."""
        text = re.sub(r"trio-sweep \d\S*", "trio-sweep", self.text)
        return self.invariant, _VARYING.sub("…", text)


def violations(run: Run, program: Program, base: Run | None = None) -> list[Violation]:
    """Return what does not hold of a run; `base` is the undisturbed one of its seed."""
    found = _all(run, program, base)
    return [Violation(name, _ADDRESS.sub("…", text)) for name, text in found]


def _all(run: Run, program: Program, base: Run | None) -> Iterator[tuple[str, str]]:
    if run.seen.hung:
        forced = ["cancels did not end it: it was ended by force"] * run.seen.forced
        yield "ends", "; ".join(run.seen.hung + forced)
    elif run.cancelled_at is not None:
        yield from _of_a_cancelled_body(run, program)
    elif run.error is not None:
        yield from _of_a_body_that_raised(run, program)
    if run.escaped is not None:
        yield "not-escaped", f"the surroundings ended with {run.escaped.text}"
    if not run.seen.hung:
        yield from _left(run, base)
        yield from _deadlines_of_causes(run, program)
    yield from (("shield-bounded", f"waits at {one}") for one in run.seen.unbounded)
    yield from (("shield-limit", one) for one in run.seen.long)
    yield from run.complaints
    yield from (("state", one) for one in (*run.seen.observed, *run.checked))
    if run.unusable is not None:
        yield "usable", run.unusable


def _of_a_cancelled_body(run: Run, program: Program) -> Iterator[tuple[str, str]]:
    if run.error is not None:
        if not run.error.only(_allowed(run, program)):
            yield "not-replaced", f"the cancelled body raised {run.error.text}"
    elif not run.caught and run.seen.delivered:
        places = "; ".join(dict.fromkeys(run.seen.delivered))
        yield "not-swallowed", f"it returned after Cancelled was delivered: {places}"
    assert run.cancelled_at is not None
    ended = run.left_at or run.cancelled_at
    late = ended - max(run.cancelled_at, run.seen.excused_until)
    if late > EPSILON_S:
        yield "at-once", f"it ended {ended - run.cancelled_at:.3f} s after the cancel"


def _of_a_body_that_raised(run: Run, program: Program) -> Iterator[tuple[str, str]]:
    assert run.error is not None
    if not run.acts:
        yield "undisturbed", f"the body raised {run.error.text}"
    elif not run.error.only(_allowed(run, program)):
        yield "not-escaped", f"the body raised {run.error.text}"


def _allowed(run: Run, program: Program) -> tuple[type[BaseException], ...]:
    """Return what may come out of the body: that which its causes bring about.

    An inner scope that is cancelled before the outer one may turn into any error, such
    as TooSlowError. Once the body is cancelled, only the causes' own errors may follow.
    """
    allowed: list[type[BaseException]] = []
    before = True
    for act in run.acts:
        if not act.landed:
            continue
        if act.cause == CANCEL:
            before = False
        elif act.cause.startswith(SCOPE):
            allowed += [Exception] if before else []
        else:
            allowed += program.causes[act.cause].raises
    return tuple(allowed)


def _left(run: Run, base: Run | None) -> Iterator[tuple[str, str]]:
    tasks = run.tasks_left - (base.tasks_left if base else Counter())
    generators = run.generators_left - (base.generators_left if base else Counter())
    if tasks and base is not None:
        yield "tasks", "left: " + ", ".join(sorted(tasks.elements()))
    if generators and base is not None:
        yield "generators", "suspended: " + ", ".join(sorted(generators.elements()))
    if base is not None and run.connections_left > base.connections_left:
        more = run.connections_left - base.connections_left
        yield "connections", f"{more} left open after the body ended"
    elif run.connections_open:
        yield "connections", f"{run.connections_open} still open after everything ended"
    if run.descriptors_left:
        yield "descriptors", "left open: " + ", ".join(sorted(run.descriptors_left))
    if run.threads_left:
        yield "threads", "left: " + ", ".join(run.threads_left)


def _deadlines_of_causes(run: Run, program: Program) -> Iterator[tuple[str, str]]:
    for act in run.acts:
        cause = program.causes.get(act.cause)
        if cause is None or cause.within_s is None or act.at is None:
            continue
        took = (run.left_at or act.at) - act.at
        if took > cause.within_s + EPSILON_S:
            yield "at-once", f"it ended {took:.3f} s after {act.cause}"
