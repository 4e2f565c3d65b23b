"""The page's modules by themselves, as the browser runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route

from tests.browser.conftest import visits
from tests.support.serving import ServerProcess

PARSE = """async (ways) => {
    const { EventParser } = await import("/page/sse.js");
    return ways.map((cuts) => {
        const parser = new EventParser();
        return cuts.flatMap((cut) => parser.push(cut));
    });
}"""
SHOW = """async ([text, cuts]) => {
    const { Rendering } = await import("/page/markdown.js");
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const body = document.createElement("div");
    const rendering = new Rendering(body, () => {});
    const size = Math.ceil(text.length / cuts);
    for (let at = 0; at < text.length; at += size) {
        rendering.append(text.slice(at, at + size));
        if (cuts > 1) await pause(40);
    }
    await rendering.finish();
    return body.innerHTML;
}"""


# What is on the screen of an answer that goes on for two thirds of a second.
GROW = """async (text) => {
    const { Rendering } = await import("/page/markdown.js");
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const body = document.createElement("div");
    const rendering = new Rendering(body, () => {});
    for (let at = 0; at < text.length; at += 15) {
        rendering.append(text.slice(at, at + 15));
        await pause(33);
    }
    const shown = body.textContent;
    await rendering.finish();
    return [shown, body.textContent];
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


def test_an_id_holds_until_the_next(page: Page) -> None:
    """An event without an id has the one before it (WHATWG HTML 9.2.6)."""
    text = "data: a\n\nid: 1\ndata: b\n\n: no event\n\ndata: c\n\nid:2\ndata: d\n\n"
    for found in page.evaluate(PARSE, cuts_of(text)):
        assert [event["id"] for event in found] == ["", "1", "1", "2"]


TEXT = """# Title
Some *italic*, **bold**, ~~gone~~ and `code`, [a link](https://example.org/).

| a | b |
|---|--:|
| 1 | 2 |

3. three
4. four
   - inner

> quoted

```python
x = 1

y = 2
```
After.

~~~
```
~~~"""


def test_markdown_is_what_it_says(page: Page) -> None:
    """Tables, links, quotes, italics, numbers that go on, nested lists, code."""
    html = page.evaluate(SHOW, [TEXT, 1])
    for part in (
        '<h3 dir="auto">Title</h3>',
        "<em>italic</em>",
        "<s>gone</s>",
        'href="https://example.org/" target="_blank" rel="noopener noreferrer"',
        '<td data-align="right" dir="auto">2</td>',
        '<ol start="3" dir="ltr">',
        "<blockquote",
        "<code>x = 1\n\ny = 2</code>",
        "<code>```</code>",
    ):
        assert part in html, html
    assert html.index("four") < html.index("<ul ") < html.index("inner")


RIGHT_TO_LEFT = """- אחד
  - one

> 1. "واحد" or one

| أ | b |
|---|---|
"""


def test_text_from_the_right_has_its_marks_there(page: Page) -> None:
    """Lists, quotes and tables have the direction of their first letter."""
    html = page.evaluate(SHOW, [RIGHT_TO_LEFT, 1])
    assert re.findall(r"<(ul|ol|blockquote|table) dir=\"(\w+)", html) == [
        ("ul", "rtl"),
        ("ul", "ltr"),
        ("blockquote", "rtl"),
        ("ol", "rtl"),
        ("table", "rtl"),
    ]


@pytest.mark.parametrize("cuts", [7, 25])
def test_text_that_grows_ends_up_as_text_that_came_at_once(
    page: Page, cuts: int
) -> None:
    """However an answer arrives, it is rendered the same."""
    assert page.evaluate(SHOW, [TEXT, cuts]) == page.evaluate(SHOW, [TEXT, 1])


def test_a_long_text_is_parsed_in_pieces(page: Page) -> None:
    """Code and paragraphs longer than one request are whole on the screen."""
    lines = [f"line {n:5}" for n in range(3000)]
    html = page.evaluate(SHOW, ["```\n" + "\n".join(lines) + "\n```\n**end**", 3])
    assert f"<code>{chr(10).join(lines)}</code>" in html
    assert "<strong>end</strong>" in html
    html = page.evaluate(SHOW, ["\n\n".join(lines), 1])
    assert all(line in html for line in lines)


@pytest.mark.parametrize("cuts", [1, 5])
@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_any_line_end_is_one(page: Page, end: str, cuts: int) -> None:
    """A CR ends a line, and a CRLF that is cut in two ends one."""
    assert page.evaluate(SHOW, [TEXT.replace("\n", end), cuts]) == page.evaluate(
        SHOW, [TEXT, 1]
    )
    letters = f"a{end}{end}b"
    html = page.evaluate(SHOW, [letters, len(letters)])
    assert html == '<p dir="auto">a</p><p dir="auto">b</p>'


LISTED = [f"item {n} of the list" for n in range(600)]
TABLE = "| h |\n|---|\n" + "\n".join(f"| {one} |" for one in LISTED)
NESTED = "\n".join(
    f"{'   - ' if n % 2 else '1. '}{one}" for n, one in enumerate(LISTED)
)


@pytest.mark.parametrize("cuts", [1, 3])
@pytest.mark.parametrize(
    ("text", "tag"),
    [
        (NESTED, "li"),
        (TABLE, "td"),
        (f"{TABLE}\n\nEnd.", "td"),
        (" ".join(LISTED), "p"),
    ],
)
def test_a_block_is_cut_where_it_can_be(
    page: Page, text: str, tag: str, cuts: int
) -> None:
    """Items, rows and words of a block that is parsed in pieces stay whole."""
    html = page.evaluate(SHOW, [text, cuts])
    found = [one.strip() for one in re.findall(rf"<{tag}\b[^>]*>([^<]*)", html)]
    if tag == "p":
        assert " ".join(found) == text
    else:
        assert found == LISTED


def test_half_a_character_spoils_no_text(page: Page) -> None:
    """A surrogate alone is shown as U+FFFD, and none is made by a cut."""
    html = ascii(page.evaluate(SHOW, ["a \ud83d **b**", 1]))
    assert r">a \ufffd <strong>b</strong></p>" in html
    html = ascii(page.evaluate(SHOW, ["x" * 7999 + "\U0001f600**b**", 1]))
    assert r">\U0001f600<strong>b</strong></p>" in html


PARSE_MANY = """async (number) => {
    const { parseMarkdown } = await import("/page/server.js");
    const fetch = window.fetch;
    const order = [];
    let open = 0;
    let most = 0;
    window.fetch = async (path, { body }) => {
        order.push(Number(JSON.parse(body).text));
        most = Math.max(most, (open += 1));
        await new Promise((resolve) => setTimeout(resolve, 1));
        open -= 1;
        return new Response("[]");
    };
    try {
        const texts = Array.from({ length: number }, (_, n) => String(n));
        await Promise.all(texts.map(parseMarkdown));
    } finally {
        window.fetch = fetch;
    }
    return [most, order];
}"""


def test_a_long_chat_is_parsed_from_its_end(page: Page) -> None:
    """Few requests at once, so that none waits too long; the newest ones first."""
    most, order = page.evaluate(PARSE_MANY, 50)
    assert most == 3
    assert order == [0, 1, 2, *range(49, 2, -1)]


def test_without_the_server_text_stays_as_it_was_written(page: Page) -> None:
    """Where nothing parses, nothing is lost."""
    page.route("**/page/markdown", lambda route: route.abort())
    assert page.evaluate(SHOW, ["**a** <b>", 1]) == '<p dir="auto">**a** &lt;b&gt;</p>'
    page.unroute("**/page/markdown")


def test_what_cannot_be_parsed_yet_is_shown_as_it_was_written(page: Page) -> None:
    """A server that drains parses nothing; text appears all the same."""
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=503, body="{}")

    page.route("**/page/markdown", refuse)
    text = "**a** <b>\n" * 30
    early, late = page.evaluate(GROW, text)
    assert len(early) > len(text) / 2
    assert late == text
    assert 1 <= len(asked) <= 3
    page.unroute("**/page/markdown")


OWNER = """async (owner) => {
    const { updateStream } = await import("/page/tree.js");
    const row = document.createElement("tbody");
    const stream = { id: "x", state: "waiting", outcome: null, model: "m", owner,
        began_at: 0, events: 0, attempts: 1, task: null };
    updateStream(row, stream, 1, {}, { open: false, owned: true, spark: () => "" });
    return row.querySelector("td.owner").textContent;
}"""


@pytest.mark.parametrize("owner", ["name:ann", "key:0123", "ip:2001:db8::/64", "local"])
def test_an_owner_is_told_by_what_tells_it_from_others(page: Page, owner: str) -> None:
    """In a narrow column the kind of a name is all that would be seen of it."""
    assert page.evaluate(OWNER, owner) == re.sub("^(name|key|ip):", "", owner)
