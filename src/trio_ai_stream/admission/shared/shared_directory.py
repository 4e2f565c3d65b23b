"""The streams of all workers and hosts, by asking their owners over Valkey.

A listing asks every process. A cancel asks the one process that holds the stream's
permit, which the permits' own index names; so it costs two round trips and one answer,
however large the fleet. Where a process's streams are read is a key with an expiry, if
it has a PEER_ADDRESS: one key for each process, and nothing for each stream.

Valkey may have been emptied, or have evicted a key. So what is not found there is not
gone yet: whoever may have it is asked. For a cancel that is everybody, for an address
the process itself.

The questions go over Valkey's publish and subscribe. Each process listens on a channel
of its own and on one that all share. A question names the channel to answer on; PUBLISH
says how many processes got it, and so how many answers to wait for. Nothing is stored:
a process that is gone does not get the question, and one that hangs is waited for no
longer than the timeout. Valkey may hold the connection of a host that has lost its
power for a quarter of an hour. So whoever has not answered counts only while its lease
lasts.

After an outage one process is back before another. Meanwhile who is missing may still
be there, so for some seconds nobody is told that a stream is gone. Who was not there
before the outage learns of it from a key that those who return set.

The subscription is read from the connection itself: coredis' PubSub object waits a
second, shielded, whenever it is closed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import trio
from coredis.connection import BaseConnection
from coredis.typing import RedisError
from loguru import logger

from trio_ai_stream.admission.directory import (
    ANSWER_TIMEOUT_S,
    Address,
    DirectoryUnavailableError,
    Entry,
    Listing,
    LocalStreams,
    StreamDirectory,
    answer,
    read_address,
    socket_of,
)
from trio_ai_stream.admission.shared.shared_gate import SharedGate
from trio_ai_stream.admission.shared.valkey_link import (
    RETURN_S,
    Client,
    TooBusy,
    Unavailable,
    ValkeyLink,
)
from trio_ai_stream.admission.shared.valkey_scripts import (
    ADDRESS,
    ANNOUNCE,
    LIVING,
    OWNER,
    RETURN,
    RETURNING,
    Keys,
)

_ADDRESS_QUESTION: Final[Entry] = {"ask": "address"}

PING_EVERY_S = 5.0
"""A subscription that fell silent for good is noticed after this and one timeout."""


@dataclass(slots=True)
class _Pending:
    """A question of ours: the answers so far, whose, and how many there will be."""

    answers: list[Any] = field(default_factory=list)
    processes: set[str] = field(default_factory=set)
    expected: int | None = None
    complete: trio.Event = field(default_factory=trio.Event)

    def check(self) -> None:
        if self.expected is not None and len(self.answers) >= self.expected:
            self.complete.set()


class Bus:
    """Asks other processes; `reply` answers what they ask this one."""

    def __init__(
        self,
        link: ValkeyLink,
        keys: Keys,
        reply: Callable[[Entry], Awaitable[Any]],
        *,
        timeout_s: float,
    ) -> None:
        self._link = link
        self._keys = keys
        self._reply = reply
        self._timeout_s = timeout_s
        self._tokens = count()
        self._pending: dict[int, _Pending] = {}

    async def ask(
        self, question: Entry, process: str | None = None
    ) -> tuple[list[Any], bool]:
        """Ask one process, or all: the answers, and whether everybody answered.

        This process is among all: it answers itself like the others. Everybody is who
        has a lease, if somebody else does not answer.
        :raises Unavailable: the question could not be sent.
        """
        token = next(self._tokens)
        pending = self._pending[token] = _Pending()
        message = {
            **question,
            "token": token,
            "reply": self._keys.channel(self._keys.process),
        }
        try:
            with trio.move_on_after(self._timeout_s):
                pending.expected = await self._link.publish(
                    self._keys.channel(process), json.dumps(message)
                )
                pending.check()
                await pending.complete.wait()
        finally:
            del self._pending[token]
        complete = pending.complete.is_set()
        if not complete and pending.expected is not None:
            complete = not await self._living(process) - pending.processes
        return pending.answers, complete

    async def _living(self, process: str | None) -> set[str]:
        """Return the processes that have a lease, or of them the one that was asked."""
        arguments = [self._keys.of, self._keys.process, 0]
        found = await self._link.call(LIVING, self._keys.permits, arguments)
        living = {bytes(name).decode() for name in found}
        return living if process is None else living & {process}

    async def run(
        self, client: Client, /, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Listen and answer until cancelled; started once subscribed.

        :raises Unavailable: no subscription in time, or it fell silent later.
        """
        with trio.move_on_after(self._timeout_s) as starting:
            async with (
                client.connection_pool.acquire() as connection,
                trio.open_nursery() as nursery,
            ):
                try:
                    nursery.start_soon(_raise_errors, connection)
                    await nursery.start(self._listen, connection)
                    starting.deadline = math.inf
                    task_status.started()
                    await self._ping(connection)
                finally:
                    # Its subscriptions must not go back into the pool.
                    connection.invalidate("no longer listening")
        raise Unavailable("timeout", "subscribing")

    async def _listen(
        self, connection: BaseConnection, *, task_status: trio.TaskStatus[None]
    ) -> None:
        channels = [self._keys.channel(self._keys.process), self._keys.channel()]
        connection.send_command(b"SUBSCRIBE", *channels)
        confirmed = 0
        async with aclosing(connection.push_messages) as pushes:
            async for push in pushes:
                match push:
                    case [b"subscribe", *_]:
                        confirmed += 1
                        if confirmed == len(channels):
                            task_status.started()
                    case [b"message", _, bytes(data)]:
                        await self._received(data)

    async def _ping(self, connection: BaseConnection) -> None:
        while True:
            await trio.sleep(PING_EVERY_S)
            deadline = trio.current_time() + self._timeout_s
            with trio.move_on_at(deadline) as scope:
                await connection.create_request(b"PING")
            if scope.cancelled_caught:
                late = self._link.late(
                    deadline, "a silent subscription", self._timeout_s
                )
                if not isinstance(late, TooBusy):
                    raise late

    async def _received(self, data: bytes) -> None:
        message = _decode(data)
        token = message.get("token")
        if not isinstance(token, int):
            logger.warning("a message on the bus was not ours", event="bus_rubbish")
            return
        if "ask" in message:
            reply = {
                "token": token,
                "answer": await self._reply(message),
                "process": self._keys.process,
            }
            with suppress(TooBusy):  # then whoever asked waits no longer
                await self._link.reply(str(message.get("reply")), json.dumps(reply))
        elif (pending := self._pending.get(token)) is not None:
            pending.answers.append(message.get("answer"))
            pending.processes.add(str(message.get("process")))
            pending.check()


async def _raise_errors(connection: BaseConnection) -> None:
    """Raise what the server answers to SUBSCRIBE, such as a user without channels."""
    async with aclosing(connection.streamed_messages) as messages:
        async for message in messages:
            if isinstance(message, RedisError):
                raise message


def _decode(data: bytes) -> dict[str, Any]:
    """Return the message, empty if it is none."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


class SharedDirectory(StreamDirectory):
    """Finds streams through the gate's link; make it before the gate runs."""

    def __init__(
        self,
        gate: SharedGate,
        streams: LocalStreams,
        *,
        run_folder: Path | None = None,
        peer_address: Address | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        super().__init__(gate.keys.process, streams)
        self._gate = gate
        self._run_folder = run_folder
        # Where other hosts read this process's streams, as they are told.
        self._address = None if peer_address is None else "{} {}".format(*peer_address)
        self._was_connected = False
        self._bus = Bus(gate.link, gate.keys, self._answer, timeout_s=timeout_s)
        gate.add_work([self._say_returned, self._bus.run])
        if peer_address is not None:
            gate.add_work([self._announce])

    async def list_streams(self, owner: str | None) -> Listing:
        """Return the live streams that `owner` may see, from all who answer in time.

        Without Valkey: this process's, and not complete.
        """
        try:
            answers, complete = await self._bus.ask({"ask": "list", "owner": owner})
            complete = complete and not await self._others_may_return()
        except Unavailable:
            return Listing(await self._streams.snapshot(owner), complete=False)
        entries = [entry for found in answers if found for entry in found]
        return Listing(entries, complete)

    async def address_of(self, process: str) -> Address | None:
        """Return where readers of a process's streams ask: here, or at its host.

        :raises DirectoryUnavailableError: Valkey did not answer; or the process may not
            be back yet.
        """
        here = self.address_here(process)
        if here is not None:
            return here
        try:
            found = await self._gate.link.call(
                ADDRESS, [self._gate.keys.at(process)], []
            )
            if found is not None:
                return read_address(bytes(found))
            answers, complete = await self._bus.ask(_ADDRESS_QUESTION, process)
            if not answers:
                await self._check_gone(complete=complete)
        except Unavailable as exc:
            raise DirectoryUnavailableError(str(exc)) from exc
        told = next((one for one in answers if isinstance(one, str)), None)
        return None if told is None else read_address(told.encode())

    async def _find(self, question: Entry) -> Any:
        try:
            process = None
            if question["ask"] == "cancel":  # Valkey knows who holds its permit
                process = await self._holder(question["id"])
            answers, complete = await self._bus.ask(question, process)
            if process is not None and complete and not any(answers):
                # Another client's stream has that id too, or its owner has just gone.
                answers, complete = await self._bus.ask(question)
            found = next(filter(None, answers), None)
            if found is None:
                await self._check_gone(complete=complete)
        except Unavailable as exc:
            raise DirectoryUnavailableError(str(exc)) from exc
        return found

    def address_here(self, process: str) -> Address | None:
        """Return the socket of a worker of this host, if it has one."""
        return socket_of(process, self._run_folder)

    async def _announce(
        self, _client: Client, /, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Tell where this process's streams are read, until it leaves.

        :raises Unavailable: Valkey did not answer.
        """
        key, lease_s = self._gate.keys.at(self.process), self._gate.lease_s
        told = [self._address, int(1000 * lease_s)]
        await self._gate.link.send(ANNOUNCE, [key], told)
        task_status.started()
        while True:
            await trio.sleep(lease_s / 3)
            if self._gate.leases.left:
                return
            with suppress(TooBusy):  # it tells again in time
                await self._gate.link.send(ANNOUNCE, [key], told)

    async def _answer(self, question: Entry) -> Any:
        """Answer another process's question about this one."""
        if question.get("ask") == _ADDRESS_QUESTION["ask"]:
            return self._address
        return await answer(self._streams, question)

    async def _say_returned(
        self, _client: Client, /, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Let those who were not there know that Valkey was lost, if it was.

        :raises Unavailable: Valkey did not answer.
        """
        if self._was_connected:
            told = [int(1000 * RETURN_S)]
            await self._gate.link.send(RETURN, [self._gate.keys.back], told)
        self._was_connected = True
        task_status.started()

    async def _others_may_return(self) -> bool:
        """Whether what is missing may be that of a process which is not back yet.

        :raises Unavailable: Valkey did not answer.
        """
        if self._gate.link.others_may_return:
            return True
        found = await self._gate.link.call(RETURNING, [self._gate.keys.back], [])
        return found is not None

    async def _check_gone(self, *, complete: bool) -> None:
        """Let nobody be told that something is gone, while it may be there.

        :raises Unavailable: Valkey did not answer.
        :raises DirectoryUnavailableError: nor did a process, or it may not be back yet.
        """
        if not complete:
            raise DirectoryUnavailableError("a process did not answer")
        if await self._others_may_return():
            raise DirectoryUnavailableError("other processes may not be back yet")

    async def _holder(self, request_id: str) -> str | None:
        """Return the process that holds the stream's permit."""
        keys = self._gate.keys
        arguments = [keys.of, keys.process, 0, request_id]
        entry = await self._gate.link.call(OWNER, keys.permits, arguments)
        return None if entry is None else bytes(entry).decode().partition(" ")[0]
