"""Who may ask: keys, roles, and loopback without either."""

from __future__ import annotations

import hashlib

import pytest
from trio.testing import MockClock

from tests.support.completions import COMPLETIONS, ask, error_of, over
from tests.support.world import Visit, World, world
from trio_ai_stream.admission.gate import LocalGate, Quota
from trio_ai_stream.http.auth import key_id
from trio_ai_stream.settings import SettingsError, load_settings, refuse_exposure

DIGEST = hashlib.sha256(b"hashed-key").hexdigest()
KEYS = {"API_KEYS": f"first-key, sha256:{DIGEST}", "ADMIN_KEYS": "admin-key"}
PROTECTED = ["/chat", COMPLETIONS, "/v1/models", "/streams", "/metrics", "/nowhere"]


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}


async def get(w: World, path: str, key: str | None = None) -> Visit:
    """Send a GET and wait for its end."""
    headers = bearer(key) if key else {}
    visit = w.visit({}, path, method="GET", headers=headers)
    await over(visit)
    return visit


@pytest.mark.parametrize("path", PROTECTED)
@pytest.mark.parametrize("key", [None, "wrong-key", f"sha256:{DIGEST}"])
async def test_without_a_good_key_nothing_is_served(
    path: str, key: str | None, autojump_clock: MockClock
) -> None:
    """401 with `WWW-Authenticate`, in the endpoint's own error shape."""
    async with world(env=KEYS) as w:
        visit = await get(w, path, key)
        assert visit.status == 401
        challenge = 'Bearer realm="trio-ai-stream"'
        if key is not None:
            challenge += ', error="invalid_token"'
        assert visit.headers["www-authenticate"] == challenge
        code = "missing_api_key" if key is None else "invalid_api_key"
        if path.startswith("/v1/"):
            assert error_of(visit)["metadata"]["error_type"] == code
            assert error_of(visit)["type"] == "authentication_error"
        else:
            assert visit.json()["error_type"] == code


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/openapi.json", "/docs"])
async def test_what_holds_no_data_needs_no_key(
    path: str, autojump_clock: MockClock
) -> None:
    """Probes, the page and the documentation are there before anybody has a key."""
    async with world(env=KEYS) as w:
        assert (await get(w, path)).status == 200


@pytest.mark.parametrize("key", ["first-key", "hashed-key", "admin-key"])
async def test_a_good_key_is_the_client(key: str, autojump_clock: MockClock) -> None:
    """Limits and ownership go by the key, of which only a hash is kept."""
    async with world(env=KEYS) as w:
        visit = ask(w, headers=bearer(key))
        await over(visit)
        assert visit.status == 200
        assert w.record.owner == key_id(key)
        assert key not in w.record.owner


@pytest.mark.parametrize("path", ["/streams", "/metrics"])
async def test_guessing_is_limited_by_address(
    path: str, autojump_clock: MockClock
) -> None:
    """A bad key costs a request of the address that sent it, wherever it is tried."""
    async with world(env=KEYS) as w:
        w.services.gate = LocalGate(Quota.per_second(3), w.permits)
        visits = [await get(w, path, f"guess-{number}") for number in range(4)]
        assert [visit.status for visit in visits] == [401, 401, 401, 429]


async def test_without_keys_a_key_is_ignored(autojump_clock: MockClock) -> None:
    """SDKs always send some key; where there are none, it means nothing."""
    async with world() as w:
        visit = ask(w, headers=bearer("sk-anything"))
        await over(visit)
        assert visit.status == 200
        assert w.record.owner == "ip:127.0.0.1"


@pytest.mark.parametrize(
    ("server", "env", "status"),
    [
        (("127.0.0.1", 80), {}, 200),
        (("127.9.9.9", 80), {}, 200),
        (("::1", 80), {}, 200),
        (("::ffff:127.0.0.1", 80), {}, 200),
        (None, {}, 200),
        (("192.0.2.2", 80), {}, 403),
        (("::ffff:192.0.2.2", 80), {}, 403),
        (("elsewhere", 80), {}, 403),
        (("192.0.2.2", 80), {"ALLOW_ANONYMOUS": "1"}, 200),
        (("192.0.2.2", 80), {"ADMIN_KEYS": "admin-key"}, 401),
    ],
)
async def test_without_keys_only_loopback_is_served(
    server: tuple[str, int] | None,
    env: dict[str, str],
    status: int,
    autojump_clock: MockClock,
) -> None:
    """Whatever launched the server and whatever it is bound to, strangers get 403."""
    async with world(env=env) as w:
        for path, expected in [("/streams", status), ("/health", 200)]:
            visit = w.visit({}, path, method="GET", server=server)
            await over(visit)
            assert visit.status == expected
            if expected == 403:
                assert visit.json()["error_type"] == "loopback_only"
                assert "API_KEYS" in visit.json()["message"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("app.localhost:8080", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("", 200),
        ("rebound.example", 403),
        ("rebound.example:8080", 403),
        ("localhost.example", 403),
        ("192.0.2.2", 403),
    ],
)
async def test_without_keys_only_loopbacks_names_are_served(
    host: str, status: int, autojump_clock: MockClock
) -> None:
    """A page whose name was made to resolve to loopback (DNS rebinding) gets 403."""
    async with world() as w:
        visit = w.visit({}, "/streams", method="GET", headers={"host": host})
        await over(visit)
        assert visit.status == status


async def test_anonymous_clients_and_operators_together(
    autojump_clock: MockClock,
) -> None:
    """ALLOW_ANONYMOUS with ADMIN_KEYS: anybody chats, operators see the metrics."""
    env = {"ALLOW_ANONYMOUS": "1", "ADMIN_KEYS": "admin-key"}
    async with world(env=env) as w:
        visit = ask(w)
        await over(visit)
        assert visit.status == 200
        assert (await get(w, "/metrics")).status == 403
        assert (await get(w, "/metrics", "admin-key")).status == 200


async def test_metrics_are_for_operators_if_there_are_any(
    autojump_clock: MockClock,
) -> None:
    """An ordinary key reads `/metrics` only where there are no ADMIN_KEYS."""
    async with world(env=KEYS) as w:
        assert (await get(w, "/metrics", "first-key")).status == 403
        assert (await get(w, "/metrics", "admin-key")).status == 200
    async with world(env={"API_KEYS": "first-key"}) as w:
        assert (await get(w, "/metrics", "first-key")).status == 200
    async with world() as w:
        assert (await get(w, "/metrics")).status == 200


@pytest.mark.parametrize(
    ("env", "exposed"),
    [
        ({}, False),
        ({"HOST": "localhost"}, False),
        ({"HOST": "::1"}, False),
        ({"HOST": "0.0.0.0"}, True),
        ({"HOST": "::"}, True),
        ({"PORT": "0.0.0.0:80"}, True),
        ({"HOST": "example.org"}, True),
        ({"HOST": "0.0.0.0", "API_KEYS": "some-key"}, False),
        ({"HOST": "0.0.0.0", "ALLOW_ANONYMOUS": "1"}, False),
    ],
)
def test_serve_refuses_to_be_exposed(env: dict[str, str], exposed: bool) -> None:
    """Without keys `serve` binds to loopback only, and says what to do instead."""
    settings = load_settings(env, None)
    if not exposed:
        refuse_exposure(settings)
        return
    with pytest.raises(SettingsError, match="set API_KEYS, or ALLOW_ANONYMOUS=1"):
        refuse_exposure(settings)
