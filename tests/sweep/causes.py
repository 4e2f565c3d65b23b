"""What may befall a stream, as plain calls that an instrument makes between two steps.

`act` does what the environment does: a client leaves, a budget runs out, upstream
breaks, somebody cancels by id, the server drains or dies. `scope@LABEL` cancels one
cancel scope of the program, reachable from outside or not: a superset. An act returns
the scope that it hit, if it hit one, or False if there was nothing to act upon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from tests.sweep.labels import labelled_scopes
from trio_ai_stream.tracing import internals
from trio_ai_stream.wire.record import Outcome

if TYPE_CHECKING:
    from tests.sweep.world import World

Hit = trio.CancelScope | bool
Act = Callable[["World"], Hit]
SCOPE: Final = "scope@"
ERROR_EVENT: Final = (
    b'data: {"id":"x","choices":[],"error":{"code":502,"message":"injected"}}\n\n'
)


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that may happen; `outcome` is how it must be recorded, if it decides.

    `client`: the client is gone by it. `upstream`: it is upstream's doing. `server`:
    the server takes no more streams after it.
    """

    name: str
    act: Act
    outcome: Outcome | None
    client: bool = False
    upstream: bool = False
    server: bool = False
    bound_s: float | None = None  # from cause to exit, where no client is to be told


def _disconnect(world: World) -> Hit:
    world.client.disconnect()
    return True


def _stall(world: World) -> Hit:
    world.client.exchange.stalled = True
    world.client.disconnect()
    return True


def _cancel(world: World) -> Hit:
    stream = world.stream
    return stream is not None and stream.stop(Outcome.CANCELLED)


def _drain(world: World) -> Hit:
    world.registry.begin_drain()
    world.registry.end_streams()
    return True


def _begin_drain(world: World) -> Hit:
    world.registry.begin_drain()
    return True


def _kill(world: World) -> Hit:
    world.server_scope.cancel(reason="kill")
    return world.server_scope


def _expire(label: str) -> Act:
    """Let a budget's scope run out now: Trio notices at its next look at the clock."""

    def act(world: World) -> Hit:
        for name, scope in labelled_scopes(world.client.scope).items():
            if name == label and not internals.is_cancelled(scope):
                scope.deadline = trio.current_time()
                return scope
        return False

    return act


def _end_upstream(world: World) -> Hit:
    wires = world.wires_of_target()
    for wire in wires:
        wire.end()
    return bool(wires)


def _reset_upstream(world: World) -> Hit:
    wires = world.wires_of_target()
    for wire in wires:
        wire.reset()
    return bool(wires)


def _error_upstream(world: World) -> Hit:
    said = [wire.interject(ERROR_EVENT) for wire in world.wires_of_target()]
    return any(said)


def _refuse(world: World) -> Hit:
    world.network.refuse()
    return bool(world.network.dials)


FIRST: Final = "stream/relay.py:_Conversation._converse:first"
IDLE: Final = "stream/relay.py:_Conversation._converse:idle"
WHOLE: Final = "stream/relay.py:_Conversation.run:whole"
CONNECT: Final = (
    "upstream/transport/upstream_transport.py:UpstreamTransport._open:patience"
)

_ALL: Final = (
    Cause(
        "disconnect", _disconnect, Outcome.CLIENT_DISCONNECTED, client=True, bound_s=0
    ),
    Cause("stall", _stall, Outcome.CLIENT_STALLED, client=True, bound_s=0),
    Cause("cancel", _cancel, Outcome.CANCELLED),
    Cause("drain", _drain, Outcome.SHUTDOWN, server=True),
    Cause("begin-drain", _begin_drain, None, server=True),
    Cause("kill", _kill, Outcome.CLIENT_DISCONNECTED, server=True, bound_s=0),
    Cause("connect", _expire(CONNECT), None, upstream=True),
    Cause("first-token", _expire(FIRST), Outcome.FIRST_TOKEN_TIMEOUT),
    Cause("idle", _expire(IDLE), Outcome.STREAM_IDLE_TIMEOUT),
    Cause("whole", _expire(WHOLE), Outcome.DEADLINE_EXCEEDED),
    Cause("refuse", _refuse, None, upstream=True),
    Cause("eof", _end_upstream, Outcome.UPSTREAM_FAILED, upstream=True),
    Cause("reset", _reset_upstream, Outcome.UPSTREAM_FAILED, upstream=True),
    Cause("error", _error_upstream, Outcome.UPSTREAM_FAILED, upstream=True),
)
CAUSES: Final[dict[str, Cause]] = {cause.name: cause for cause in _ALL}


def cause_named(name: str) -> Cause:
    """Return a cause of the table, or that which cancels the scope `scope@LABEL`.

    :raises KeyError: for a name that is neither.
    """
    if not name.startswith(SCOPE):
        return CAUSES[name]
    label = name.removeprefix(SCOPE)

    def act(world: World) -> Hit:
        scope = labelled_scopes(world.client.scope).get(label)
        if scope is None or internals.is_cancelled(scope):
            return False
        scope.cancel(reason=f"sweep: {label}")
        return scope

    return Cause(name, act, None)
