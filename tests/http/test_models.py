"""`GET /v1/models`: upstream's list in OpenAI's shape."""

from __future__ import annotations

import httpx
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.completions import error_of, over
from tests.support.world import BASE_URL, Visit, World, world
from trio_ai_stream.http.models import FETCH_S, FRESH_S
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport import UpstreamTransport


async def get(w: World, path: str = "/v1/models") -> Visit:
    """Send a GET and wait for its end."""
    visit = w.visit({}, path, method="GET")
    await over(visit)
    return visit


def replace_upstream(w: World) -> list[float]:
    """Put an upstream that can't be reached in place; return when it was tried."""
    tried: list[float] = []

    async def refuse(_host: str, _port: int, _tls: bool) -> trio.abc.Stream:
        tried.append(trio.current_time())
        raise httpx.ConnectError("refused")

    w.services.upstream = OpenRouter(
        UpstreamTransport(connect=refuse),
        base_url=BASE_URL,
        kind="simulator",
        headers={},
        connect_s=5,
        buffer_bytes=1_000_000,
    )
    return tried


async def test_models_are_listed(autojump_clock: MockClock) -> None:
    """Each has OpenAI's four fields, and upstream's others beside them."""
    async with world() as w:
        visit = await get(w)
        assert visit.status == 200
        body = visit.json()
        assert body["object"] == "list"
        models = {model["id"]: model for model in body["data"]}
        gpt = models["openai/gpt-4o"]
        assert gpt["object"] == "model"
        assert gpt["owned_by"] == "openai"
        assert isinstance(gpt["created"], int)
        assert gpt["context_length"] == 200_000
        assert models["~anthropic/claude-sonnet-latest"]["owned_by"] == "anthropic"
        one = await get(w, "/v1/models/openai/gpt-4o")
        assert one.json() == gpt


async def test_an_unknown_model_is_404(autojump_clock: MockClock) -> None:
    """A name that upstream does not list is `model_not_found`."""
    async with world() as w:
        visit = await get(w, "/v1/models/no/such")
        assert visit.status == 404
        assert error_of(visit)["metadata"]["error_type"] == "model_not_found"


async def test_the_list_is_kept_for_a_minute(autojump_clock: MockClock) -> None:
    """Many clients cause one request to upstream; a minute later, one more."""
    async with world() as w:
        visits = [w.visit({}, "/v1/models", method="GET") for _ in range(20)]
        for visit in visits:
            await over(visit)
            assert visit.status == 200
        lost = replace_upstream(w)
        assert (await get(w)).status == 200
        assert lost == []
        await trio.sleep(FRESH_S + 1)
        await get(w)
        assert len(lost) == 1


async def test_an_old_list_is_better_than_none(autojump_clock: MockClock) -> None:
    """Upstream that can't be reached costs nobody a list that is there already."""
    async with world() as w:
        fresh = await get(w)
        replace_upstream(w)
        await trio.sleep(FRESH_S + 1)
        stale = await get(w)
        assert stale.status == 200
        assert stale.body == fresh.body


async def test_without_any_list_the_failure_is_told(autojump_clock: MockClock) -> None:
    """An upstream that can't be reached is 502 within its budget."""
    async with world() as w:
        w.reachable = False
        visit = await get(w)
        assert visit.status in {502, 504}
        assert error_of(visit)["type"] == "server_error"
        assert trio.current_time() <= FETCH_S


async def test_all_who_wait_share_one_failure(autojump_clock: MockClock) -> None:
    """However many ask an upstream that hangs, nobody waits longer than one try."""
    async with world() as w:
        w.reachable = False
        visits = [w.visit({}, "/v1/models", method="GET") for _ in range(5)]
        for visit in visits:
            await over(visit)
            assert visit.status in {502, 504}
        assert trio.current_time() <= FETCH_S
        w.reachable = True
        assert (await get(w)).status == 200


async def test_a_client_that_leaves_does_not_hold_the_others(
    autojump_clock: MockClock,
) -> None:
    """Who fetches may go away: the next in line fetches instead."""
    async with world() as w:
        w.reachable = False
        first = w.visit({}, "/v1/models", method="GET")
        await wait_all_tasks_blocked()
        second = w.visit({}, "/v1/models", method="GET")
        await wait_all_tasks_blocked()
        w.reachable = True
        first.leave()
        await over(first)
        await over(second)
        assert second.status == 200
