"""Listing and cancelling streams of other processes, over a real Valkey."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import coredis
import pytest
import trio
import trio.testing

from tests.admission.gates import GateMaker, until
from tests.admission.streams import Streams
from tests.admission.valkey import Proxy, Server, proxied
from trio_ai_stream.admission.directory import (
    Address,
    DirectoryUnavailableError,
    Entry,
    LocalDirectory,
    answer,
)
from trio_ai_stream.admission.gate import Permit
from trio_ai_stream.admission.shared import shared_directory, valkey_link
from trio_ai_stream.admission.shared.shared_directory import SharedDirectory
from trio_ai_stream.admission.shared.shared_gate import SharedGate
from trio_ai_stream.admission.shared.valkey_link import Client
from trio_ai_stream.admission.shared.valkey_scripts import ADDRESS


@asynccontextmanager
async def joined(
    url: str,
    make: GateMaker,
    streams: Streams,
    address: Address | None = None,
    **options: Any,
) -> AsyncIterator[tuple[SharedDirectory, SharedGate]]:
    """Run a gate with a directory, its streams holding their permits, for a block."""
    gate = make(url, **options)
    directory = SharedDirectory(gate, streams, peer_address=address, timeout_s=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(gate.run)
        for request_id, owner in streams.owners.items():
            assert isinstance(await gate.acquire_stream(owner, request_id), Permit)
        yield directory, gate
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_listing_has_the_streams_of_all(
    any_server: Server, make_gate: GateMaker
) -> None:
    """Each process sees all streams; an owner sees only its own, wherever they are."""
    async with (
        joined(any_server.url, make_gate, Streams("one", a="ann", b="bob")) as (one, _),
        joined(any_server.url, make_gate, Streams("two", c="ann")) as (two, _),
    ):
        for directory in (one, two):
            everything = await directory.list_streams(None)
            assert {entry["id"] for entry in everything.entries} == {"a", "b", "c"}
            assert everything.complete
            hers = await directory.list_streams("ann")
            assert {entry["id"] for entry in hers.entries} == {"a", "c"}


async def test_a_cancel_reaches_the_owner_and_says_what_it_did(
    any_server: Server, make_gate: GateMaker
) -> None:
    """The answer to a cancel is the owner's; a second one finds nobody."""
    theirs = Streams("two", c="ann")
    async with (
        joined(any_server.url, make_gate, Streams("one")) as (one, _),
        joined(any_server.url, make_gate, theirs),
    ):
        done = await one.cancel("c", "ann")
        assert done == {"id": "c", "cancelled_at": "two"}
        assert await one.cancel("c", "ann") is None
        assert theirs.owners == {}


async def test_a_process_is_found_while_its_lease_lasts(
    any_server: Server, make_gate: GateMaker
) -> None:
    """Valkey has its address and nothing of its streams; after the lease, nothing."""
    streams = Streams("two", c="ann")
    async with joined(any_server.url, make_gate, Streams("one")) as (one, gate):
        async with joined(
            any_server.url, make_gate, streams, address=("10.0.0.2", 9000)
        ) as (two, _):
            assert await one.address_of(two.process) == ("10.0.0.2", 9000)
            assert await two.address_of(one.process) is None
            assert await one.has_generation("gen-c", "ann")
            assert not await one.has_generation("gen-c", "bob")
            key = gate.keys.at(two.process)
            kept = await gate.link.send(ADDRESS, [key], [])
            assert bytes(kept) == b"10.0.0.2 9000"
        with trio.fail_after(10):
            # The key expires in another process.
            while await one.address_of(two.process) is not None:  # noqa: ASYNC110
                await trio.sleep(0.05)


async def test_a_process_that_ends_is_looked_for_no_longer(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Its address stood there for one lease more, and may be nobody's by then."""
    async with joined(valkey.url, make_gate, Streams("one")) as (one, gate):
        async with joined(
            valkey.url, make_gate, Streams("two"), ("10.0.0.2", 9000), lease_s=60.0
        ) as (two, ending):
            await ending.leave()
            key = gate.keys.at(two.process)
            assert await gate.link.send(ADDRESS, [key], []) is None
        assert await one.address_of(two.process) is None


async def test_without_valkey_nobody_can_say_where(make_gate: GateMaker) -> None:
    """That is 503 and not 404 or 410."""
    directory = SharedDirectory(make_gate("redis://127.0.0.1:1"), Streams("x"))
    with pytest.raises(DirectoryUnavailableError):
        await directory.address_of("abc")
    with pytest.raises(DirectoryUnavailableError):
        await directory.has_generation("gen-a", "ann")


async def test_a_cancel_of_a_local_stream_asks_nobody(make_gate: GateMaker) -> None:
    """Streams of this process are cancelled also without any Valkey."""
    directory = SharedDirectory(make_gate("redis://127.0.0.1:1"), Streams("x", a="ann"))
    assert await directory.cancel("a", None) == {"id": "a", "cancelled_at": "x"}


async def test_another_clients_stream_is_not_cancelled(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Whoever may not see a stream gets the answer for one that does not exist."""
    theirs = Streams("two", c="ann")
    async with (
        joined(valkey.url, make_gate, Streams("one")) as (one, _),
        joined(valkey.url, make_gate, theirs),
    ):
        assert await one.cancel("c", "bob") is None
        assert await one.cancel("never", "bob") is None
        assert theirs.owners == {"c": "ann"}


async def test_one_id_of_two_clients_is_cancelled_for_the_right_one(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Of two streams with one id, a cancel ends the one that its client owns."""
    first, second = Streams("one", same="ann"), Streams("two", same="bob")
    async with (
        joined(valkey.url, make_gate, Streams("asker")) as (asker, _),
        joined(valkey.url, make_gate, first),
        joined(valkey.url, make_gate, second),
    ):
        assert await asker.cancel("same", "bob") == {
            "id": "same",
            "cancelled_at": "two",
        }
        assert (first.owners, second.owners) == ({"same": "ann"}, {})


async def test_a_silent_owner_is_unavailable_not_absent(
    valkey: Server, make_gate: GateMaker
) -> None:
    """A cancel whose owner does not answer in time is no 404, and a listing says so."""

    @asynccontextmanager
    async def silenced() -> AsyncIterator[Proxy]:
        async with (
            proxied(valkey) as proxy,
            joined(proxy.url, make_gate, Streams("two", c="ann"), lease_s=60.0),
        ):
            proxy.silent = True
            yield proxy

    async with (
        joined(valkey.url, make_gate, Streams("one", a="ann")) as (one, _),
        silenced(),
    ):
        with trio.fail_after(30), pytest.raises(DirectoryUnavailableError):
            await one.cancel("c", "ann")
        with trio.fail_after(30):
            listing = await one.list_streams(None)
        assert [entry["id"] for entry in listing.entries] == ["a"]
        assert not listing.complete


async def test_what_valkey_has_lost_is_asked_for(
    own_valkey: Server, make_gate: GateMaker
) -> None:
    """Emptied while it runs, it knows nobody; those who live still answer.

    A reader was told 410, and a cancel 404, until the next heartbeats, while the stream
    went on.
    """
    long = 60.0  # no heartbeat puts anything in again meanwhile
    two = Streams("two", c="ann")
    there = ("10.0.0.2", 9000)
    async with (
        coredis.Redis.from_url(own_valkey.url) as client,
        joined(own_valkey.url, make_gate, Streams("one"), lease_s=long) as (one, _),
        joined(own_valkey.url, make_gate, two, there, lease_s=long) as (other, _),
    ):
        await client.flushall()
        assert await one.address_of(other.process) == there
        assert await other.address_of(one.process) is None  # lives, and has none
        assert await one.address_of("0123456789ab") is None
        assert await one.cancel("nobody's", "ann") is None
        assert await one.cancel("c", "ann") == {"id": "c", "cancelled_at": "two"}


async def test_one_id_at_two_hosts_is_cancelled_twice(
    valkey: Server, make_gate: GateMaker
) -> None:
    """The index has the id for the first of them only, and then for none."""
    first, second = Streams("one", same="ann"), Streams("two", same="ann")
    async with (
        joined(valkey.url, make_gate, Streams("asker")) as (asker, gate),
        joined(valkey.url, make_gate, first) as (_, owner),
        joined(valkey.url, make_gate, second),
    ):
        assert await asker.cancel("same", "ann") == {
            "id": "same",
            "cancelled_at": "one",
        }
        for lease in list(owner.leases._leases):
            owner.leases.release(lease)
        await until(lambda: owner.leases.settled)
        assert gate.link.up
        assert await asker.cancel("same", "ann") == {
            "id": "same",
            "cancelled_at": "two",
        }


async def test_a_host_without_power_is_waited_for_no_longer_than_its_lease(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Valkey holds its connection for minutes; what is not elsewhere is gone."""
    async with (
        joined(valkey.url, make_gate, Streams("one", a="ann")) as (one, gate),
        coredis.Redis.from_url(valkey.url) as client,
    ):
        dead = gate.keys.channel("0123456789ab")
        async with client.pubsub(channels=[gate.keys.channel(), dead]) as silent:
            assert silent.subscribed
            assert (await one.list_streams(None)).complete
            assert not await one.has_generation("gen-x", "ann")
            assert await one.cancel("x", "ann") is None
            assert await one.address_of("0123456789ab") is None


async def test_without_valkey_only_this_process_is_known(
    own_valkey: Server, make_gate: GateMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an outage a listing is local and incomplete, and a cancel elsewhere is 503."""
    monkeypatch.setattr(valkey_link, "RETURN_S", 0.0)
    monkeypatch.setattr(shared_directory, "RETURN_S", 0.001)
    streams = Streams("one", a="ann")
    async with joined(own_valkey.url, make_gate, streams) as (one, gate):
        own_valkey.stop()
        await gate.admit_request("c")
        await until(lambda: not gate.link.up)
        listing = await one.list_streams(None)
        assert [entry["id"] for entry in listing.entries] == ["a"]
        assert not listing.complete
        with pytest.raises(DirectoryUnavailableError):
            await one.cancel("elsewhere", None)
        own_valkey.start()
        await until(lambda: gate.link.up)
        assert (await one.list_streams(None)).complete


async def test_who_is_not_back_yet_may_still_be_there(
    own_valkey: Server, make_gate: GateMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage nothing is told to be gone until the others have had their time.

    A reader was told 410, and a cancel 404, while the stream went on. So it was at a
    process that had not been there before the outage.
    """
    async with (
        coredis.Redis.from_url(own_valkey.url) as client,
        proxied(own_valkey) as proxy,
        joined(own_valkey.url, make_gate, Streams("one")) as (one, gate),
        joined(proxy.url, make_gate, Streams("two", c="ann"), ("10.0.0.2", 9000)) as (
            two,
            other,
        ),
    ):
        proxy.silent = True
        own_valkey.stop()
        await until(lambda: not (gate.link.up or other.link.up))
        own_valkey.start()
        await until(lambda: gate.link.up)
        async with joined(own_valkey.url, make_gate, Streams("new")) as (new, _):
            for asked in (one, new):
                assert not (await asked.list_streams(None)).complete
                for ask in (
                    partial(asked.address_of, two.process),
                    partial(asked.cancel, "c", "ann"),
                    partial(asked.has_generation, "gen-c", "ann"),
                ):
                    with pytest.raises(DirectoryUnavailableError, match="back yet"):
                        await ask()
        proxy.silent = False
        await until(lambda: other.link.up)
        assert await one.address_of(two.process) == ("10.0.0.2", 9000)
        monkeypatch.setattr(valkey_link, "RETURN_S", 0.0)
        assert await client.delete([gate.keys.back]) == 1
        assert await one.address_of("abc") is None
        assert await one.cancel("nobody's", None) is None
        assert not await one.has_generation("gen-c", "bob")
        assert (await one.list_streams(None)).complete


async def test_a_question_does_not_keep_the_link_from_coming_up(
    valkey: Server, make_gate: GateMaker
) -> None:
    """Whoever listens already answers, before it has put its permits in."""
    asked = trio.Event()

    async def run(_client: Client, /, *, task_status: trio.TaskStatus[None]) -> None:
        await asked.wait()
        task_status.started()

    async with joined(valkey.url, make_gate, Streams("one")) as (one, _):
        gate = make_gate(valkey.url)
        SharedDirectory(gate, Streams("two", c="ann"))
        gate.add_work([run])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.run)
            with trio.fail_after(10):
                while len((await one.list_streams(None)).entries) < 1:
                    pass
            assert not gate.link.up
            asked.set()
            await until(lambda: gate.link.up)
            assert not gate.link.others_may_return  # at its first attempt
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_busy_process_that_answers_keeps_its_link(
    own_valkey: Server, make_gate: GateMaker
) -> None:
    """Its loop was held while the answer was under way; that says nothing of Valkey."""
    busy = True

    class Busy(Streams):
        async def snapshot(self, owner: str | None) -> list[Entry]:
            nonlocal busy
            if busy:
                busy = False
                own_valkey.freeze()
                nursery.start_soon(hold_the_loop)
            return await super().snapshot(owner)

    async def hold_the_loop() -> None:
        await trio.testing.wait_all_tasks_blocked()
        own_valkey.thaw()
        time.sleep(0.6)  # noqa: ASYNC251 - the loop is held on purpose

    gate = make_gate(own_valkey.url, timeout_s=0.2, lease_s=60.0)
    directory = SharedDirectory(gate, Busy("one", a="ann"), timeout_s=3)
    async with trio.open_nursery() as nursery:
        await nursery.start(gate.run)
        await directory.list_streams(None)
        assert not busy
        assert gate.link.up
        assert (await directory.list_streams(None)).complete
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_rubbish_on_the_bus_is_ignored(
    valkey: Server, make_gate: GateMaker
) -> None:
    """What others publish on our channel neither answers nor breaks anything."""
    async with joined(valkey.url, make_gate, Streams("one", a="ann")) as (one, gate):
        for rubbish in (
            "",
            "{",
            "[]",
            '{"token": 99}',
            '{"token": []}',
            '{"ask": "x", "token": 1}',
            99_999 * "[",
        ):
            await gate.link.publish(gate.keys.channel(), rubbish)
        assert (await one.list_streams(None)).complete


async def test_the_local_directory_knows_this_process() -> None:
    """Without sharing, listing and cancelling are the process's own."""
    directory = LocalDirectory(Streams("here", a="ann", b="bob"))
    listing = await directory.list_streams("ann")
    assert ([entry["id"] for entry in listing.entries], listing.complete) == (
        ["a"],
        True,
    )
    assert await directory.cancel("b", "ann") is None
    assert await directory.cancel("b", None) == {"id": "b", "cancelled_at": "here"}


async def test_an_unknown_question_has_no_answer() -> None:
    """A question of another version is answered with nothing, not with an error."""
    question = {"ask": "what", "owner": 3}
    assert await answer(Streams("here", a="ann"), question) is None
