"""One trial: bring a stream into a phase, let its client act, watch upstream.

All of it from outside: it works for any server that an adapter describes.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from functools import cache

import trio

from cancel_lab.adapters.adapter import Adapter
from cancel_lab.clients.acts import Act, Transport
from cancel_lab.clients.chat_stream import ChatStream
from cancel_lab.clients.connection import ConnectionEndedError
from cancel_lab.clients.dial import dial
from cancel_lab.clients.sse import Seen
from cancel_lab.manifest import git_state
from cancel_lab.process import Server
from cancel_lab.records import Sut
from cancel_lab.scenes import Scene
from cancel_lab.upstream import Entry, Upstream

REACH_S = 10.0  # a stream that is not in its phase by then is an error of the trial
SETTLE_S = 0.02  # lets the server finish what brought it into the phase


class TrialError(RuntimeError):
    """A stream could not be brought into the phase that was asked for."""


@dataclass(frozen=True)
class Arena:
    """A server under test between its clients and its upstream."""

    adapter: Adapter
    server: Server
    upstream: Upstream
    front: int | None = None  # the port of a proxy before it, which clients ask

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return self.front or self.server.port


@dataclass(frozen=True, kw_only=True)
class Live:
    """A stream, and where its request is in upstream's ledger."""

    stream: ChatStream
    tag: int
    since: int


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What one trial came to; ``gone_ns`` is ``None`` if upstream never noticed."""

    tag: int
    cause_ns: int
    gone_ns: int | None
    watched_until_ns: int
    entry: Entry | None
    seen: Seen

    def times(self) -> dict[str, int | None]:
        """Return the record's times."""
        return {"t_cause": self.cause_ns, "t_up": self.gone_ns}

    def tokens(self) -> dict[str, int]:
        """Return the record's token counts; what is unknown is absent."""
        counts = {"read": self.seen.tokens}
        if self.entry is not None:
            counts["sent"] = self.entry.tokens_sent
            counts["wasted"] = self.entry.wasted(self.cause_ns, self.seen.tokens)
        return counts


async def ask(
    arena: Arena, scene: Scene, transport: Transport, *, small_window: bool = False
) -> Live:
    """Connect for a request of the scene; its ``start`` sends that."""
    tag = arena.upstream.tag()
    since = await arena.upstream.newest()
    request = arena.adapter.request(scene.model(tag))
    headers = {**request.headers, "x-request-id": request_id(tag)}
    request = dataclasses.replace(request, headers=headers)
    stream = await dial(arena.port, request, transport, small_window=small_window)
    return Live(stream=stream, tag=tag, since=since)


async def bring(
    arena: Arena, scene: Scene, transport: Transport, *, small_window: bool = False
) -> Live:
    """Return a stream that is in the phase of the scene.

    Errors: TrialError if it did not get there within REACH_S. Cancellation: the
    connection is closed.
    """
    live = await ask(arena, scene, transport, small_window=small_window)
    stream = live.stream
    try:
        with trio.move_on_after(REACH_S):
            await stream.start()
            await _reach(arena, scene, live)
            return live
    except BaseException:
        stream.connection.close()
        raise
    stream.connection.close()
    raise TrialError(
        f"{arena.adapter.name}: expected a stream in phase {scene.name} within "
        f"{REACH_S:g} s, but the client saw status {stream.seen.status}, "
        f"{stream.seen.tokens} tokens, {stream.seen.ending}"
    )


def request_id(tag: int) -> str:
    """Return the request id that a trial's request bears."""
    return f"lab-{tag}"


async def _reach(arena: Arena, scene: Scene, live: Live) -> None:
    stream = live.stream
    if scene.tokens:
        await stream.read_tokens(scene.tokens)
        if stream.seen.over:
            raise TrialError(
                f"{arena.adapter.name}: expected {scene.tokens} tokens, but the client "
                f"saw status {stream.seen.status} and {stream.seen.ending}"
            )
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.read_to_end)

        def reached(entry: Entry) -> bool:
            return entry.phase == scene.upstream_phase

        await arena.upstream.entry(live.tag, reached, since=live.since)
        await trio.sleep(SETTLE_S)
        nursery.cancel_scope.cancel(reason="the phase is reached")


async def act_and_watch(
    arena: Arena, live: Live, act: Act, *, watch_s: float
) -> Observed:
    """Let the client act and watch until upstream notices, ``watch_s`` at most."""
    try:
        cause = await live.stream.act(act)
    except ConnectionEndedError as exc:
        raise TrialError(
            f"the server ended the stream before the client: {exc}"
        ) from exc
    deadline = cause + int(watch_s * 1e9)
    entry = None
    try:
        with trio.move_on_after(watch_s):
            entry = await arena.upstream.entry(live.tag, gone, since=live.since)
        gone_ns = None if entry is None else entry.client_gone_ns
        if entry is None:
            entry = await arena.upstream.look(live.tag, since=live.since)
    finally:
        live.stream.connection.close()
    return Observed(
        tag=live.tag,
        cause_ns=cause,
        gone_ns=gone_ns,
        watched_until_ns=gone_ns or max(deadline, time.monotonic_ns()),
        entry=entry,
        seen=live.stream.seen,
    )


def gone(entry: Entry) -> bool:
    """Tell whether upstream has noticed that its client is gone."""
    return entry.client_gone_ns is not None


@cache
def _commit() -> str | None:
    sha = git_state()["sha"]
    return sha if isinstance(sha, str) else None


def sut(adapter: Adapter) -> Sut:
    """Return how records name the server of an adapter; this one by its commit too."""
    git = _commit() if adapter.package == "trio-ai-stream" else None
    return Sut(name=adapter.name, version=adapter.version(), git=git)
