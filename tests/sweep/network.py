"""The network between server and upstream, in memory: it connects, or refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from tests.sweep.sockets import SocketWire
from tests.sweep.wire import MemoryWire, Wire


@dataclass(slots=True)
class Dial:
    """One attempt to connect."""

    tick: int
    whose: str
    refused: trio.Event
    over: bool = False


class Network:
    """Connects to `serve`; the other ends live in `nursery`, outside the server."""

    def __init__(
        self,
        nursery: trio.Nursery,
        serve: Callable[[Wire], Awaitable[None]],
        tick: Callable[[], int],
        *,
        connect_s: float,
    ) -> None:
        self._nursery = nursery
        self._serve = serve
        self._tick = tick
        self.connect_s = connect_s
        self.wires: list[Wire] = []
        self.dials: list[Dial] = []
        self._dialled, self._accepted = trio.open_memory_channel[Wire](float("inf"))
        nursery.start_soon(self._accept, name="upstream")

    async def connect(self, _host: str, _port: int, _tls: bool) -> trio.abc.Stream:
        """Connect in memory."""
        wire = MemoryWire(self._tick)
        await self._dial(wire)
        return wire.near

    async def connect_socket(self, *, tls: bool) -> trio.socket.SocketType:
        """Connect by a pair of sockets."""
        wire = SocketWire(self._tick, tls=tls)
        try:
            await self._dial(wire)
        except BaseException:
            wire.close()
            raise
        return wire.socket

    async def _dial(self, wire: Wire) -> None:
        """Connect after `connect_s`, unless it is refused before: an OSError."""
        await trio.lowlevel.checkpoint()  # a connect that is cancelled sends nothing
        dial = Dial(self._tick(), trio.lowlevel.current_task().name, trio.Event())
        self.dials.append(dial)
        try:
            with trio.move_on_after(self.connect_s):
                await dial.refused.wait()
                raise ConnectionRefusedError("refused, as the sweep asked")
        finally:
            dial.over = True
        self.wires.append(wire)
        self._dialled.send_nowait(wire)

    async def _accept(self) -> None:
        """Serve what was dialled, in tasks that the dialling one did not start."""
        async with self._dialled, self._accepted:
            async for wire in self._accepted:
                self._nursery.start_soon(self._serve, wire, name="upstream connection")

    def connecting(self) -> list[Dial]:
        """Return the attempts that are under way."""
        return [dial for dial in self.dials if not dial.over]

    def live_wires(self) -> list[Wire]:
        """Return the connections that the server holds."""
        return [wire for wire in self.wires if wire.open]
