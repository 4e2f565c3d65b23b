"""What a request held is given back at its end, not when the collector comes by."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import MockClock

from tests.support.world import world
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.stream.stream import Stream


@pytest.fixture
def uncollected() -> Iterator[Callable[[], list[object]]]:
    """Keep the collector away; give what there is of requests since the test began.

    Other tests of the same process may keep theirs.
    """
    gc.collect()
    gc.disable()
    before = _alive()
    yield lambda: [one for one in _alive() if all(one is not old for old in before)]
    gc.enable()


def _alive() -> list[object]:
    return [
        one for one in gc.get_objects() if isinstance(one, (RequestContext, Stream))
    ]


@pytest.mark.parametrize("origin", [{}, {"origin": "https://page.test"}])
@pytest.mark.parametrize("how", ["answered", "refused", "left"])
async def test_a_request_leaves_no_cycle(
    how: str,
    origin: dict[str, str],
    autojump_clock: MockClock,
    uncollected: Callable[[], list[object]],
) -> None:
    """Neither it nor its stream waits for the collector, whatever its end."""
    async with world(env={"CORS_ALLOW_ORIGINS": "https://page.test"}) as w:
        prompt = {"prompt": "" if how == "refused" else "x"}
        visit = w.visit({**prompt, "model": "simulator/default"}, headers=origin)
        if how == "left":
            await trio.sleep(0.05)
            assert visit.types == ["connected"]
            visit.leave()
        await visit.over.wait()
        assert visit.status == (400 if how == "refused" else 200)
        del visit
        await trio.sleep(1)  # upstream's side has heard of it too
        assert uncollected() == []
