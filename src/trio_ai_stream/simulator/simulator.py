"""The simulator as a server: listeners in, connections out, one ledger.

    address = await nursery.start(Simulator().serve)
    ... call address.base_url ...

Cancelling `serve` closes the listeners and every connection at once.

A connection reads requests and plays their scripts. While a script is played a second
task reads from the client. It finds FIN and RST whether the script waits or is blocked
in a write, stamps the ledger, and cancels the play. A FIN counts as leaving: that is
how OpenRouter's streams are cancelled.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

import trio

from trio_ai_stream.simulator.faults import FaultError, Faults, parse_model
from trio_ai_stream.simulator.http_messages import (
    CONTINUE,
    LAST_CHUNK,
    RequestError,
    RequestReader,
    SimulatedRequest,
    chunk,
    head_bytes,
    short_response,
)
from trio_ai_stream.simulator.ledger import GoneHow, Ledger, LedgerRecord, Mark, Outcome
from trio_ai_stream.simulator.routes import BASE, Plan, is_chat, plan_chat, plan_other
from trio_ai_stream.simulator.schedule import (
    End,
    Pause,
    ResponsePhase,
    SimulatedHead,
    Write,
    plain_error,
)

RECEIVE = 65536  # bytes of one read
FIRST_RECEIVE = 2048  # of a request: enough to find a slow read's model name in it
EARLY_LIMIT = 65536  # bytes of a next request that are read while one is answered


class SimulatedConnection:
    """Serves one client on one stream until either side is done with it."""

    def __init__(
        self, stream: trio.abc.Stream, ledger: Ledger, default_model: str
    ) -> None:
        self._stream = stream
        self._ledger = ledger
        self._default_model = default_model
        self._reader = RequestReader()
        self._record: LedgerRecord | None = None  # of the chat request being served

    async def serve(self) -> None:
        """Answer requests until the connection ends, then close it.

        Cancellation: the stream is closed; a live record ends as `cancelled`.
        """
        try:
            while await self._exchange():
                self._reader.next_request()
        except RequestError as exc:
            await self._refuse(exc)
        finally:
            self._reader.release()
            self._close_record("cancelled")
            await trio.aclose_forcefully(self._stream)

    async def _refuse(self, error: RequestError) -> None:
        steps = plain_error(error.status, str(error))
        try:
            await self._stream.send_all(short_response(steps, keep_alive=False))
        except trio.BrokenResourceError:
            return

    async def _exchange(self) -> bool:
        """Serve one request; return whether the connection can take another."""
        if not await self._receive():
            self._close_record("client_gone")
            return False
        request = self._reader.request
        record = self._record
        if record is not None:
            return await self._chat(request, record)
        steps = plan_other(request, self._ledger)
        response = short_response(steps, keep_alive=request.keep_alive)
        try:
            await self._stream.send_all(response)
        except trio.BrokenResourceError:
            return False
        return request.keep_alive

    async def _chat(self, request: SimulatedRequest, record: LedgerRecord) -> bool:
        self._ledger.mark(record, "received", ResponsePhase.AWAITING_HEADERS)
        plan = plan_chat(request, record, self._ledger, self._default_model)
        player = Player(self._stream, self._ledger, record, plan)
        end = await self._watched(player, record)
        if end is End.RST:
            reset(self._stream)
        self._close_record("finished" if end is End.BODY else "fault")
        return plan.keep_alive and end is End.BODY

    async def _watched(self, player: Player, record: LedgerRecord) -> End | None:
        """Play the steps while the client is there; None if it left."""
        end: End | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, record, nursery.cancel_scope)
            try:
                end = await player.play()
            except trio.BrokenResourceError:
                self._ledger.gone(record, "write_error")
            nursery.cancel_scope.cancel(reason="response ended")
        return end

    async def _watch(self, record: LedgerRecord, play: trio.CancelScope) -> None:
        """Read until the client leaves; then say so and cancel the play."""
        try:
            while data := await self._stream.receive_some(RECEIVE):
                self._reader.keep(data)
                if self._reader.waiting > EARLY_LIMIT:
                    return  # it pipelines more than we hold: only a write will tell
            self._ledger.gone(record, "fin")
        except trio.BrokenResourceError:
            self._ledger.gone(record, "rst")
        play.cancel(reason="client left")

    async def _receive(self) -> bool:
        """Read until the request is complete; False if the client left before."""
        pace: Faults | None = None
        request = self._reader.request
        size = FIRST_RECEIVE
        while not request.complete:
            try:
                data = await self._stream.receive_some(size)
                if not data:
                    self._gone("fin")
                    return False
                self._reader.feed(data)
                await self._head_received(request)
            except trio.BrokenResourceError:
                self._gone("rst")
                return False
            pace = pace or slow_read(request)
            size = RECEIVE if pace is None else pace.read_bytes
            if pace is not None and not request.complete:
                await trio.sleep(pace.read_ms / 1000)
        await self._head_received(request)  # it may all have come during the last one
        return True

    async def _head_received(self, request: SimulatedRequest) -> None:
        if not request.head_done or request.seen:
            return
        request.seen = True
        if is_chat(request):
            self._record = self._ledger.open(request.headers.get("x-request-id"))
        if not request.complete and request.headers.get("expect"):
            await self._stream.send_all(CONTINUE)

    def _gone(self, how: GoneHow) -> None:
        if self._record is not None:
            self._ledger.gone(self._record, how)

    def _close_record(self, outcome: Outcome) -> None:
        if self._record is not None:
            self._ledger.close(self._record, outcome)
            self._record = None


def slow_read(request: SimulatedRequest) -> Faults | None:
    """Return the faults that pace the reading of a body, if it asks for that."""
    model = request.early_model() if request.head_done else None
    try:
        faults = parse_model(model) if model is not None else None
    except FaultError:
        return None  # the complete request is refused with the reason
    return faults if faults is not None and faults.read_ms > 0 else None


def reset(stream: trio.abc.Stream) -> None:
    """Make the coming close of a socket a reset; other streams are just closed."""
    if isinstance(stream, trio.SSLStream):
        reset(stream.transport_stream)
    elif isinstance(stream, trio.SocketStream):
        linger = struct.pack("ii", 1, 0)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


_MARKS: dict[ResponsePhase, Mark] = {
    ResponsePhase.AWAITING_FIRST_TOKEN: "headers_sent",
    ResponsePhase.STREAMING: "first_token",
    ResponsePhase.FINISHING: "finish_sent",
}


class Player:
    """Plays the steps of one response: waits, writes, and keeps the ledger.

    Pauses are counted from the beginning, so the schedule does not drift; after a
    blocked write the events that have become due follow at once, as from a model that
    does not wait for its reader. A phase is entered before its write, in the same step:
    a client may have read what was sent, and be gone, before the task that sent it runs
    again. It opens no scope: whoever calls it cancels it.
    """

    def __init__(
        self,
        stream: trio.abc.SendStream,
        ledger: Ledger,
        record: LedgerRecord,
        plan: Plan,
    ) -> None:
        self._stream = stream
        self._ledger = ledger
        self._record = record
        self._plan = plan
        self._framed = False  # whether the body now sent is in chunks

    async def play(self) -> End:
        """Send everything; return how the connection is to be left.

        Raises trio.BrokenResourceError when the client is gone. Cancellation: the
        write in progress is not counted.
        """
        due = trio.current_time()
        for step in self._plan.steps:
            if isinstance(step, Write):
                await self._write(step)
            elif isinstance(step, Pause):
                due += step.seconds
                if step.seconds and due > trio.current_time():
                    await trio.sleep_until(due)
            elif isinstance(step, SimulatedHead):
                await self._head(step)
            else:
                return step
        if self._framed:
            await self._stream.send_all(LAST_CHUNK)
        return End.BODY

    async def _write(self, step: Write) -> None:
        data = chunk(step.data) if self._framed else step.data
        if step.last and self._framed:
            data += LAST_CHUNK
            self._framed = False
        if step.phase is not None and step.phase is not self._record.phase:
            self._enter(step.phase)
        await self._stream.send_all(data)
        self._ledger.sent(self._record, len(data), step.events, step.tokens)

    async def _head(self, head: SimulatedHead) -> None:
        self._framed = head.length is None and self._plan.chunked
        data = head_bytes(
            head, chunked=self._plan.chunked, keep_alive=self._plan.keep_alive
        )
        self._record.status = head.status
        self._enter(ResponsePhase.AWAITING_FIRST_TOKEN)
        await self._stream.send_all(data)

    def _enter(self, phase: ResponsePhase) -> None:
        self._ledger.mark(self._record, _MARKS[phase], phase)


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
