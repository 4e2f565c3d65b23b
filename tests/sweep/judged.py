"""A run that is over, as the invariants look at it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.sweep.causes import CALL, CAUSES, Met, cause_of_scope
from tests.sweep.world import World
from trio_sweep.program import CANCEL, SCOPE
from trio_sweep.run import Run


@dataclass(slots=True)
class Judged:
    """`acts` are those that met something; `cut` are the labels of cancelled scopes.

    A scope of the program is cancelled as by its own deadline. Two promises need not
    hold then, and `sweeping.py:ALLOWED` says so: `untold`, the time for the terminal
    event was over; `unkept`, the time for what follows an answer was.
    """

    world: World
    acts: list[Met]
    cut: list[str]

    @property
    def untold(self) -> bool:
        """Whether the terminal event had no time."""
        return any(label.endswith(":terminal_scope") for label in self.cut)

    @property
    def unkept(self) -> bool:
        """Whether the clean-up had no time."""
        return any(label.endswith(":relay:0") for label in self.cut)

    @classmethod
    def of(cls, world: World, run: Run) -> Judged:
        """Put together what the world and the sweep know of a run."""
        noted, acts, cut = list(world.met), [], []
        for act in run.acts:
            if act.at is None:
                continue
            if act.cause == CANCEL or act.cause.startswith(SCOPE):
                label = act.cause.removeprefix(SCOPE)
                cause = CALL if act.cause == CANCEL else cause_of_scope(label)
                assert cause is not None
                cut += [label] * (act.cause != CANCEL)
                ended = world.ended_at_tick
                decided = ended is not None and ended <= act.k
                hit = act.scope or True
                met = Met(act.k, cause, act.at, hit=hit, decided=decided)
            else:
                met = noted.pop(0)
                assert met.cause is CAUSES[act.cause]
            met.fates = tuple(fate for _, _, fate in act.state)
            acts.append(met)
        return cls(world, acts + noted, cut)  # noted: at a time, not at a boundary
