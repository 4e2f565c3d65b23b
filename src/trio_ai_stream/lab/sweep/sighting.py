"""What is to be seen at rest, after the swept request has ended and before all else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from trio_ai_stream.lab.sweep.scenario import TARGET
from trio_ai_stream.lab.trace import internals

if TYPE_CHECKING:
    from trio_ai_stream.lab.sweep.world import World


@dataclass(frozen=True, slots=True)
class Sighting:
    """The leak counters of one run, at one instant."""

    at: float
    tasks_below: tuple[str, ...]  # the request's own, which should be over
    server_tasks: tuple[str, ...]
    live_streams: tuple[str, ...]
    permits_held: int
    open_wires: int
    generating: int  # open requests as upstream sees them, of the target
    async_generators: int
    dials: int


def sight(world: World) -> Sighting:
    """Look around, once all is quiet."""
    return Sighting(
        at=trio.current_time(),
        tasks_below=tuple(t.name for t in internals.tasks_below(world.client.scope)),
        server_tasks=tuple(
            task.name for task in internals.tasks_below(world.server_scope)
        ),
        live_streams=tuple(stream.request_id for stream in world.registry),
        permits_held=world.app.services.gate.status().permits.held,
        open_wires=len(world.network.live_wires()),
        generating=sum(
            record.request_id == TARGET for record in world.ledger.live.values()
        ),
        async_generators=internals.living_async_generators(),
        dials=len(world.network.dials),
    )
