"""Names to addresses: caching, sharing, and a DNS that hangs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing

from trio_ai_stream.upstream.transport.dial import Resolver
from trio_ai_stream.upstream.transport.transport_limits import TransportLimits

V4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))
V6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 80, 0, 0))


class NameServer:
    """Stands in for getaddrinfo; hangs for as long as it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.rows: list[tuple[Any, ...]] = [V4]
        self.going = threading.Event()
        self.going.set()
        self.broken = False

    def __call__(self, host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        assert self.going.wait(20), "the test forgot to let the name server go on"
        if self.broken:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return self.rows


@pytest.fixture
def server() -> Iterator[NameServer]:
    """A name server that is let go on at the end, so that no thread stays."""
    server = NameServer()
    yield server
    server.going.set()


async def test_a_written_address_needs_no_thread(server: NameServer) -> None:
    """IPv4 and IPv6 literals are understood without asking anybody."""
    resolver = Resolver(TransportLimits(), lookup=server)
    assert await resolver.resolve("127.0.0.1", 80) == (
        (socket.AF_INET, ("127.0.0.1", 80)),
    )
    ((family, address),) = await resolver.resolve("::1", 443)
    assert (family, address[:2]) == (socket.AF_INET6, ("::1", 443))
    assert server.asked == []


async def test_families_alternate(server: NameServer) -> None:
    """IPv6 and IPv4 take turns, so one broken family costs one attempt at a time."""
    server.rows = [V6, V6, V6, V4, V4]
    answer = await Resolver(TransportLimits(), lookup=server).resolve("host", 80)
    families = [family for family, _ in answer]
    six, four = socket.AF_INET6, socket.AF_INET
    assert families == [six, four, six, four, six]


async def test_an_answer_is_used_until_it_is_too_old(server: NameServer) -> None:
    """Within the TTL nobody is asked; after it, the name server is."""
    for ttl_s, asked in ((60.0, 1), (0.0, 3)):
        server.asked.clear()
        resolver = Resolver(TransportLimits(dns_ttl_s=ttl_s), lookup=server)
        for _ in range(3):
            await resolver.resolve("host", 80)
        assert len(server.asked) == asked


async def test_the_ttl_runs_on_trios_clock(
    server: NameServer, mock_clock: trio.testing.MockClock
) -> None:
    """Thirty seconds by Trio's clock, whatever the wall says."""
    resolver = Resolver(TransportLimits(dns_ttl_s=30), lookup=server)
    await resolver.resolve("host", 80)
    mock_clock.jump(29)
    await resolver.resolve("host", 80)
    assert len(server.asked) == 1
    mock_clock.jump(2)
    await resolver.resolve("host", 80)
    assert len(server.asked) == 2


async def test_identical_questions_share_one_look_up(server: NameServer) -> None:
    """A hundred tasks that ask for one host cost one thread."""
    server.going.clear()
    resolver = Resolver(TransportLimits(), lookup=server)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(resolver.resolve, "host", 80)
            await trio.testing.wait_all_tasks_blocked()
            assert resolver.threads == 1
            server.going.set()
    assert server.asked == ["host"]


async def test_whoever_asked_first_may_leave(server: NameServer) -> None:
    """A cancelled asker does not take the answer away from the others."""
    server.going.clear()
    resolver = Resolver(TransportLimits(), lookup=server)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.01):
                await resolver.resolve("host", 80)
            nursery.start_soon(resolver.resolve, "host", 80)
            await trio.testing.wait_all_tasks_blocked()
            server.going.set()
    assert server.asked == ["host"]


async def test_a_hanging_dns_takes_few_threads_and_none_of_trios(
    server: NameServer,
) -> None:
    """Sixty abandoned look-ups hold four threads; Trio's own thread limit is free."""
    server.going.clear()
    resolver = Resolver(TransportLimits(dns_threads=4), lookup=server)
    limiter = trio.to_thread.current_default_thread_limiter()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(resolver.resolve, f"host{number}", 80)
            await trio.testing.wait_all_tasks_blocked()
            assert resolver.threads == 4
            assert limiter.borrowed_tokens == 0
            nursery.cancel_scope.cancel(reason="the budget is spent")
        assert resolver.threads == 4
        server.going.set()
        for number in range(60):  # what was asked is answered, though nobody waits
            await resolver.resolve(f"host{number}", 80)
        assert len(server.asked) == 60
        assert resolver.threads == 0


async def test_an_old_answer_serves_while_dns_hangs(server: NameServer) -> None:
    """A known host stays reachable: after a little patience the old answer is used."""
    limits = TransportLimits(dns_ttl_s=0, dns_patience_s=0.01)
    resolver = Resolver(limits, lookup=server)
    fresh = await resolver.resolve("host", 80)
    server.going.clear()
    with trio.fail_after(10):
        assert await resolver.resolve("host", 80) == fresh
        assert resolver.threads == 1


async def test_an_old_answer_serves_when_dns_fails(server: NameServer) -> None:
    """A name server that errs does not cut off a host that was known."""
    resolver = Resolver(TransportLimits(dns_ttl_s=0), lookup=server)
    fresh = await resolver.resolve("host", 80)
    server.broken = True
    assert await resolver.resolve("host", 80) == fresh


async def test_a_very_old_answer_serves_no_more(
    server: NameServer, mock_clock: trio.testing.MockClock
) -> None:
    """After the stale time a failing DNS is a failure."""
    resolver = Resolver(TransportLimits(dns_stale_ttl_s=100), lookup=server)
    await resolver.resolve("host", 80)
    server.broken = True
    mock_clock.jump(101)
    with pytest.raises(OSError, match="try again"):
        await resolver.resolve("host", 80)


@pytest.mark.parametrize("broken", [True, False])
async def test_a_name_without_address_is_an_os_error(
    server: NameServer, broken: bool
) -> None:
    """A failed look-up and an empty answer are errors, and are not remembered."""
    server.broken = broken
    server.rows = []
    resolver = Resolver(TransportLimits(), lookup=server)
    for _ in range(2):
        with pytest.raises(OSError, match="no address"):
            await resolver.resolve("host", 80)
    assert len(server.asked) == 2


async def test_the_cache_is_bounded(server: NameServer) -> None:
    """Hosts beyond the cache's size push out the oldest."""
    resolver = Resolver(TransportLimits(), lookup=server)
    for number in range(300):
        await resolver.resolve(f"host{number}", 80)
    assert "cached=256" in repr(resolver)
    await resolver.resolve("host0", 80)
    assert server.asked[-1] == "host0"


def test_an_answer_after_the_run_is_dropped(server: NameServer) -> None:
    """A thread that comes back when the run is over harms nobody."""
    server.going.clear()
    resolver = Resolver(TransportLimits(), lookup=server)

    async def ask() -> None:
        with trio.move_on_after(0.01):
            await resolver.resolve("host", 80)

    trio.run(ask)
    server.going.set()  # the thread now reports to a run that is over
    trio.run(trio.to_thread.run_sync, lambda: None)
    assert (server.asked, resolver.threads) == (["host"], 1)
