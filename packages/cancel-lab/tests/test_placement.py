"""Who runs where: the watchers never share a core with the server under test."""

from __future__ import annotations

import os
import sys

import pytest

from cancel_lab.placement import (
    PLACEMENT,
    Placement,
    on_server_cores,
    split,
    watching,
)
from cancel_lab.process import ServerError, free_port, serving

SAY_CORES = "import os; print('cores', sorted(os.sched_getaffinity(0)))"
needs_two = pytest.mark.skipif(PLACEMENT is None, reason="there is one core only")


@pytest.mark.parametrize(
    ("cores", "watchers", "server"),
    [
        ([0, 1], {0}, {1}),
        ([2, 5, 7], {2}, {5, 7}),
        ([0, 1, 2, 3], {0, 1}, {2, 3}),
        (list(range(8)), {0, 1}, {2, 3, 4, 5, 6, 7}),
    ],
)
def test_every_core_has_one_use(
    cores: list[int], watchers: set[int], server: set[int]
) -> None:
    """The sets are disjoint, neither is empty, and no core is left over."""
    found = split(cores)
    assert found is not None
    assert found == Placement(frozenset(watchers), frozenset(server))


def test_a_single_core_is_shared() -> None:
    """Where there is nothing to divide nobody is placed."""
    assert split([3]) is None


@needs_two
def test_the_instrument_gives_its_cores_back() -> None:
    """While it watches it keeps to its own cores; after it, all are as they were."""
    assert PLACEMENT is not None
    with watching():
        assert os.sched_getaffinity(0) == PLACEMENT.watchers
    assert os.sched_getaffinity(0) == PLACEMENT.watchers | PLACEMENT.server


@needs_two
async def test_a_server_is_placed_before_it_runs() -> None:
    """A child starts on the server's cores, though its parent keeps to others."""
    assert PLACEMENT is not None
    argv = on_server_cores([sys.executable, "-c", SAY_CORES])
    with watching(), pytest.raises(ServerError) as caught:
        async with serving(argv, {}, port=1):
            raise AssertionError("it never listens")
    assert f"cores {sorted(PLACEMENT.server)}" in str(caught.value)


def test_a_port_is_told_once() -> None:
    """Servers that are started together, of one process, do not get the same port."""
    ports = [free_port() for _ in range(1_000)]
    assert len(set(ports)) == len(ports)
