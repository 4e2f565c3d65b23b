"""The page's modules by themselves, as the browser runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import visits
from tests.support.serving import ServerProcess

PARSE = """async (ways) => {
    const { EventParser } = await import("/page/sse.js");
    return ways.map((cuts) => {
        const parser = new EventParser();
        return cuts.flatMap((cut) => parser.push(cut));
    });
}"""
BLOCKS = """async (text) => {
    const { blocksOf } = await import("/page/render.js");
    return blocksOf(text);
}"""
GROW = """async (text) => {
    const { Rendering } = await import("/page/render.js");
    const [whole, grown] = ["div", "div"].map((tag) => document.createElement(tag));
    const all = new Rendering(whole, () => {});
    all.append(text);
    all.flush();
    const slow = new Rendering(grown, () => {});
    for (const character of text) {
        slow.append(character);
        slow.flush();
    }
    return [whole.innerHTML, grown.innerHTML];
}"""


@pytest.fixture(scope="module")
def page(browser: Browser, server: ServerProcess) -> Iterator[Page]:
    """The page, for its modules; they keep nothing from one call to the next."""
    with visits(browser, server) as open_page:
        yield open_page()


def cuts_of(text: str) -> list[list[str]]:
    """A text whole, letter by letter, and cut in two at each place."""
    halves = [[text[:i], text[i:]] for i in range(len(text))]
    return [[text], list(text), *halves]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("data: a\n\n", [["message", "a"]]),
        ("data: a\r\n\r\ndata: b\r\n\r\n", [["message", "a"], ["message", "b"]]),
        ("data: a\r\rdata: b\r\r", [["message", "a"], ["message", "b"]]),
        ("\ufeffdata:a\n\n", [["message", "a"]]),
        ("event: x\ndata: a\ndata:  b\n\n", [["x", "a\n b"]]),
        (": comment\n\ndata: a\n\n", [["message", "a"]]),
        ("event: x\n\ndata: a\n\n", [["message", "a"]]),
        ("data\n\n", [["message", ""]]),
        ("id: 1\nretry: 2\nnonsense\ndata: a\n\n", [["message", "a"]]),
        ("data: a\u2028b\u0085c\n\n", [["message", "a\u2028b\u0085c"]]),
        ("data: cut off", []),
    ],
)
def test_events_are_parsed_in_any_cuts(
    page: Page, text: str, events: list[list[str]]
) -> None:
    """CR, LF and CRLF end lines wherever the network cuts (WHATWG HTML 9.2.6)."""
    ways = cuts_of(text)
    for cuts, found in zip(ways, page.evaluate(PARSE, ways), strict=True):
        assert [[e["type"], e["data"]] for e in found] == events, cuts


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("one\ntwo\n\nthree", ["text", "text"]),
        ("a\n```py\nb\n\nc\n```\nd", ["text", "code", "text"]),
        ("```\nnever closed", ["code"]),
        ("~~~~\n```\n~~~~", ["code"]),
        ("# Title\ntext", ["heading", "text"]),
        ("- a\n- b\n\n1. c", ["list", "list"]),
        ("", []),
    ],
)
def test_text_is_cut_into_blocks(page: Page, text: str, kinds: list[str]) -> None:
    """Paragraphs, code, lists and headings are told apart."""
    blocks: list[dict[str, Any]] = page.evaluate(BLOCKS, text)
    assert [block["kind"] for block in blocks] == kinds, json.dumps(blocks)


def test_text_that_grows_ends_up_as_text_that_came_at_once(page: Page) -> None:
    """However an answer arrives, it is rendered the same."""
    text = (
        "# T\nHi `x` **y**\n\n```python\na = 1\n\nb\n```\n1. one\n2. two\n\n- last\nend"
    )
    whole, grown = page.evaluate(GROW, text)
    assert whole == grown
    assert "<pre" in whole
