"""A run that is over, as the invariants look at it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.sweep.causes import CALL, CAUSES, Met
from tests.sweep.world import World
from trio_sweep.program import CANCEL, SCOPE
from trio_sweep.run import Run


@dataclass(slots=True)
class Judged:
    """`acts` are those that met something; `cut` are the labels of cancelled scopes."""

    world: World
    acts: list[Met]
    cut: list[str]

    @classmethod
    def of(cls, world: World, run: Run) -> Judged:
        """Put together what the world and the sweep know of a run."""
        noted, acts, cut = list(world.met), [], []
        for act in run.acts:
            if act.at is None:
                continue
            if act.cause.startswith(SCOPE):
                cut.append(act.cause.removeprefix(SCOPE))
                continue
            if act.cause == CANCEL:
                ended = world.ended_at_tick
                decided = ended is not None and ended <= act.k
                met = Met(act.k, CALL, act.at, hit=True, decided=decided)
            else:
                met = noted.pop(0)
                assert met.cause is CAUSES[act.cause]
            met.fates = tuple(fate for _, _, fate in act.state)
            acts.append(met)
        return cls(world, acts + noted, cut)  # noted: at a time, not at a boundary
