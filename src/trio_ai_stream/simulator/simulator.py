"""The simulator as a server: listeners in, connections out, one ledger.

    address = await nursery.start(Simulator().serve)
    ... call address.base_url ...

Cancelling `serve` closes the listeners and every connection at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import trio

from trio_ai_stream.simulator.faults import parse_model
from trio_ai_stream.simulator.ledger import Ledger
from trio_ai_stream.simulator.routes import BASE
from trio_ai_stream.simulator.simulated_connection import SimulatedConnection

BACKLOG = 4096  # thousands of clients may connect in one burst
DEFAULT_MODEL = "simulator/default"


log = logging.getLogger(__name__)


class Address(NamedTuple):
    """Where a simulator listens."""

    host: str
    port: int

    @property
    def base_url(self) -> str:
        """The URL to give a client as OpenRouter's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{BASE}"


class Simulator:
    """An OpenRouter stand-in.

    `default_model` says how every model that is not `simulator/…` behaves. Raises
    FaultError if it does not parse.
    """

    def __init__(
        self, *, default_model: str = DEFAULT_MODEL, ledger: Ledger | None = None
    ) -> None:
        parse_model(default_model)
        self.default_model = default_model
        self.ledger = ledger or Ledger()
        self.connections = 0  # open now

    async def serve(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; `task_status.started` gets the first Address.

        Listeners that are given are closed at the end as well. Raises OSError if the
        port is taken.
        """
        if listeners is None:
            listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self.handle, list(listeners))
            if isinstance(listeners[0], trio.SocketListener):
                host, port = listeners[0].socket.getsockname()[:2]
            task_status.started(Address(host, port))

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over any stream until it ends; then it is closed.

        A failure ends this connection only, with a log record. Cancellation: the
        stream is closed at once.
        """
        self.connections += 1
        try:
            await SimulatedConnection(stream, self.ledger, self.default_model).serve()
        except* Exception:
            # It may be embedded in a server, whose streams must not end with this.
            text = "contained a failure of a connection"
            log.exception(text, extra={"event": "simulator_error"})
        finally:
            self.connections -= 1
