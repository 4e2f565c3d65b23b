"""What every response's head says to caches, to other sites, and about origins."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.completions import ask, over
from tests.support.world import Visit, world
from trio_ai_stream.admission.gate import FIELDS

KEY = "some-long-key"
COUNTED = FIELDS[0].lower()
ELSEWHERE = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}


@pytest.mark.parametrize(
    ("path", "caching"),
    [
        ("/", "no-cache"),
        ("/page/main.js", "no-cache"),
        ("/page/config", "no-store"),
        ("/docs", "no-cache"),
        ("/openapi.json", "no-cache"),
        ("/health", "no-store"),
        ("/streams", "no-store"),
        ("/nowhere", "no-store"),
    ],
)
async def test_each_response_says_what_caches_and_other_sites_may(
    path: str, caching: str, autojump_clock: MockClock
) -> None:
    """`Cache-Control` and `Cross-Origin-Resource-Policy`, on refusals as well."""
    async with world() as w:
        visit = w.visit({}, path, method="GET")
        await over(visit)
        assert visit.headers["cache-control"] == caching
        assert visit.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("body", [{"prompt": "x"}, {"prompt": ""}])
async def test_an_answer_without_an_origin_varies_by_it(
    body: Any, autojump_clock: MockClock
) -> None:
    """With origins in CORS_ALLOW_ORIGINS, and only then; also a refusal."""
    for origins, vary in [("https://page.test", "Origin"), ("*", None), ("", None)]:
        async with world(env={"CORS_ALLOW_ORIGINS": origins}) as w:
            visit = w.visit(body)
            await over(visit)
            assert visit.headers.get("vary") == vary


async def test_two_authorizations_are_refused(autojump_clock: MockClock) -> None:
    """Whichever of them a proxy has checked: 400, counted, and no stream."""
    for path in ("/chat", "/v1/chat/completions", "/streams"):
        async with world(env={"API_KEYS": KEY}) as w:
            visit = w.visit({}, path, headers={"authorization": f"Bearer {KEY}"})
            visit.scope["headers"].append((b"authorization", b"Bearer other-key"))
            await over(visit)
            assert visit.status == 400
            assert "authorization: expected one" in visit.body.decode()
            assert COUNTED in visit.headers


async def visited(method: str, env: dict[str, str], **headers: str) -> Visit:
    """One request to `/chat`, or a GET of the list of streams."""
    async with world(env=env) as w:
        path = "/chat" if method == "POST" else "/streams"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"prompt": "x"}
        visit = w.visit(body, path, method=method, headers=ELSEWHERE | named)
        await over(visit)
    return visit


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_another_sites_page_uses_up_nothing(
    method: str, autojump_clock: MockClock
) -> None:
    """What it makes a browser ask is refused and not counted as its user's."""
    visit = await visited(method, {})
    assert (visit.status, visit.json()["error_type"]) == (403, "cross_site")
    assert COUNTED not in visit.headers


async def test_what_is_meant_passes(autojump_clock: MockClock) -> None:
    """A link that somebody follows, and a page whose origin CORS allows."""
    assert (await visited("GET", {}, sec_fetch_dest="document")).status == 200
    origin = "https://page.test"
    for allowed in (origin, "*"):
        env = {"CORS_ALLOW_ORIGINS": allowed}
        assert (await visited("POST", env, origin=origin)).status == 200
        assert (await visited("POST", env)).status == 403


async def test_a_server_of_ours_beside_it_is_no_other_site(
    autojump_clock: MockClock,
) -> None:
    """Clients that are no browsers send no such field."""
    async with world() as w:
        visit = ask(w)
        await over(visit)
        assert visit.status == 200
