"""`/openapi.json` and `/docs`."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any

from trio.testing import MockClock

from scripts import openapi
from tests.support.completions import over
from tests.support.world import Visit, World, world

PATHS = {
    "/chat",
    "/health",
    "/ready",
    "/metrics",
    "/streams",
    "/streams/live",
    "/streams/{request_id}",
    "/streams/{request_id}/events",
    "/usage",
    "/v1/chat/completions",
    "/v1/generation",
    "/v1/key",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    "/v1/models",
    "/v1/models/{model}",
}


async def get(w: World, path: str) -> Visit:
    """Send a GET and wait for its end."""
    visit = w.visit({}, path, method="GET")
    await over(visit)
    return visit


def references(value: Any) -> Iterator[str]:
    """Yield every `$ref` of a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_files_are_those_of_the_models() -> None:
    """Document and page are what the script makes of the models today."""
    for path, text in openapi.files().items():
        assert path.read_text() == text, "run `uv run python -m scripts.openapi`"


async def test_every_route_is_described(autojump_clock: MockClock) -> None:
    """Routes and document name the same methods of the same paths."""
    async with world() as w:
        rules = w.app.url_map.iter_rules()
        methods = {
            (method.lower(), re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule))
            for rule in rules
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
            if not rule.rule.startswith(("/page/", "/static/"))
        }
        described = {(one.method, one.path) for one in openapi.OPERATIONS}
        undescribed = {("get", "/"), ("get", "/docs"), ("get", "/openapi.json")}
        assert methods - undescribed == described


async def test_every_path_is_described(autojump_clock: MockClock) -> None:
    """The document names each path of the API, and what it names is there."""
    async with world() as w:
        document = (await get(w, "/openapi.json")).json()
        assert document["openapi"].startswith("3.1")
        assert set(document["paths"]) == PATHS
        schemas = document["components"]["schemas"]
        found = set(references(document))
        assert found <= {f"#/components/schemas/{name}" for name in schemas}
        for operations in document["paths"].values():
            for operation in operations.values():
                assert operation["summary"]
                assert "200" in operation["responses"]


async def test_bodies_are_the_validated_models(autojump_clock: MockClock) -> None:
    """The models of bodies are those that requests are validated with."""
    async with world() as w:
        schemas = (await get(w, "/openapi.json")).json()["components"]["schemas"]
        chat = schemas["ChatRequest"]
        assert chat["additionalProperties"] is False
        number, null = chat["properties"]["temperature"]["anyOf"]
        assert (number["maximum"], null) == (2, {"type": "null"})
        assert [o["required"] for o in chat["oneOf"]] == [["prompt"], ["messages"]]
        assert "additionalProperties" not in schemas["CompletionRequest"]


async def test_security_is_what_the_server_asks_for(autojump_clock: MockClock) -> None:
    """A server without keys asks for none; one with keys exempts the probes only."""
    async with world() as w:
        assert "security" not in (await get(w, "/openapi.json")).json()
    async with world(env={"API_KEYS": "some-long-key"}) as w:
        document = (await get(w, "/openapi.json")).json()
        assert document["security"] == [{"bearer": []}, {"api_key": []}]
        free = {
            path
            for path, operations in document["paths"].items()
            for operation in operations.values()
            if operation.get("security") == []
        }
        assert free == {"/health", "/ready"}


async def test_the_page_needs_nothing_from_elsewhere(autojump_clock: MockClock) -> None:
    """No script, no link out, and the one style is named by the policy's hash."""
    async with world() as w:
        visit = await get(w, "/docs")
        html = visit.body.decode()
        policy = visit.headers["content-security-policy"]
        assert "unsafe-inline" not in policy
        assert "<script" not in html
        assert "//" not in re.sub("<style>.*</style>", "", html, flags=re.DOTALL)
        (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
        digest = hashlib.sha256(style.encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy
        for path in PATHS:
            assert path in html
        for anchor in re.findall('href="#([^"]+)"', html):
            assert f'id="{anchor}"' in html
