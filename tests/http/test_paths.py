"""Paths that lead nowhere: the nearest one is named, and nobody is sent elsewhere."""

from __future__ import annotations

import json

import pytest
from trio.testing import MockClock

from tests.support.completions import COMPLETIONS, error_of, over
from tests.support.world import world
from trio_ai_stream.dialects.catalogue import DIALECTS
from trio_ai_stream.wire.dialect import Dialect
from trio_ai_stream.wire.problems import INTERNAL

NEAREST = [
    ("/chat/completions", COMPLETIONS),
    ("/v1/v1/chat/completions", COMPLETIONS),
    ("/api/v1/chat/completions", COMPLETIONS),
    ("/v1/chat/completions/", COMPLETIONS),
    ("/v1/chat/completion", COMPLETIONS),
    ("/models", "/v1/models"),
    ("/v1/model", "/v1/models"),
]


@pytest.mark.parametrize(("path", "nearest"), NEAREST)
async def test_the_nearest_path_is_named(
    path: str, nearest: str, autojump_clock: MockClock
) -> None:
    """In the shape that the path's own clients read."""
    async with world() as w:
        visit = w.visit({}, path)
        await over(visit)
        assert visit.status == 404
        assert error_of(visit)["message"].endswith(f"did you mean {nearest}?")


@pytest.mark.parametrize(
    ("path", "nearest"), [("/Chat", "/chat"), ("/api/chat", "/chat"), ("/heath", None)]
)
async def test_other_paths_have_the_shape_of_chat(
    path: str, nearest: str | None, autojump_clock: MockClock
) -> None:
    """What is near nothing is answered as before."""
    async with world() as w:
        visit = w.visit({}, path)
        await over(visit)
        assert (visit.status, visit.json()["code"]) == (404, 404)
        if nearest:
            assert visit.json()["message"].endswith(f"did you mean {nearest}?")


@pytest.mark.parametrize("path", ["//evil.test/", "/v1//models", "/%2e"])
@pytest.mark.parametrize("keys", [{}, {"API_KEYS": "some-long-key"}])
async def test_nobody_is_sent_to_a_host_of_the_requests(
    path: str, keys: dict[str, str], autojump_clock: MockClock
) -> None:
    """No redirect at all: its host would be the one that the request names."""
    async with world(env=keys) as w:
        headers = {"host": "localhost", "authorization": "Bearer some-long-key"}
        visit = w.visit({}, path, method="GET", headers=headers)
        await over(visit)
        assert visit.status == 404
        assert "location" not in visit.headers


async def test_slashes_in_front_are_passed_over(autojump_clock: MockClock) -> None:
    """A base URL often ends with a slash; way and shape are the same."""
    async with world() as w:
        visit = w.visit({"messages": []}, "//v1/chat/completions")
        await over(visit)
        assert error_of(visit)["param"] == "messages"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.path)
async def test_each_dialect_refuses_in_its_own_shape(
    dialect: Dialect, autojump_clock: MockClock
) -> None:
    """Also what is refused before its body is read, and below its path."""
    shape = json.loads(dialect.error(INTERNAL, "an-id").body)
    async with world(env={"API_KEYS": "some-long-key"}) as w:
        key = {"authorization": "Bearer some-long-key"}
        for path, options, status in (
            (dialect.path, {}, 401),
            (dialect.path, {"headers": key, "method": "GET"}, 405),
            (dialect.path, {"headers": {**key, "content-type": "x/y"}}, 415),
            (dialect.path, {"headers": key}, 400),
            (f"{dialect.path}/no/such/path", {"headers": key}, 404),
        ):
            visit = w.visit({}, path, **options)
            await over(visit)
            assert visit.status == status
            assert visit.json().keys() == shape.keys()
