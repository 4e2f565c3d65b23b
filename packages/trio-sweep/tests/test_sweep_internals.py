"""The private parts of Trio are those that are known, and a change is noticed."""

from __future__ import annotations

import pytest
import trio

from trio_sweep import internals
from trio_sweep.errors import TrioChangedError


def test_the_installed_trio_is_one_that_is_known() -> None:
    """The self-test passes."""
    internals.self_test()


def test_an_unknown_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version whose source nobody has read stops the sweep."""
    monkeypatch.setattr(trio, "__version__", "0.99.0")
    with pytest.raises(TrioChangedError, match=r"expected Trio 0\.33"):
        internals.self_test()


def test_a_private_part_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing attribute is told as a change of Trio's, not as some bug."""
    monkeypatch.delattr("trio._core._run._r")
    with pytest.raises(TrioChangedError, match="_r"):
        internals.self_test()


def test_one_seed_gives_one_schedule() -> None:
    """The same seed gives the same order of tasks, and some other seed another."""

    async def order() -> tuple[int, ...]:
        seen: list[int] = []

        async def note(number: int) -> None:
            await trio.lowlevel.checkpoint()
            seen.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(note, number)
        return tuple(seen)

    def run(seed: int) -> tuple[int, ...]:
        with internals.deterministic(seed):
            return trio.run(order)

    assert run(1) == run(1)
    assert len({run(seed) for seed in range(10)}) > 1
