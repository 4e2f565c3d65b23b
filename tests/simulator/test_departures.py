"""Over real sockets: how a client's leaving is noticed, and that nothing is left."""

from __future__ import annotations

import socket
import struct
import time

import pytest
import trio
import trio.testing

from tests.simulator.client import Client, Running, body_of
from trio_ai_stream.simulator.schedule import ResponsePhase
from trio_ai_stream.simulator.simulator import Simulator


def abort(client: Client) -> None:
    """Reset a client's connection."""
    assert isinstance(client.stream, trio.SocketStream)
    linger = struct.pack("ii", 1, 0)
    client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.stream.socket.close()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(
    "model", ["no-answer", "no-token", "silent", "mumbling", "endless"]
)
async def test_fin_and_rst_are_noticed_while_it_waits(
    running: Running,
    model: str,
    how: str,
) -> None:
    """A FIN or RST that comes while the simulator waits is noticed as what it is."""
    client = await running.connect()
    await client.send(body=body_of(f"simulator/{model}"), headers={"x-request-id": "a"})
    await running.simulator.ledger.wait_for("a", "received")
    begin = time.monotonic_ns()
    if how == "rst":
        abort(client)
    else:
        assert isinstance(client.stream, trio.SocketStream)
        await client.stream.send_eof()
    record = await running.simulator.ledger.wait_for("a", "ended")
    await client.stream.aclose()
    assert record.outcome == "client_gone"
    if record.gone_how != "write_error":  # a comment may have met the reset first
        assert record.gone_how == how
    assert record.marks["client_gone"].ns >= begin


@pytest.mark.parametrize("how", ["shutdown", "rst"])
async def test_leaving_is_noticed_while_a_write_is_blocked(
    running: Running,
    how: str,
) -> None:
    """A client that reads nothing and leaves is noticed though the write is blocked."""
    client = await running.connect()
    ledger = running.simulator.ledger
    await client.send(body=body_of("simulator/flood"), headers={"x-request-id": "a"})
    record = await ledger.wait_for("a", "first_token")
    assert isinstance(client.stream, trio.SocketStream)
    await trio.testing.wait_all_tasks_blocked(0.05)  # both sockets' buffers are full
    sent = record.events_sent
    if how == "rst":
        abort(client)
    else:
        await client.stream.send_eof()
    await ledger.wait_for("a", "ended")
    assert record.gone_how in ("fin", "rst", "write_error")
    assert (record.events_sent, record.events_after_gone) == (sent, 0)
    await client.stream.aclose()


async def test_a_first_write_that_is_read_in_part_is_a_stream() -> None:
    """Who leaves with the first token in hand has left a stream, though more was due.

    The task that sent it may not have run since: the client can be quicker.
    """
    simulator = Simulator()
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulator.handle, theirs)
        client = Client(ours)
        await client.send(body=body_of("simulator/flood"))
        seen = b""
        while b"data: " not in seen:
            seen += await ours.receive_some(64)
        await trio.aclose_forcefully(ours)
    (record,) = simulator.ledger.find()
    assert (record.outcome, record.gone_phase) == (
        "client_gone",
        ResponsePhase.STREAMING,
    )


async def test_many_clients_leave_at_once(running: Running) -> None:
    """Sixty streams end with their clients; no task and no connection is left."""
    clients = [await running.connect() for _ in range(60)]
    for client in clients:
        await client.send(body=body_of("simulator/endless"))
    ledger = running.simulator.ledger
    await ledger.wait_until(None, lambda _: len(ledger.live) == 60)
    for client in clients:
        await trio.aclose_forcefully(client.stream)
    await ledger.wait_until(None, lambda _: not ledger.live)
    assert ledger.outcomes == {"client_gone": 60}


async def test_cancelling_the_server_closes_everything() -> None:
    """A cancelled server closes its listener and connections, and ends the records."""
    simulator = Simulator()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            address = await nursery.start(simulator.serve)
            client = Client(await trio.open_tcp_stream(address.host, address.port))
            await client.send(body=body_of("simulator/silent"))
            await simulator.ledger.wait_for(None, "first_token")
            nursery.cancel_scope.cancel(reason="test over")
        async with client.stream:
            response = await client.read()
        assert not response.complete
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(address.host, address.port)
    assert simulator.ledger.outcomes == {"cancelled": 1}
    assert simulator.connections == 0


async def test_a_finished_stream_has_no_departure(
    running: Running,
) -> None:
    """A client that leaves after a whole response is not recorded as gone."""
    await running.ask("simulator/fast")
    record = await running.simulator.ledger.wait_for(None, "ended")
    assert record.outcome == "finished"
    assert "client_gone" not in record.marks
