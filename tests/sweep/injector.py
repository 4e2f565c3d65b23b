"""The instrument: counts the boundaries of one run, acts at one of them, and watches.

Trio runs one task step at a time, so whatever is outside the program acts between two
steps: after a step of any task, or after a wait for I/O or time that woke somebody.
Those are the boundaries. They are counted while the swept request is being served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from tests.sweep.causes import Cause
from tests.sweep.labels import Site, labelled_scopes, sites_of
from tests.sweep.shields import ShieldLog
from trio_ai_stream.tracing import internals

if TYPE_CHECKING:
    from tests.sweep.world import World

IDLE_LOOPS: Final = 50  # in a row: nobody is due, no deadline is set
STEPS: Final = 20_000  # far beyond any scenario: somebody runs in circles
Tag = tuple[str, float]
TaskState = tuple[str, tuple[Site, ...], str]  # (task, where it was, verdict)
State = tuple[TaskState, ...]


@dataclass(slots=True)
class Injection:
    """One act of a run, and what it met."""

    k: int
    cause: Cause
    at: float | None = None  # virtual time; None: the run ended before k
    hit: trio.CancelScope | bool = False
    phase: str = ""
    decided: bool = False  # the stream's ending was decided before
    done: bool = False  # upstream had finished its answer
    begun: bool = False  # content had been delivered, and upstream was not done
    finished: bool = False  # upstream had given its finish_reason
    state: State | None = None


@dataclass(slots=True)
class Survey:
    """What an undisturbed run passes through, boundary by boundary."""

    sites: list[frozenset[Site]] = field(default_factory=list)
    places: list[dict[str, Site]] = field(default_factory=list)  # innermost, by task
    scopes: list[tuple[str, ...]] = field(default_factory=list)


class Injector(trio.abc.Instrument):
    """Acts `injections` upon the world of one run."""

    def __init__(
        self,
        injections: list[Injection],
        survey: Survey | None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.world: World | None = None
        self.injections = injections
        self.survey = survey
        self.note = note
        self.trace: list[Tag] = []
        self.shields = ShieldLog()
        self.ended_at_tick: int | None = None
        self.held_after_end: int | None = None  # a boundary with upstream still held
        self.hung: list[str] = []
        self._open: list[Injection] = []  # whose effect has not been seen yet
        self._loops = 0
        self._steps = 0
        self._woken = 0

    @property
    def tick(self) -> int:
        """The boundary that comes next."""
        return len(self.trace)

    def act_now(self, injection: Injection) -> None:
        """Act between two boundaries, if the request is still being served."""
        if self.world is not None and internals.entered(self.world.client.scope):
            self._observe(self.world)
            self._act(injection, self.world, trio.current_time())

    def before_io_wait(self, timeout: float) -> None:
        """Count idle loops: where nobody can wake anybody, the run would never end."""
        self._loops += 1
        self._woken = 0
        if self._loops > IDLE_LOOPS or (self.hung and self._loops > 1):
            self._break_up("blocked")

    def task_scheduled(self, task: internals.Task) -> None:
        """Note that somebody is due."""
        self._woken += 1

    def before_task_step(self, task: internals.Task) -> None:
        """The first step after a wait: what time or I/O woke is due, nobody ran."""
        if self._loops and self._woken:
            self._boundary("io")
        self._loops = 0
        self._woken = 0

    def after_task_step(self, task: internals.Task) -> None:
        """Every step ends in a boundary."""
        self._steps += 1
        if self._steps > STEPS:
            self._break_up("running in circles")
        self._boundary(task.name)

    def _boundary(self, who: str) -> None:
        world = self.world
        if world is None or not internals.entered(world.client.scope):
            return
        now = trio.current_time()
        self._observe(world)
        self.shields.look(internals.tasks_below(world.client.scope), now)
        if self.survey is not None:
            self._record(self.survey, world)
        for injection in self.injections:
            if injection.k == self.tick:
                self._act(injection, world, now)
        if self._open:
            self._open = [one for one in self._open if not self._verdict(one, world)]
        self.trace.append((who, now))

    def _observe(self, world: World) -> None:
        stream = world.look_for_stream()
        if stream is None:
            return
        ended = stream.ending is not None
        if ended and self.ended_at_tick is None:
            self.ended_at_tick = self.tick
        if ended and not stream.completed and stream.response is not None:
            self.held_after_end = self.tick

    def _act(self, injection: Injection, world: World, now: float) -> None:
        stream = world.stream
        injection.at = now
        injection.phase = "admission" if stream is None else stream.state.value
        injection.decided = stream is not None and stream.ending is not None
        wires = world.wires_of_target()
        injection.done = any(b"[DONE]" in wire.answered for wire in wires)
        begun = stream is not None and stream.events > 0
        injection.begun = begun and not injection.done
        if stream is not None:
            injection.finished = stream.answer.finish_reason is not None
        if self.note is not None:
            self.note(injection.cause.name)
        injection.hit = injection.cause.act(world)
        if injection.hit is not False:
            self._open.append(injection)

    def _verdict(self, injection: Injection, world: World) -> bool:
        """Note what became of each task, once the act's cancel has been called."""
        tasks = internals.tasks_below(world.client.scope)
        if isinstance(injection.hit, trio.CancelScope):
            called = internals.is_cancelled(injection.hit)
        else:
            called = any(
                internals.called_explicitly(scope)
                for task in tasks
                for scope in internals.scopes_of(task)
            )
        if called:
            injection.state = tuple(
                sorted((_name(task), sites_of(task), _fate(task)) for task in tasks)
            )
        return called

    @staticmethod
    def _record(survey: Survey, world: World) -> None:
        tasks = internals.tasks_below(world.client.scope)
        where = {_name(task): sites_of(task) for task in tasks}
        survey.sites.append(frozenset(site for own in where.values() for site in own))
        survey.places.append({name: own[-1] for name, own in where.items() if own})
        survey.scopes.append(tuple(labelled_scopes(world.client.scope)))

    def _break_up(self, how: str) -> None:
        """End a run that would not end: note where it hangs, lift the shields."""
        world = self.world
        assert world is not None
        if not self.hung:
            self.hung = [how]
            for task in internals.tasks_below(world.root):
                where = [f"{path}:{line}" for path, line in sites_of(task)]
                self.hung += [f"{_name(task)} at {where[-1]}"] if where else []
        internals.lift_shields(world.root)
        world.root.cancel(reason="hung")


def _name(task: internals.Task) -> str:
    return task.name.rsplit(".", 1)[-1]


def _fate(task: internals.Task) -> str:
    """Say what a cancel that was just called did to a task."""
    if internals.effectively_cancelled(task):
        hit = internals.pending_cancelled(task) is not None
        return "delivered" if hit else "deferred"
    scopes = internals.scopes_of(task)
    if any(internals.called_explicitly(scope) for scope in scopes):
        return "shielded"
    return "spared"
