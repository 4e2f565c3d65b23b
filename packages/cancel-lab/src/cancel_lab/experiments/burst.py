"""Many clients gone at once: how long until upstream has noticed the last of them."""

from __future__ import annotations

import resource
import time

import trio

from cancel_lab.clients.acts import Act, Transport
from cancel_lab.clients.chat_stream import ChatStream
from cancel_lab.clients.connection import ConnectionEndedError
from cancel_lab.clients.dial import dial
from cancel_lab.records import RunRecord, Status
from cancel_lab.scenes import SILENCE
from cancel_lab.trial import Arena, TrialError, sut
from cancel_lab.upstream import Entry

OPENING_AT_ONCE = 50  # below every server's listen backlog
OPEN_WITHIN_S = 120.0
FIRST_LOOK_S = 0.5  # a look makes upstream encode its ledger, so it waits
LOOK_EVERY_S = 1.0


def raise_file_limit(streams: int) -> None:
    """Let this process, and its children, hold so many streams' descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * streams + 500
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise OSError(
            f"expected a limit of {wanted} open files, the hard one is {hard}"
        )
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def burst(
    arena: Arena,
    streams: int,
    *,
    transport: Transport = Transport.H1,
    watch_s: float = 30.0,
) -> RunRecord:
    """Bring ``streams`` streams into mid-stream silence, close all, watch upstream.

    Upstream is silent meanwhile, so that the cancels are all the work there is.
    Errors: TrialError if not all streams open. Cancellation: all are closed.
    """
    since = await arena.upstream.newest()
    lives: dict[int, ChatStream] = {}
    try:
        with trio.move_on_after(OPEN_WITHIN_S) as opening:
            await _open_all(arena, streams, transport, lives)
        if opening.cancelled_caught or len(lives) < streams:
            raise TrialError(
                f"{arena.adapter.name}: expected {streams} streams within "
                f"{OPEN_WITHIN_S:g} s, {len(lives)} came"
            )
        causes = {tag: await live.act(Act.FIN) for tag, live in lives.items()}
        entries = await _watch(arena, since, streams, watch_s)
        return _record(arena, streams, transport, causes, entries)
    finally:
        for live in lives.values():
            live.connection.close()


async def _open_all(
    arena: Arena, streams: int, transport: Transport, lives: dict[int, ChatStream]
) -> None:
    slots = trio.CapacityLimiter(OPENING_AT_ONCE)

    async def open_one() -> None:
        async with slots:
            tag = arena.upstream.tag()
            request = arena.adapter.request(SILENCE.model(tag))
            try:
                stream = await dial(arena.port, request, transport)
            except OSError:
                return  # counted as missing
            try:
                await stream.start()
                await stream.read_tokens(SILENCE.tokens)
                if not stream.seen.over:
                    lives[tag] = stream
            except ConnectionEndedError:
                return
            finally:
                if tag not in lives:
                    stream.connection.close()

    async with trio.open_nursery() as nursery:
        for _ in range(streams):
            nursery.start_soon(open_one)


async def _watch(arena: Arena, since: int, streams: int, watch_s: float) -> list[Entry]:
    """Return the entries of upstream once it has lost all clients, or at the end."""
    deadline = trio.current_time() + watch_s
    await trio.sleep(FIRST_LOOK_S)
    while True:
        entries = (await arena.upstream.stats(since)).requests
        gone = sum(entry.client_gone_ns is not None for entry in entries)
        if gone >= streams or trio.current_time() >= deadline:
            return entries
        await trio.sleep(LOOK_EVERY_S)


def _record(
    arena: Arena,
    streams: int,
    transport: Transport,
    causes: dict[int, int],
    entries: list[Entry],
) -> RunRecord:
    gone = {}
    for entry in entries:
        tag = int((entry.model or "").rpartition("size=")[2] or 0)
        if entry.client_gone_ns is not None and tag in causes:
            gone[tag] = entry.client_gone_ns
    unseen = streams - len(gone)
    first = min(causes.values())
    return RunRecord(
        run_id=f"burst-{arena.adapter.name}-{first}",
        tier="burst",
        experiment="burst",
        sut=sut(arena.adapter),
        cause=Act.FIN.value,
        phase=SILENCE.name,
        transport=transport.value,
        status=Status.CENSORED if unseen else Status.PASS,
        times={
            "t_cause": first,
            "t_last_cause": max(causes.values()),
            "t_up": None if unseen else max(gone.values()),
        },
        watched_until_ns=time.monotonic_ns(),
        counts={"streams": streams, "unseen": unseen},
        samples={"t_up": sorted(at - causes[tag] for tag, at in gone.items())},
    )
