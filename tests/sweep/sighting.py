"""What is to be seen at rest, after the swept request has ended and before all else."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from tests.sweep.scenario import TARGET
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.upstream.transport import UpstreamTransport
from trio_ai_stream.upstream.transport.links import ByteLink, SocketLink, StreamLink

if TYPE_CHECKING:
    from tests.sweep.world import World


_SUMS: Final = {
    "sent_bytes": "bytes_out",
    "sent_events": "events",
    "sent_blocks": "blocks",
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """The leak counters of one run, at one instant."""

    at: float
    new_tasks: tuple[str, ...]  # of the whole process, since before the request
    live_streams: tuple[str, ...]
    unwatched: int  # streams that are still in the timer queue
    permits_held: int
    counted: int  # streams that Valkey counts, if it is there and quick
    open_wires: int
    kept_wires: int  # of them those that the target has used
    idle: int  # connections as the pool counts them
    in_use: int
    generating: int  # open requests as upstream sees them, of the target
    dials: int
    miscounted: tuple[str, ...]  # metrics that differ from the records, or the registry


def tasks_of_server() -> Counter[str]:
    """Count the tasks of this run by name, upstream's and Valkey's connections aside.

    Those to Valkey are the process's: its client opens one more when two ask at once,
    and who connects anew asks first what answers.
    """
    names: Counter[str] = Counter()
    root = trio.lowlevel.current_root_task()
    todo = [] if root is None else [root]
    while todo:
        task = todo.pop()
        theirs = task.name in {"upstream connection", "_watch", "body"}
        link = task.name.startswith("coredis.") or task.name.endswith(".refuse_cluster")
        names[task.name] += not (theirs or link)
        for nursery in task.child_nurseries:
            todo += nursery.child_tasks
    return names


def _transport(world: World) -> UpstreamTransport:
    upstream = world.app.services.upstream
    held = vars(getattr(upstream, "inner", upstream)).values()
    inner = [getattr(value, "_transport", value) for value in held]
    return next(value for value in inner if isinstance(value, UpstreamTransport))


def carriers_in_use(world: World) -> list[object]:
    """Return what the transport's connections that serve a request are made of."""
    live = _transport(world)._pool._live  # the pool offers but their number
    links = [connection.link for connection in live]
    return [_carrier(getattr(link, "_link", link)) for link in links]


def _carrier(link: ByteLink) -> object:
    match link:
        case SocketLink():
            return link._stream.socket
        case StreamLink():
            return link._stream
    return None  # it is closed


def _counted(world: World) -> int:
    quick = world.scenario.valkey in {"up", "lost"} and world.shared()
    return world.valkey.counts.counted() if quick and world.valkey else 0


def counts_of(metrics: Metrics) -> Counter[tuple[str, ...]]:
    """Return what the metrics of streams have counted, by family and labels."""
    numbers = metrics._slots.numbers
    return Counter({key: int(numbers[slot]) for key, slot in _slots(metrics)})


@functools.cache
def _slots(metrics: Metrics) -> list[tuple[tuple[str, ...], int]]:
    layout = metrics._layout
    return [
        ((family.name, *labels), layout.slot(family.name, *labels))
        for family in layout.families
        if family.name in {"streams", "streams_live", *_SUMS}
        for labels in family.series()
    ]


def _miscounted(world: World) -> Iterator[str]:
    expected: Counter[tuple[str, ...]] = Counter()
    for record in world.records:
        fault = record.fault or "none"
        expected["streams", record.endpoint, record.outcome, fault] += 1
        for family, value in _SUMS.items():
            expected[(family,)] += getattr(record, value)
    for stream in world.registry:
        expected["streams_live", stream.endpoint] += 1
    counted = counts_of(world.app.services.metrics)
    counted.subtract(world.counts_before)
    for key in sorted({*counted, *expected}):
        if counted[key] != expected[key]:
            yield f"{' '.join(key)} counts {counted[key]}, expected {expected[key]}"


def sight(world: World) -> Sighting:
    """Look around, once all is quiet."""
    pool = _transport(world).statistics()
    return Sighting(
        at=trio.current_time(),
        new_tasks=tuple(sorted((tasks_of_server() - world.tasks_before).elements())),
        live_streams=tuple(stream.request_id for stream in world.registry),
        unwatched=len(world.app.services.timer_queue),
        counted=_counted(world),
        permits_held=world.app.services.gate.status().held,
        open_wires=len(world.network.live_wires()),
        kept_wires=sum(wire.requests > 0 for wire in world.network.live_wires()),
        idle=pool.idle,
        in_use=pool.live + pool.connecting,
        generating=sum(
            record.request_id == TARGET for record in world.ledger.live.values()
        ),
        dials=len(world.network.dials),
        miscounted=tuple(_miscounted(world)),
    )
