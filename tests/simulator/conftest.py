"""A simulator that serves on a free port, for the tests over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from tests.simulator.client import Running
from trio_ai_stream.simulator.simulator import Simulator


@pytest.fixture
async def running(nursery: trio.Nursery) -> AsyncIterator[Running]:
    """A simulator on a free port."""
    simulator = Simulator(default_model="simulator/fast")
    address = await nursery.start(simulator.serve)
    with trio.fail_after(60):
        yield Running(simulator, address)
    nursery.cancel_scope.cancel(reason="test over")
