"""`/v1/key`, `/v1/generation`, and what is not served: each caller its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.billing.test_named_keys import keys_file
from tests.support.completions import ask, error_of, over
from tests.support.world import Visit, World, world

ENV = {
    "API_KEYS": "the-first-long-key,the-second-long-key",
    "ADMIN_KEYS": "operator-key",
}


async def get(w: World, path: str, key: str = "", query: str = "") -> Visit:
    """Send a GET and wait for its end."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    visit = w.visit({}, path, method="GET", headers=headers)
    visit.scope["query_string"] = query.encode()
    await over(visit)
    return visit


async def test_a_generation_is_its_callers(autojump_clock: MockClock) -> None:
    """Upstream's account of it, for the key that got it and for operators."""
    async with world(env=ENV) as w:
        key = {"authorization": "Bearer the-first-long-key"}
        await over(ask(w, headers=key))
        name = w.record.generation_id
        assert name is not None
        path, query = "/v1/generation", f"id={name}"
        for asking in ("the-first-long-key", "operator-key"):
            found = await get(w, path, asking, query)
            assert found.status == 200
            assert found.json()["data"]["id"] == name
        other = await get(w, path, "the-second-long-key", query)
        assert (other.status, error_of(other)["type"]) == (404, "not_found_error")
        assert (await get(w, path, "operator-key", "id=gen-1-other")).status == 404
        none = await get(w, path, "the-first-long-key")
        assert (none.status, error_of(none)["param"]) == (400, "id")


async def test_a_key_is_the_callers_own(autojump_clock: MockClock) -> None:
    """Its limits here; nothing of the server's key at OpenRouter."""
    async with world(env=ENV) as w:
        data = (await get(w, "/v1/key", "the-first-long-key")).json()["data"]
        assert "first" not in data["label"]
        assert data["rate_limit"] == {"requests": 1000.0, "interval": "1s"}
        assert (data["limit"], data["is_management_key"]) == (None, False)
        admin = (await get(w, "/v1/key", "operator-key")).json()["data"]
        assert admin["is_management_key"]
        assert (await get(w, "/v1/key")).status == 401


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"usd_per_day": 2}, (2, 2, "daily")),
        ({"usd_per_month": 3}, (3, 3, "monthly")),
        ({"usd_per_day": 2, "usd_per_month": 3}, (2, 2, "daily")),
        ({"usd_per_day": 5, "usd_per_month": 3}, (3, 3, "monthly")),
        ({}, (None, None, None)),
    ],
)
async def test_a_keys_limit_is_the_one_that_is_reached_first(
    limits: dict[str, int], expected: tuple[object, ...], tmp_path: Path
) -> None:
    """OpenRouter's form has one limit, and a key here may have two."""
    env = {"KEYS_FILE": keys_file(tmp_path, **limits), "REDIS_URL": "redis://unused"}
    async with world(env=env) as w:
        data = (await get(w, "/v1/key", "team-key")).json()["data"]
    names = ("limit", "limit_remaining", "limit_reset")
    assert tuple(data[name] for name in names) == expected


@pytest.mark.parametrize(
    "path",
    ["/v1/embeddings", "/v1/images/generations", "/v1/completions", "/v1/files/x"],
)
async def test_what_is_not_served_says_what_is(
    autojump_clock: MockClock, path: str
) -> None:
    """In OpenAI's shape, which is what asks for it."""
    async with world() as w:
        visit = w.visit({"input": "x"}, path)
        await over(visit)
        assert visit.status == 404
        assert "/v1/chat/completions, /v1/messages, /v1/" in error_of(visit)["message"]


@pytest.mark.parametrize(
    "path",
    ["/v1/responses/resp_1", "/v1/responses/compact", "/v1/messages/batches"],
)
async def test_what_is_kept_nowhere_is_said_so(
    autojump_clock: MockClock, path: str
) -> None:
    """In the shape of the API that has such paths; the nearest would be no help."""
    async with world() as w:
        visit = w.visit({"input": "x"}, path)
        await over(visit)
        assert visit.status == 404
        error = visit.json()["error"]
        assert error["message"].startswith("no answer is kept")
        assert ("code" in error) == ("responses" in path)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/key"])
async def test_a_browsers_preflight_is_answered(
    autojump_clock: MockClock, path: str
) -> None:
    """For an origin that is allowed, with any header that an SDK sends."""
    async with world(env={"CORS_ALLOW_ORIGINS": "https://app.test"}) as w:
        headers = {
            "origin": "https://app.test",
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key,anthropic-version",
        }
        visit = w.visit({}, path, method="OPTIONS", headers=headers)
        await over(visit)
        assert visit.status == 200
        assert visit.headers["access-control-allow-origin"] == "https://app.test"
        allowed = visit.headers["access-control-allow-headers"]
        assert allowed == "*" or "x-api-key" in allowed
