"""The private parts of Trio are those that are known, and a change is noticed."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ai_stream.tracing import internals


async def test_the_private_parts_are_those_of_the_installed_trio(autojump_clock):
    """Scopes run from the outside in; a cancel is seen, with where it comes from."""
    seen: list[trio.lowlevel.Task] = []

    async def child() -> None:
        seen.append(trio.lowlevel.current_task())
        with trio.move_on_after(1) as inner:
            await trio.sleep_forever()
        assert internals.is_cancelled(inner)
        assert not internals.called_explicitly(inner)
        await trio.sleep_forever()

    internals.check_version()
    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope
        nursery.start_soon(child)
        await trio.testing.wait_all_tasks_blocked()
        (task,) = seen
        assert internals.scopes_of(task)[-2] is scope
        assert internals.pending_cancelled(task) is None
        await trio.sleep(2)
        assert not internals.is_cancelled(scope)
        scope.cancel(reason="enough")
        assert internals.called_explicitly(scope)
        cancelled = internals.pending_cancelled(task)
        assert cancelled is not None
        assert cancelled.reason == "enough"
        assert not internals.over(task)
    assert internals.over(task)


def test_another_version_of_trio_is_refused(monkeypatch):
    """A version that nobody has looked at stops the instrument, loudly."""
    monkeypatch.setattr(trio, "__version__", "0.99.0")
    with pytest.raises(internals.TrioChangedError, match=r"expected Trio 0\.35"):
        internals.check_version()
