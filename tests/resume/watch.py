"""What is seen of a run while it goes on: its steps, and what must hold at each.

These are the invariants of docs/cancellation-sweep.md that can be seen from outside a
resumable stream; `pairs.py` looks at the others once the run is over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import trio

from tests.support.world import World
from tests.sweep.sighting import counts_of
from trio_ai_stream.stream.budgets import REUSE_S
from trio_ai_stream.wire.record import Outcome
from trio_sweep import internals
from trio_sweep.resources import listening

OURS: Final = "trio_ai_stream"
NAME: Final = "mine"  # the id of the stream that is watched


class Watch(trio.abc.Instrument):
    """Does what is planned before the step that it is planned for, and looks around."""

    def __init__(self, w: World) -> None:
        self.steps = 0
        self.complaints: list[str] = []
        self.on_step: Callable[[], None] | None = None
        self._w = w
        self._acts: dict[int, Callable[[], None]] = {}
        self._tasks: Counter[str] = Counter()
        self._sent_late = 0
        self._generators = internals.living_async_generators()
        self._counts = counts_of(w.services.metrics)
        w.on_upstream = self._wrap

    def plan(self, acts: Iterable[tuple[int, Callable[[], None]]]) -> None:
        """Have these done, each before its step."""
        self._acts = dict(acts)

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        """Count the step; look; act if it is time."""
        self.steps += 1
        self._look()
        if self.on_step is not None:
            self.on_step()
        act = self._acts.pop(self.steps, None)
        if act is not None:
            try:
                act()
            except Exception as exc:
                self.complain(f"{exc!r} of an act")
            self._look()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Count a task."""
        self._tasks[task.name] += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Count it no longer."""
        self._tasks[task.name] -= 1

    def complain(self, what: str) -> None:
        """Note what is wrong, once."""
        if what not in self.complaints:
            self.complaints.append(what)

    def _ended_early(self) -> bool:
        stream = self._w.services.registry.get(NAME)
        ending = None if stream is None else stream.ending
        return ending is not None and ending.outcome is not Outcome.COMPLETED

    def _look(self) -> None:
        """I1: who has its ending holds no connection to upstream any more."""
        if self._ended_early() and self._w.transport.statistics().live:
            self.complain("I1: upstream is held after the ending")

    def _wrap(self, stream: trio.abc.Stream) -> None:
        """I11: nothing is sent to upstream once the ending is decided."""
        assert isinstance(stream, trio.StapledStream)
        sender = stream.send_stream
        assert isinstance(sender, trio.testing.MemorySendStream)
        pump = sender.send_all_hook

        async def send() -> None:
            self._sent_late += self._ended_early()
            if self._sent_late > 1:  # one may be under way
                self.complain("I11: upstream is sent something after the ending")
            if pump is not None:
                await pump()

        sender.send_all_hook = send

    def look_back(self) -> int:
        """Look at what is left, once all is quiet; return how many connections are."""
        w = self._w
        idle = w.transport.statistics().idle
        left = +self._tasks
        # A connection that is kept has the simulator's task at its other end.
        left.subtract({name: idle for name in left if name.endswith("._simulate")})
        if +left:
            self.complain(f"I2: tasks are left: {dict(+left)}")
        expected: Counter[tuple[str, ...]] = Counter()
        for record in w.records:
            fault = record.fault or "none"
            expected["streams", record.endpoint, record.outcome, fault] += 1
        counted = counts_of(w.services.metrics)
        counted.subtract(self._counts)
        for key in {*counted, *expected}:
            if key[0].startswith("streams") and counted[key] != expected[key]:
                self.complain(f"I3: {key} counts {counted[key]}, not {expected[key]}")
        if internals.living_async_generators() != self._generators:
            self.complain("I7: an async generator is left suspended")
        return idle

    @contextmanager
    def listening(self) -> Iterator[None]:
        """I5 and I10: no shield without a near deadline, no error that is logged."""
        said: list[tuple[str, str]] = []

        def note(scope: trio.CancelScope, frame: FrameType) -> None:
            ours = str(frame.f_globals.get("__name__", "")).startswith(OURS)
            if ours and scope.shield:
                left_s = scope.deadline - trio.current_time()
                if min(left_s, scope.relative_deadline) > REUSE_S + 1e-9:
                    self.complain(f"I5: a shield at {frame.f_code.co_qualname}")

        trio.lowlevel.add_instrument(self)
        try:
            with listening(said), internals.noting_scopes(note):
                yield
        finally:
            trio.lowlevel.remove_instrument(self)
        for kind, text in said:
            self.complain(f"I10: {kind}: {text}")
