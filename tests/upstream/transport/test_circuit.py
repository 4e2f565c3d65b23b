"""The circuit breaker for dials, on the mock clock."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from trio_ai_stream.upstream.transport import TransportLimits, UpstreamTransport
from trio_ai_stream.upstream.transport.circuit import Circuit, CircuitOpenError
from trio_ai_stream.upstream.upstream_errors import transport_error

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Network:
    """Connects or refuses, and counts; a dial may take some time."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.up = False
        self.dials = 0
        self.takes_s = 0.0

    async def connect(self, _host: str, _port: int, _tls: bool) -> trio.abc.Stream:
        """Refuse while the network is down."""
        self.dials += 1
        await trio.sleep(self.takes_s)
        if not self.up:
            raise ConnectionRefusedError("refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._answer, theirs)
        return ours

    @staticmethod
    async def _answer(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(OK)
        await stream.aclose()


def state(transport: UpstreamTransport) -> str:
    """The circuit's state; it changes between two looks at it."""
    return transport.circuit


async def ask(transport: UpstreamTransport) -> int:
    """Send a request; return the status."""
    request = httpx.Request("GET", "http://upstream/")
    return (await transport.handle_async_request(request)).status_code


async def refused(transport: UpstreamTransport) -> httpx.ConnectError:
    """Send a request that fails; return why."""
    with pytest.raises(httpx.ConnectError) as caught:
        await ask(transport)
    return caught.value


async def test_after_failures_one_request_tries_and_the_others_do_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Five failures open it; a second later one probe; its success closes it.

    Who is refused is told how long to wait, at once: we do not wait for him.
    """
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        transport = UpstreamTransport(connect=network.connect)
        for _ in range(5):
            assert state(transport) == "closed"
            await refused(transport)
        assert state(transport) == "open"
        exc = await refused(transport)
        assert network.dials == 5
        assert isinstance(exc.__cause__, CircuitOpenError)
        problem = transport_error(exc).problem
        assert problem is not None
        assert (problem.retry_after, problem.resend) == (1.0, False)
        await trio.sleep(1)
        await refused(transport)  # the probe
        assert network.dials == 6
        await trio.sleep(1)
        await refused(transport)  # twice as long now
        assert network.dials == 6
        await trio.sleep(1)
        network.up, network.takes_s = True, 0.5
        nursery.start_soon(ask, transport)
        await trio.sleep(0.1)
        assert state(transport) == "half-open"
        await refused(transport)
        await trio.sleep(1)
        assert state(transport) == "closed"
        assert network.dials == 7
        assert await ask(transport) == 200
        await transport.aclose()


async def test_a_probe_that_is_cancelled_leaves_its_place_to_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whose client leaves has not found out anything."""
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        limits = TransportLimits(circuit_failures=1)
        transport = UpstreamTransport(connect=network.connect, limits=limits)
        await refused(transport)
        await trio.sleep(1)
        network.up, network.takes_s = True, 5
        with trio.move_on_after(1):
            await ask(transport)
        assert state(transport) == "open"
        network.takes_s = 0
        assert await ask(transport) == 200
        assert state(transport) == "closed"
        await transport.aclose()


async def test_the_time_between_two_probes_is_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A second, two, four, and so on, at most thirty."""
    circuit = Circuit(1)
    circuit.failed("refused", probe=False)
    waits = []
    for _ in range(7):
        with pytest.raises(CircuitOpenError) as caught:
            circuit.enter()
        waits.append(caught.value.wait_s)
        await trio.sleep(caught.value.wait_s)
        circuit.failed("refused", probe=circuit.enter())
    assert waits == pytest.approx([1, 2, 4, 8, 16, 30, 30])
