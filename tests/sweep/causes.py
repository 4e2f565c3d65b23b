"""What may befall a stream, as plain calls that the sweep makes between two steps.

An act does what the environment does: a client leaves, a budget runs out, upstream
breaks, somebody cancels by id, the server drains or dies. It returns the scope that it
hit, if it hit one, or False if there was nothing to act upon. The sweep itself adds
`cancel`, of the scope around the request, and `scope@LABEL`, of one scope inside.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import trio

import trio_sweep
from tests.sweep.wire import MemoryWire, Wire
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.record import Outcome
from trio_sweep import internals

if TYPE_CHECKING:
    from tests.sweep.world import World

Hit = trio.CancelScope | bool
Act = Callable[["World"], Hit]
ERROR_EVENT: Final = (
    b'data: {"id":"x","choices":[],"error":{"code":429,"message":"injected"}}\n\n'
)


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that may happen; `outcome` is how it must be recorded, if it decides.

    `applies`: it can happen now. `client`: the client is gone by it. `upstream`: it is
    upstream's doing. `server`: the server takes no more streams after it.
    """

    name: str
    act: Act
    outcome: Outcome | None
    applies: Callable[[World], bool] = lambda _world: True
    client: bool = False
    upstream: bool = False
    server: bool = False
    bound_s: float | None = None  # from cause to exit, where no client is to be told
    also: frozenset[Outcome] = frozenset()  # that may be recorded as well


def _disconnect(world: World) -> Hit:
    world.client.disconnect()
    return True


def _stall(world: World) -> Hit:
    world.client.exchange.stalled = True
    world.client.disconnect()
    return True


def _is_there(world: World) -> bool:
    return not world.client.gone


def _stop(world: World) -> Hit:
    stream = world.stream
    return stream is not None and stream.stop(Outcome.CANCELLED)


def _is_listed(world: World) -> bool:
    return world.look_for_stream() is not None


def _drain(world: World) -> Hit:
    world.registry.begin_drain()
    world.registry.end_streams()
    return True


def _begin_drain(world: World) -> Hit:
    world.registry.begin_drain()
    return True


def _kill(world: World) -> Hit:
    world.server_scope.cancel(reason="kill")
    world.client.scope.cancel(reason="kill")
    return world.client.scope


def _end_upstream(world: World) -> Hit:
    for wire in world.wires_of_target():
        wire.end()
    return True


def _reset_upstream(world: World) -> Hit:
    for wire in _memory(world):
        wire.reset()
    return True


def _memory(world: World) -> list[MemoryWire]:
    """Return the stream's connections that can be broken from outside."""
    return [one for one in world.wires_of_target() if isinstance(one, MemoryWire)]


def _is_in_memory(world: World) -> bool:
    return bool(_memory(world))


def _is_connected(world: World) -> bool:
    return bool(world.wires_of_target())


def _error_upstream(world: World) -> Hit:
    for wire in _memory(world):
        if wire.answering:
            wire.interject(ERROR_EVENT)
    return True


def _is_answering(world: World) -> bool:
    return any(wire.answering for wire in _memory(world))


def _refuse(world: World) -> Hit:
    for dial in world.network.connecting():
        dial.refused.set()
    return True


def _is_connecting(world: World) -> bool:
    return bool(world.network.connecting())


# By function and variable: a module's name is not part of them.
FIRST: Final = ":_Conversation._converse:first"
IDLE: Final = ":_Conversation._converse:idle"
WHOLE: Final = ":_Conversation.run:whole"
CONNECT: Final = ":UpstreamTransport._open:patience"
_BUDGETS: Final = (FIRST, IDLE, WHOLE, CONNECT)


def _budgets(world: World) -> dict[str, trio.CancelScope]:
    """Return the budgets' scopes that are open now and not cancelled."""
    if world.budgets[0] != world.boundary:
        found = {}
        for task in internals.tasks_below(world.client.scope):
            for frame, _ in task.iter_await_frames():
                start = f":{frame.f_code.co_qualname}:"
                for label in _BUDGETS:
                    scope = label.startswith(start) and frame.f_locals.get(
                        label.removeprefix(start)
                    )
                    if isinstance(scope, trio.CancelScope) and (
                        internals.entered(scope) and not internals.is_cancelled(scope)
                    ):
                        found[label] = scope
        world.budgets = world.boundary, found
    return world.budgets[1]


def _expiring(
    name: str, label: str, outcome: Outcome | None, *, upstream: bool = False
) -> Cause:
    """Let a budget's scope run out: Trio notices at its next look at the clock."""

    def act(world: World) -> Hit:
        scope = _budgets(world)[label]
        scope.deadline = trio.current_time()
        return scope

    def applies(world: World) -> bool:
        return label in _budgets(world)

    return Cause(name, act, outcome, applies, upstream=upstream)


_ALL: Final = (
    Cause(
        "disconnect",
        _disconnect,
        Outcome.CLIENT_DISCONNECTED,
        _is_there,
        client=True,
        bound_s=0,
    ),
    Cause("stall", _stall, Outcome.CLIENT_STALLED, _is_there, client=True, bound_s=0),
    Cause("stop", _stop, Outcome.CANCELLED, _is_listed),
    Cause("drain", _drain, Outcome.SHUTDOWN, server=True),
    Cause("begin-drain", _begin_drain, None, server=True),
    Cause("kill", _kill, Outcome.CLIENT_DISCONNECTED, server=True, bound_s=0),
    _expiring("connect", CONNECT, None, upstream=True),
    _expiring("first-token", FIRST, Outcome.FIRST_TOKEN_TIMEOUT),
    _expiring("idle", IDLE, Outcome.STREAM_IDLE_TIMEOUT),
    _expiring("whole", WHOLE, Outcome.DEADLINE_EXCEEDED),
    Cause("refuse", _refuse, None, _is_connecting, upstream=True),
    Cause("eof", _end_upstream, Outcome.UPSTREAM_FAILED, _is_connected, upstream=True),
    Cause(
        "reset", _reset_upstream, Outcome.UPSTREAM_FAILED, _is_in_memory, upstream=True
    ),
    Cause(
        "error",
        _error_upstream,
        Outcome.UPSTREAM_FAILED,
        _is_answering,
        upstream=True,
        also=frozenset({Outcome.UPSTREAM_REJECTED}),  # before any output
    ),
)
CAUSES: Final[dict[str, Cause]] = {cause.name: cause for cause in _ALL}
# The sweep's own: one task of the request is cancelled, by nobody of the environment.
CALL: Final = Cause(
    trio_sweep.program.CANCEL, _kill, Outcome.CLIENT_DISCONNECTED, bound_s=0
)
# It changes nothing that can be seen, or what `Judged` lists.
_OWN: Final = Cause("own", _begin_drain, None)
SCOPE_KINDS: Final[dict[str, Cause | None]] = {
    # Only `Stream.stop` cancels it, and only when the stream has its ending.
    ":_Conversation.run:0": None,
    # To cancel these is to leave the request.
    ":ASGIConnection.__call__:client": CALL,
    ":relay:nursery": CALL,
    ":ASGIConnection._answer_listening:nursery": CALL,
    # Budgets: each as if its time were over.
    WHOLE: CAUSES["whole"],
    FIRST: CAUSES["first-token"],
    IDLE: CAUSES["idle"],
    CONNECT: CAUSES["connect"],
    # Upstream did not answer, or not take the request.
    ":UpstreamConnection._exchange_large:nursery": CAUSES["reset"],
    # Its time begins when the request is sent. Before that, another budget is left.
    ":UpstreamConnection._exchange_large:patience": replace(
        CAUSES["reset"], also=frozenset({Outcome.FIRST_TOKEN_TIMEOUT})
    ),
    ":UpstreamConnection._send:progress": CAUSES["reset"],
    # The answer is whole: the grace, the terminal event, what follows [DONE].
    ":_Conversation._await_done:grace": _OWN,
    ":_Conversation.write_ending:terminal_scope": _OWN,
    ":relay:0": _OWN,
    # What a refusal says; a request's body; the list of models; a look at the streams.
    ":read_error:0": _OWN,
    ":read_body:scope": _OWN,
    "trio_ai_stream/http/models.py": _OWN,
    "trio_ai_stream/http/live_view.py": _OWN,
    # A Valkey that does not answer: the limits are this process's own for a while.
    "trio_ai_stream/admission/shared/": _OWN,
}


def scope_kind(label: str) -> str:
    """Return the end or the beginning of a scope's label by which it is known.

    :raises LookupError: nobody has said yet what its cancel is like.
    """
    for kind in SCOPE_KINDS:
        if label.endswith(kind) or label.startswith(kind):
            return kind
    raise LookupError(f"expected {label} in {__name__}: say what its cancel is like")


def cause_of_scope(label: str) -> Cause | None:
    """Return what a cancel of this scope of the program is like; None: not swept."""
    return SCOPE_KINDS[scope_kind(label)]


# Upstream has said all, in whichever API; it may still be in flight.
_DONE: Final = re.compile(
    rb"\[DONE\]|event: message_stop|event: response\.(completed|incomplete|failed)"
)
# It has said that the answer is whole, in an event of its own; the same.
_FINISH: Final = re.compile(rb'"finish_reason":"[^\n]*\n\n')


@dataclass(slots=True)
class Met:
    """One act of a run, and what it met."""

    k: int
    cause: Cause
    at: float
    hit: Hit
    phase: str = ""
    decided: bool = False  # the stream's ending was decided before, as far as it acts
    begun: bool = False  # content had been delivered, and upstream was not done
    sent: bool = False  # upstream had said its finish_reason
    finished: bool = False  # and the relay had read it
    fates: tuple[str, ...] = ()  # what a cancel did to each task


def _is_on_its_way(stream: Stream | None, wires: Sequence[Wire]) -> bool:
    """Whether upstream has said its finish_reason, and a close cannot take that back.

    In a socket it can: what is behind TLS, or in a proxy, may not have left yet. Until
    the stream has an answer, what was said may be that of the attempt before.
    """
    if stream is None or stream.response is None:
        return False
    memory = [wire for wire in wires if isinstance(wire, MemoryWire)]
    return any(_FINISH.search(wire.answered) for wire in memory)


def _is_decided(stream: Stream, cause: Cause) -> bool:
    """Whether the cause comes too late; a drain leaves a document that goes out."""
    return stream.ending is not None or (cause.name == "drain" and stream.sealed)


def carry_out(cause: Cause, world: World) -> Hit:
    """Act, and note what was met."""
    stream = world.look_for_stream()
    wires = world.wires_of_target()
    done = any(_DONE.search(wire.answered) for wire in wires)
    met = Met(
        world.boundary,
        cause,
        trio.current_time(),
        hit=False,
        phase="admission" if stream is None else stream.state.value,
        decided=stream is not None and _is_decided(stream, cause),
        begun=stream is not None and stream.events > 0 and not done,
        sent=_is_on_its_way(stream, wires),
        finished=stream is not None and stream.answer.finish_reason is not None,
    )
    met.hit = cause.applies(world) and cause.act(world)
    if met.hit is not False:
        world.met.append(met)
    return met.hit


def sweep_causes() -> dict[str, trio_sweep.Cause]:
    """Return the causes as `trio_sweep` takes them: none may raise out of a request."""
    return {
        name: trio_sweep.Cause(
            name,
            functools.partial(carry_out, cause),
            raises=(),
            applies=cause.applies,
        )
        for name, cause in CAUSES.items()
    }
