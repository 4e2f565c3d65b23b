"""The instrument: counts the boundaries of one run, acts at some of them, and watches.

Trio runs one task step at a time, so whatever is outside the program takes effect
between two steps: after a step of any task, or after a wait for I/O or time that woke
somebody. Those are the boundaries. They are counted while the body runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from trio_sweep import internals
from trio_sweep.places import (
    Site,
    labelled_scopes,
    name_of,
    opener_of,
    program_scopes,
    shielded_by_library,
    sites_of,
    where,
)
from trio_sweep.program import CANCEL, SCOPE, Cause, Program
from trio_sweep.threads import Lockstep
from trio_sweep.token import Token
from trio_sweep.trace import Trace

IDLE_LOOPS: Final = 50  # in a row: nobody is due and no deadline is set
GENTLE: Final = 200  # attempts to end a run by cancels, before force
State = tuple[tuple[str, str, str], ...]  # of each task: name, place, fate
Step = tuple[str, float]  # who stepped, and when


class BrokenUp(BaseException):
    """Ends a task by force."""


@dataclass(slots=True)
class Act:
    """One thing that is done, and what it met."""

    k: int
    cause: str
    at: float | None = None  # virtual time; None: it met nothing, or nobody came to it
    scope: trio.CancelScope | None = None  # that it cancelled
    state: State = ()
    sites: frozenset[Site] = frozenset()  # at which it met a suspended task
    fate_known: bool = False

    @property
    def landed(self) -> bool:
        """Whether there was something to act upon."""
        return self.at is not None


@dataclass(frozen=True, slots=True)
class Boundary:
    """What a survey sees at one boundary.

    `state` is the same number, in this process and in those that it forks, wherever
    every task of the run is suspended at the same lines, in scopes that were opened by
    the same functions, is as due to run, and as cancelled; `body` is that of the body's
    own tasks.
    """

    state: int
    body: int
    causes: tuple[str, ...]  # that can act here; without those of the scopes inside
    labels: tuple[str, ...]  # of these scopes, if they are not cancelled
    places: dict[str, str]  # task: innermost place


@dataclass(slots=True)
class Survey:
    """What is noted of the boundaries from `since` on.

    To find the labels of scopes takes long, so `known` keeps them by the body's state.
    """

    since: int = 0
    labels: bool = True
    places: bool = False
    known: dict[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Seen:
    """What the instrument has seen of a run."""

    steps: list[Step] = field(default_factory=list)
    survey: list[Boundary] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)  # to whom no shield was above
    unbounded: list[str] = field(default_factory=list)  # shields without a deadline
    long: list[str] = field(default_factory=list)  # shields beyond the limit
    observed: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    forced: bool = False
    count: int = 0  # of all steps, also those around the body's
    excused_until: float = float("-inf")  # deadlines of shields that were waited for


class Injector(trio.abc.Instrument):
    """Carries out a token's acts in one run."""

    def __init__(
        self,
        program: Program,
        token: Token,
        lockstep: Lockstep,
        *,
        most_steps: int,
        survey: Survey | None,
        tracer: Trace | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.seen = Seen()
        self.acts = [Act(k, cause) for k, cause in token.acts]
        self.scope: trio.CancelScope | None = None  # around the body
        self.root: trio.CancelScope | None = None  # around everything
        self.env: Any = None
        self.body_tasks: set[internals.Task] = set()  # the body's and what they spawn
        self.error: BaseException | None = None  # of the program's own causes
        self._program = program
        self._token = token
        self._lockstep = lockstep
        self._most_steps = most_steps
        self._survey = survey
        self._tracer = tracer
        self._stopping = stopping
        self._suspended: dict[internals.Task, int] = {}  # where each task is
        self._idle = self._woken = self._broken = 0
        self.cancelled_at: float | None = None  # the body's own scope, by an act

    def forget(self) -> None:
        """Let go of all tasks of the run, and what they hold."""
        self.body_tasks.clear()
        self._suspended.clear()

    def before_io_wait(self, timeout: float) -> None:
        """Let threads run; notice when nobody can wake anybody any more."""
        if (thread := self._lockstep.run()) is not None:
            self._broken = max(self._broken, GENTLE)
            self._break_up(f"the thread {thread!r} does not return")
        self._idle += 1
        self._woken = 0
        if self._stopping():
            self._break_up("interrupted")
        elif self._idle > IDLE_LOOPS or (self.seen.hung and self._idle > 1):
            self._break_up("nobody is due, and no deadline is set")
        if self.seen.forced:
            self._wake_by_force()

    def task_spawned(self, task: internals.Task) -> None:
        """Remember what the body starts, wherever it starts it."""
        try:
            spawner = trio.lowlevel.current_task()
        except RuntimeError:
            return
        if spawner in self.body_tasks:
            self.body_tasks.add(task)

    def task_scheduled(self, task: internals.Task) -> None:
        """Note that somebody is due."""
        self._woken += 1

    def before_task_step(self, task: internals.Task) -> None:
        """The first step after a wait is a boundary of its own: who woke is due."""
        if self._idle and self._woken:
            self._boundary("io")
        self._idle = self._woken = 0
        if self.seen.forced and self._is_programs(task):
            internals.end_by_force(task, BrokenUp())
        elif self.cancelled_at is not None:
            self._note_delivery(task)

    def after_task_step(self, task: internals.Task) -> None:
        """Every step ends in a boundary."""
        self._suspended.pop(task, None)  # it is elsewhere now
        self.seen.count += 1
        if self.seen.count > self._most_steps or self._stopping():
            self._break_up(f"more than {self._most_steps} steps: it runs in circles")
        self._boundary(name_of(task))

    def _boundary(self, who: str) -> None:
        scope = self.scope
        if scope is None or not internals.entered(scope):
            return
        seen, k, now = self.seen, len(self.seen.steps), trio.current_time()
        due = [act for act in self.acts if act.k == k]
        late = [act for act in self.acts if act.landed and not act.fate_known]
        survey = self._survey is not None and k >= self._survey.since
        if survey or due or late or self.cancelled_at is not None:
            tasks = internals.tasks_below(scope)
            if survey:
                seen.survey.append(self._look(scope, tasks))
            if self._program.observe is not None:
                self._observe()
            for act in due:
                self._act(act, scope, tasks, now)
            for act in late:
                self._note_fates(act, tasks)
            if self.cancelled_at is not None:
                self._note_shields(tasks, now)
        elif self._program.observe is not None:
            self._observe()
        seen.steps.append((who, now))

    def _look(self, scope: trio.CancelScope, tasks: list[internals.Task]) -> Boundary:
        survey = self._survey
        assert survey is not None
        assert self.root is not None
        state = sum(map(self._place, internals.tasks_below(self.root)))
        body = sum(map(self._place, tasks))
        causes = [] if internals.is_cancelled(scope) else [CANCEL]
        causes += [
            name for name, cause in self._program.causes.items() if self._applies(cause)
        ]
        if survey.labels and body not in survey.known:
            survey.known[body] = tuple(
                label
                for label, one in labelled_scopes(scope, tasks).items()
                if not internals.is_cancelled(one)
            )
        return Boundary(
            state,
            body,
            tuple(causes),
            survey.known.get(body, ()),
            {name_of(task): where(task) for task in tasks} if survey.places else {},
        )

    def _place(self, task: internals.Task) -> int:
        """Return a number for where a task is; see `Boundary`."""
        place, scopes = self._suspended.get(task), internals.scopes_of(task)
        if place is None:
            openers = (id(opener_of(scope)) for scope in scopes)
            place = hash((name_of(task), *sites_of(task), *openers))
            self._suspended[task] = place
        flags = tuple(map(internals.is_cancelled, scopes))
        return hash((place, internals.awaiting(task), flags))

    def _observe(self) -> None:
        assert self._program.observe is not None
        try:
            complaint = self._program.observe(*self._program.arguments(self.env))
        except Exception as exc:
            complaint = f"observe itself fails: {type(exc).__name__}: {exc}"
        if complaint and complaint not in self.seen.observed:
            self.seen.observed.append(complaint)

    def _act(
        self,
        act: Act,
        scope: trio.CancelScope,
        tasks: list[internals.Task],
        now: float,
    ) -> None:
        with internals.outside_of_tasks():
            hit = self._carry_out(act, scope, tasks)
        if hit is False:
            return
        act.at = now
        act.scope = hit if isinstance(hit, trio.CancelScope) else None
        if self._tracer is not None:
            self._tracer.note(act.cause)
        if act.scope is scope and self.cancelled_at is None:
            self.cancelled_at = now
        self._note_fates(act, tasks)

    def _carry_out(
        self, act: Act, scope: trio.CancelScope, tasks: list[internals.Task]
    ) -> trio.CancelScope | bool | None:
        reason = f"trio-sweep {self._token}"
        if act.cause == CANCEL or act.cause.startswith(SCOPE):
            label = act.cause.removeprefix(SCOPE)
            inside = {} if act.cause == CANCEL else labelled_scopes(scope, tasks)
            target = scope if act.cause == CANCEL else inside.get(label)
            if target is None or internals.is_cancelled(target):
                return False
            target.cancel(reason=reason)
            return target
        cause = self._program.causes[act.cause]
        try:
            return self._applies(cause) and cause.act(self.env)
        except Exception as exc:
            self.error = exc
            return False

    def _applies(self, cause: Cause) -> bool:
        try:
            return cause.applies(self.env)
        except Exception as exc:
            self.error = exc
            return False

    def _note_fates(self, act: Act, tasks: list[internals.Task]) -> None:
        """Note what an act did to each task, once some scope has been cancelled."""
        called = act.scope is not None or any(
            internals.called_explicitly(scope)
            for task in tasks
            for scope in internals.scopes_of(task)
        )
        fates = [(task, fate_of(task)) for task in tasks]
        if called or not act.state:
            act.state = tuple(
                sorted((name_of(task), where(task), fate) for task, fate in fates)
            )
        if called:
            act.fate_known = True
            act.sites = frozenset(
                site
                for task, fate in fates
                if fate != "spared"
                for site in sites_of(task)
            )

    def _note_delivery(self, task: internals.Task) -> None:
        """Note a Cancelled that the body's scope will catch, unless it is lost."""
        scopes = internals.scopes_of(task)
        if internals.pending_cancelled(task) is None or self.scope not in scopes:
            return
        inside = scopes[scopes.index(self.scope) + 1 :]
        if not any(map(internals.is_shield, inside)):
            self.seen.delivered.append(f"{name_of(task)} at {where(task)}")

    def _note_shields(self, tasks: list[internals.Task], now: float) -> None:
        """Look at the shields that tasks wait behind after a cancel."""
        for task in tasks:
            if not internals.awaiting(task):
                continue
            deadline, behind = float("inf"), False
            for scope in reversed(program_scopes(task)):
                if scope is self.scope:
                    break
                deadline = min(deadline, scope.deadline)
                if not internals.is_shield(scope):
                    continue
                behind = True
                if deadline == float("inf") and not shielded_by_library(task):
                    _add(self.seen.unbounded, where(task))
                elif deadline - now > self._program.shield_limit_s + 1e-9:
                    _add(self.seen.long, f"{deadline - now:.3f} s at {where(task)}")
            if behind and deadline < float("inf"):
                self.seen.excused_until = max(self.seen.excused_until, deadline)

    def _break_up(self, how: str) -> None:
        """End a run that would not end: cancel it, in the end by force."""
        root = self.root
        if root is None or not internals.entered(root):
            return
        tasks = internals.tasks_below(root)
        if not self.seen.hung:
            mine = [task for task in tasks if task in self.body_tasks] or tasks
            self.seen.hung = [how] + [f"{name_of(t)} at {where(t)}" for t in mine]
        self._broken += 1
        internals.lift_shields(root)
        root.cancel(reason="trio-sweep ends a run that hangs")
        if self._broken > GENTLE:
            self.seen.forced = True

    def _is_programs(self, task: internals.Task) -> bool:
        assert self.root is not None
        return self.root in internals.scopes_of(task)

    def _wake_by_force(self) -> None:
        """Wake who takes no cancel, such as one that waits for a stuck thread."""
        if self.root is None or not internals.entered(self.root):
            return
        for task in internals.tasks_below(self.root):
            parent = any(nursery.child_tasks for nursery in task.child_nurseries)
            if internals.awaiting(task) and not parent:
                internals.wake_by_force(task, BrokenUp())


def fate_of(task: internals.Task) -> str:
    """Say what a cancel that was just called did to a task.

    delivered: it wakes with Cancelled. deferred: it is due with a result, and gets
    Cancelled at its next checkpoint. refused: what it waits for takes no cancel, as a
    thread. shielded: it waits behind a shield. spared: it is not meant.
    """
    if internals.effectively_cancelled(task):
        if internals.pending_cancelled(task) is not None:
            return "delivered"
        return "refused" if internals.awaiting(task) else "deferred"
    called = any(map(internals.called_explicitly, internals.scopes_of(task)))
    return "shielded" if called else "spared"


def _add(into: list[str], what: str) -> None:
    if what not in into:
        into.append(what)
