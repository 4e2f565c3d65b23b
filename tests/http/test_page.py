"""The page's files as the server gives them out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.completions import over
from tests.support.world import Visit, World, world
from trio_ai_stream.http.page.markdown import blocks
from trio_ai_stream.http.page.page_routes import FOLDER, POLICY

ANY_LINK = ["a", {"href": "https://h/p"}, "i"]


async def get(w: World, path: str, method: str = "GET", **headers: str) -> Visit:
    """Fetch one path."""
    visit = w.visit(b"", path, method=method, headers=headers)
    await over(visit)
    return visit


@pytest.mark.parametrize("path", ["/", *(f"/page/{p.name}" for p in FOLDER.iterdir())])
async def test_a_file_is_validated_by_its_etag(path: str) -> None:
    """A second visit costs a 304 without a body; the policy stands on both."""
    async with world() as w:
        first = await get(w, path)
        assert first.status == 200
        assert first.body
        assert first.headers["cache-control"] == "no-cache"
        assert first.headers["content-security-policy"] == POLICY
        second = await get(w, path, **{"if-none-match": first.headers["etag"]})
        assert (second.status, second.body) == (304, b"")
        assert second.headers["etag"] == first.headers["etag"]
        changed = await get(w, path, **{"if-none-match": '"another"'})
        assert changed.body == first.body


async def test_a_head_request_is_answered_alike() -> None:
    """HEAD has GET's headers; leaving out the body is the HTTP server's part."""
    async with world() as w:
        head = await get(w, "/", "HEAD")
        whole = await get(w, "/")
        assert head.status == 200
        for name in ("content-length", "content-type", "etag"):
            assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    "path", ["/page/nothing.js", "/page/", "/page/../app.py", "/page/%2e%2e/app.py"]
)
async def test_only_the_page_is_given_out(path: str) -> None:
    """There is a list of files, and nothing beside it."""
    async with world() as w:
        assert (await get(w, path)).status == 404


async def test_the_files_do_not_use_up_the_rate() -> None:
    """A page of many files leaves what `/chat` is allowed untouched."""
    async with world() as w:
        for _ in range(1100):  # the world allows 1000 requests at once
            visit = await get(w, "/page/icon.svg")
            assert visit.status == 200
            assert "ratelimit" not in visit.headers


@pytest.mark.parametrize(
    ("env", "upstream", "key_needed"),
    [
        ({}, "simulator", False),
        ({"API_KEYS": "one-of-the-keys"}, "simulator", True),
        ({"OPENROUTER_API_KEY": "sk-secret"}, "openrouter", False),
    ],
)
async def test_the_page_is_told_what_it_must_know(
    env: dict[str, str], upstream: str, key_needed: bool
) -> None:
    """Who answers, whether a key is needed, the faults of a simulator; no secret."""
    async with world(env=env) as w:
        config = await get(w, "/page/config")
        document = config.json()
        assert document["upstream"] == upstream
        assert document["key_needed"] is key_needed
        assert bool(document["faults"]) is (upstream == "simulator")
        assert document["budgets"]["idle"] == 60
        for secret in env.values():
            assert secret.encode() not in config.body


async def test_the_page_is_told_what_a_sighup_has_changed() -> None:
    """The bound of a conversation is the one that counts now."""
    async with world() as w:
        assert (await get(w, "/page/config")).json()["max_messages_length"] > 77
        services = w.app.services
        services.settings = replace(services.settings, MAX_MESSAGES_LENGTH=77)
        assert (await get(w, "/page/config")).json()["max_messages_length"] == 77


def test_no_file_has_anything_inline_or_from_elsewhere() -> None:
    """Neither script nor style in the markup, no address with a host anywhere."""
    for path in FOLDER.iterdir():
        text = path.read_text()
        hosts = re.findall(r"https?://[^\"'\s]*", text)
        assert set(hosts) <= {"http://www.w3.org/2000/svg"}, path
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text
    page = Path(FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


def test_the_page_links_every_file() -> None:
    """No file is there for nothing: the page or another module names each."""
    texts = {path.name: path.read_text() for path in FOLDER.iterdir()}
    for name in texts.keys() - {"index.html"}:
        assert any(f"/{name}" in text for text in texts.values()), name


async def test_markdown_becomes_a_tree_without_markup() -> None:
    """HTML is text, a script is no link, an image is a link, a long text is refused."""
    async with world() as w:
        text = "# T\n<b>x</b> [a](javascript:1) ![i](https://h/p)\n\n2. b"
        asked = w.visit(json.dumps({"text": text}).encode(), "/page/markdown")
        await over(asked)
        assert asked.json() == [
            [0, ["h3", {}, "T"]],
            [1, ["p", {}, "<b>x</b> [a](javascript:1) !", ANY_LINK]],
            [3, ["ol", {"start": "2"}, ["li", {}, "b"]]],
        ]
        long = w.visit(json.dumps({"text": "x" * 8001}).encode(), "/page/markdown")
        await over(long)
        assert long.status == 400


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"{'  ' * n}- w{n}w" for n in range(30)),
        "\n".join(f"{'>' * n} w{n}w\n" for n in range(30)),
        "\n".join(f"{'> - ' * n} w{n}w\n" for n in range(30)),
    ],
)
def test_what_is_nested_too_deep_is_text(text: str) -> None:
    """The parser's bound on nesting leaves nothing out."""
    shown = json.dumps(blocks(text))
    assert [n for n in range(30) if f"w{n}w" not in shown] == []


def test_a_table_makes_up_few_cells() -> None:
    """Rows that are shorter than a wide head do not multiply the work."""
    table = f"{'a|' * 500}\n{'-|' * 500}\n" + "x\n" * 3000
    assert len(json.dumps(blocks(table))) < 50_000
    assert blocks("a|b\n-|-\nx")[0][1][0] == "table"


async def test_markdown_is_parsed_for_those_with_a_key() -> None:
    """Parsing costs more than a file, so it needs what `/chat` needs."""
    async with world(env={"API_KEYS": "one-of-the-keys"}) as w:
        asked = w.visit(b'{"text":"x"}', "/page/markdown", headers={})
        await over(asked)
        assert asked.status == 401


_ROOMS = ("billing", "http", "resume", "stream", "upstream", "wire")
# What a chat is never told: other endpoints' refusals; an end that has a card of its
# own, or that nobody is there to read.
_NOT_OF_A_CHAT = {
    *("generations_unavailable", "ledger_unavailable", "streams_unavailable"),
    *("model_not_found", "cancelled", "superseded", "abandoned"),
}


def test_the_page_has_words_for_every_error() -> None:
    """Every type of error that the code names has a sentence for people."""
    package = FOLDER.parent.parent.parent
    named = re.compile(r'(?:\(\s*[45]\d\d,|_ours\()\s*"([a-z]+(?:_[a-z]+)*)",')
    folders = [package / one for one in _ROOMS]
    sources = [file for one in folders for file in one.rglob("*.py")]
    types = {found for file in sources for found in named.findall(file.read_text())}
    assert {"too_many_requests", "upstream_timeout", "overloaded"} <= types
    script = (FOLDER / "receipt.js").read_text()
    words = set(re.findall(r"^  ([a-z_]+): ", script, re.MULTILINE))
    assert not types - words - _NOT_OF_A_CHAT
