"""A Valkey in memory: it speaks RESP3 over any Trio stream and knows our scripts.

The scripts are done in Python; a test holds them to what a real Valkey answers. Time is
Trio's, so that leases and rates run on a mock clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio
import anyio.abc
import coredis
import trio
import trio.testing
from coredis.connection import TCPConnection
from coredis.connection._tcp import TCPLocation
from coredis.pool import ConnectionPool
from coredis.retry import NoRetryPolicy

from trio_ai_stream.admission.shared import valkey_scripts as scripts
from trio_ai_stream.billing import shared_totals

BY_SHA: Final = {
    one.sha: one
    for one in (
        scripts.ADMIT,
        scripts.CHANGE,
        scripts.LEAVE,
        scripts.HELD,
        scripts.LIVING,
        scripts.OWNER,
        scripts.RETURN,
        scripts.RETURNING,
        shared_totals.PUSH,
        shared_totals.SPENT,
    )
}


class Counts:
    """What Valkey holds of us, and what the scripts do with it."""

    def __init__(self, now_s: Callable[[], float] = trio.current_time) -> None:
        self._now_s = now_s
        self.leases: dict[str, float] = {}  # process to the end of its lease
        self.streams: dict[str, tuple[str, str]] = {}  # to process and client
        self.clients: Counter[str] = Counter()
        self.of: dict[str, dict[str, None]] = {}
        self.hashes: dict[str, dict[str, str]] = {}
        self._full_at: dict[str, float] = {}
        self._pushed: dict[str, int] = {}
        self._back_until = 0.0

    def counted(self) -> int:
        """How many streams count, of processes whose lease has not ended."""
        now = self._now_s()
        return sum(self.leases.get(p, 0.0) > now for p, _ in self.streams.values())

    def run(self, name: str, keys: Sequence[str], args: Sequence[str]) -> Any:
        """Do one script."""
        act: Callable[..., Any] = getattr(self, f"_{name}")
        return act(keys, args)

    def _admit(self, keys: Sequence[str], args: Sequence[str]) -> list[int]:
        now = self._now_s() * 1e6
        interval, burst = int(args[0]), int(args[1])
        window = interval * burst
        full_at = min(max(self._full_at.get(keys[0], now), now), now + window)
        wait = full_at + interval - window - now
        if wait > 0:
            return [0, 0, int(full_at - now), int(wait)]
        self._full_at[keys[0]] = full_at + interval
        reset = full_at + interval - now
        return [1, int((window - reset) // interval), int(reset), 0]

    def _change(self, _keys: Sequence[str], args: Sequence[str]) -> list[Any]:
        process, lease_ms, first = args[1], int(args[2]), 4 + int(args[3])
        mine = self.of.setdefault(process, {})
        for name in args[4:first]:
            if name in mine:
                del mine[name]
                self._take_out(name, process)
        self._reap(process)
        answers = []
        for at in range(first, len(args), 4):
            name, client, total, per_client = args[at : at + 4]
            if 0 <= int(total) <= len(self.streams):
                answers.append("server")
            elif 0 < int(per_client) <= self.clients[client]:
                answers.append("client")
            else:
                answers.append(f"granted {self._put_in(name, client, process)}")
        known = process in self.leases
        self.leases[process] = self._now_s() + lease_ms / 1000
        counts = [int(known), len(mine), len(self.leases), len(self.streams)]
        return [*counts, *answers]

    def _leave(self, _keys: Sequence[str], args: Sequence[str]) -> int:
        if args[1] in self.leases:
            self.leases[args[1]] = self._now_s() - 0.001
        return 0

    def _held(self, _keys: Sequence[str], args: Sequence[str]) -> list[str]:
        return list(self.of.get(args[1], {}))

    def _living(self, _keys: Sequence[str], _args: Sequence[str]) -> list[str]:
        now = self._now_s()
        return [process for process, end in self.leases.items() if end > now]

    def _owner(self, _keys: Sequence[str], args: Sequence[str]) -> str | None:
        found = self.streams.get(args[3])
        return None if found is None else " ".join(found)

    def _return(self, _keys: Sequence[str], args: Sequence[str]) -> str:
        self._back_until = self._now_s() + int(args[0]) / 1000
        return "OK"

    def _returning(self, _keys: Sequence[str], _args: Sequence[str]) -> str | None:
        return "1" if self._now_s() < self._back_until else None

    def _push(self, keys: Sequence[str], args: Sequence[str]) -> int:
        day, month, pushed, usage = keys
        number, most, others, first = int(args[0]), int(args[2]), args[3], int(args[4])
        if number <= self._pushed.get(pushed, 0):
            return 1
        self._pushed[pushed] = number
        names, cells = args[5 : 5 + 2 * first], args[5 + 2 * first :]
        for name, amount in zip(names[::2], names[1::2], strict=True):
            self._add(day, name, amount)
            self._add(month, name, amount)
        for cell, own, sums in zip(cells[::3], cells[1::3], cells[2::3], strict=True):
            known = self.hashes.setdefault(usage, {})
            limits = {cell: most, own: 2 * most}
            fits = (c for c in limits if c in known or len(known) < limits[c])
            self._add(usage, next(fits, others), sums)
        return 1

    def _spent(self, keys: Sequence[str], args: Sequence[str]) -> list[Any]:
        sums = [[self.hashes.get(key, {}).get(name) for name in args] for key in keys]
        return [self._pushed.get(keys[2], 0), *sums[:2]]

    def _add(self, key: str, field: str, amounts: str) -> None:
        known = self.hashes.setdefault(key, {})
        old = known.get(field, " ".join("0" for _ in amounts.split())).split()
        both = zip(old, amounts.split(), strict=True)
        known[field] = " ".join(str(int(a) + int(b)) for a, b in both)

    def _put_in(self, name: str, client: str, process: str) -> str:
        if self.streams.get(name, (process,))[0] != process:
            name = f"{name}/{process}"
        if self.streams.get(name, ("",))[0] != process:
            self.streams[name] = (process, client)
            self.clients[client] += 1
        self.of[process][name] = None
        return name

    def _take_out(self, name: str, owner: str) -> None:
        process, client = self.streams.get(name, ("", ""))
        if process == owner:
            del self.streams[name]
            self.clients[client] -= 1
            if self.clients[client] <= 0:
                del self.clients[client]

    def _reap(self, process: str) -> None:
        now = self._now_s()
        dead = [p for p, end in self.leases.items() if end <= now and p != process]
        for owner in dead[:4]:
            for name in list(self.of.pop(owner, {})):
                self._take_out(name, owner)
            del self.leases[owner]


class MemoryValkey:
    """The server; `open_client` is for `Link.open_client`.

    `delay_s` comes before each answer. `loses`: the connection on which this stream
    asks for its permit breaks before the answer, once; the script has been done.
    `refuses`: nobody can connect. `silent_at`: when this script is asked for, nothing
    is done or said any more, to nobody; who connects is not greeted either.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        delay_s: float = 0.0,
        loses: str = "",
        refuses: bool = False,
    ) -> None:
        self.counts = Counts()
        self.silent_at = ""
        self._silent = False
        self._refuses = refuses
        self._nursery = nursery
        self._delay_s = delay_s
        self._loses = loses
        self._listening: dict[str, list[trio.abc.Stream]] = {}

    def open_client(self) -> coredis.Redis[bytes]:
        """Return a client, each of whose connections is a pair of memory streams."""
        pool = ConnectionPool(
            connection_class=_MemoryConnection.to(self),
            location=TCPLocation("valkey.test", 6379),
            connect_timeout=1.0,
        )
        return coredis.Redis(
            connection_pool=pool, retry_policy=NoRetryPolicy(), verify_version=False
        )

    def connect(self) -> trio.abc.Stream:
        """Return a new connection's near end.

        :raises ConnectionRefusedError: if nobody can connect.
        """
        if self._refuses:
            raise ConnectionRefusedError("injected: connection refused")
        near, far = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, far, name="upstream connection")
        return near

    async def _serve(self, stream: trio.abc.Stream) -> None:
        data = bytearray()
        try:
            async with stream:
                while received := await stream.receive_some():
                    data += received
                    while (command := _take(data)) is not None:
                        self._silent |= self._falls_silent(command)
                        if self._silent:
                            await trio.sleep_forever()
                        if self._delay_s:
                            await trio.sleep(self._delay_s)
                        reply = await self._do(stream, command)
                        if self._loses and self._loses in command:
                            self._loses = ""
                            return
                        await stream.send_all(reply)
        except trio.BrokenResourceError:
            return
        finally:
            for listeners in self._listening.values():
                if stream in listeners:
                    listeners.remove(stream)

    def _falls_silent(self, command: list[str]) -> bool:
        if command[0] != "EVALSHA":
            return False
        return BY_SHA[command[1]].name == self.silent_at

    async def _do(self, stream: trio.abc.Stream, command: list[str]) -> bytes:
        match command:
            case ["HELLO", *_]:
                return b"%3\r\n" + b"".join(
                    map(_encode, ["proto", 3, "version", "7.0.0", "id", 1])
                )
            case ["EVALSHA", sha, count, *rest]:
                keys, args = rest[: int(count)], rest[int(count) :]
                return _encode(self.counts.run(BY_SHA[sha].name, keys, args))
            case ["SUBSCRIBE", *channels]:
                pushes = b""
                for channel in channels:
                    self._listening.setdefault(channel, []).append(stream)
                    pushes += b">" + _encode(["subscribe", channel, 1])[1:]
                return pushes
            case ["PUBLISH", channel, text]:
                listeners = list(self._listening.get(channel, []))
                for listener in listeners:
                    push = b">" + _encode(["message", channel, text])[1:]
                    await listener.send_all(push)
                return _encode(len(listeners))
            case ["PING"]:
                return b"+PONG\r\n"
        return b"-ERR unknown command\r\n"


class _MemoryConnection(TCPConnection):
    """coredis' connection, over a memory stream."""

    server: MemoryValkey

    @classmethod
    def to(cls, server: MemoryValkey) -> type[_MemoryConnection]:
        return type("ToMemory", (cls,), {"server": server})

    async def _connect(self) -> anyio.abc.ByteStream:
        await trio.lowlevel.checkpoint()
        return _Bytes(self.server.connect())


class _Bytes(anyio.abc.ByteStream):
    """A Trio stream as anyio's."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as exc:
            raise anyio.BrokenResourceError from exc
        except trio.ClosedResourceError as exc:
            raise anyio.ClosedResourceError from exc
        if not data:
            raise anyio.EndOfStream
        return bytes(data)

    async def send(self, item: bytes) -> None:
        try:
            await self._stream.send_all(item)
        except trio.BrokenResourceError as exc:
            raise anyio.BrokenResourceError from exc
        except trio.ClosedResourceError as exc:
            raise anyio.ClosedResourceError from exc

    async def send_eof(self) -> None:
        await self._stream.aclose()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _take(data: bytearray) -> list[str] | None:
    """Take one command off the front, an array of bulk strings; None: not whole."""
    head, found, rest = bytes(data).partition(b"\r\n")
    if not found:
        return None
    words = []
    for _ in range(int(head[1:])):
        size, found, rest = rest.partition(b"\r\n")
        if not found or len(rest) < int(size[1:]) + 2:
            return None
        words.append(rest[: int(size[1:])].decode())
        rest = rest[int(size[1:]) + 2 :]
    data[:] = rest
    return words


def _encode(value: Any) -> bytes:
    match value:
        case None:
            return b"_\r\n"
        case int():
            return b":%d\r\n" % value
        case str():
            return b"$%d\r\n%b\r\n" % (len(value.encode()), value.encode())
    return b"*%d\r\n" % len(value) + b"".join(map(_encode, value))
