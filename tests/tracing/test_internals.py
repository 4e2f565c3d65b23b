"""The private parts of Trio are those that are known, and a change is noticed."""

from __future__ import annotations

import pytest
import trio

from trio_ai_stream.tracing import internals


def test_the_installed_trio_is_the_one_that_is_known():
    """The self-test passes on the Trio that the project pins."""
    internals.self_test()


def test_another_version_of_trio_is_refused(monkeypatch):
    """A version that nobody has looked at stops the instrument, loudly."""
    monkeypatch.setattr(trio, "__version__", "0.99.0")
    with pytest.raises(internals.TrioChangedError, match=r"expected Trio 0\.35"):
        internals.self_test()


def test_a_private_part_that_is_gone_is_named(monkeypatch):
    """A missing attribute is told as a change of Trio's, not as a bug somewhere."""
    monkeypatch.delattr("trio._core._run._r")
    with pytest.raises(internals.TrioChangedError, match="_r"):
        internals.self_test()


def test_one_seed_gives_one_schedule():
    """The same seed gives the same order of tasks, and some other seed another."""

    async def order() -> list[int]:
        seen: list[int] = []

        async def note(number: int) -> None:
            seen.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(note, number)
        return seen

    def run(seed: int) -> list[int]:
        with internals.deterministic(seed):
            return trio.run(order)

    assert run(1) == run(1)
    assert len({tuple(run(seed)) for seed in range(10)}) > 1
