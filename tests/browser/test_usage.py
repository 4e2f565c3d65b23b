"""The page of usage: sums, waste and budgets, own or all."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from tests.billing.test_usage_report import fill
from tests.browser.conftest import Open
from tests.browser.test_accessibility import LOOKS, violations
from tests.support.serving import ServerProcess

KEYS = """[[key]]
name = "somebody"
key = "some-key"
usd_per_day = 2.5
[[key]]
name = "other"
key = "other-key"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose ledger holds four streams of one key."""
    folder = tmp_path_factory.mktemp("server")
    fill(folder / "ledger.db")
    (folder / "keys.toml").write_text(KEYS)
    env = {"LEDGER_FILE": "ledger.db", "KEYS_FILE": "keys.toml"}
    process = ServerProcess(folder / "log", ADMIN_KEYS="admin-key", **env)
    yield process
    process.stop()


@pytest.fixture
def usage(visit: Open, server: ServerProcess) -> Open:
    """Open the page of usage with a key."""

    def open_page(key: str, query: str = "", **options: object) -> Page:
        page = visit(f"{server.url}/page/usage.html{query}", **options)
        expect(page.locator("#failed")).to_contain_text("got no key")
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type(key)
        page.keyboard.press("Enter")
        return page

    return open_page


@pytest.mark.parametrize("width", [1280, 320])
def test_the_page_says_what_streams_cost(usage: Open, width: int) -> None:
    """By what is chosen; who went on after the close; by keyboard, for everybody."""
    page = usage("admin-key", "?since=90d", width=width)
    expect(page.locator("#whose")).to_have_text("Of all keys.")
    expect(page.locator("#link")).to_have_text("4 streams")
    expect(page.locator("#waste tbody tr")).to_have_text("Groq11100 %400")
    expect(page.locator("#known")).to_contain_text("3 exact, 1 reconciled, 0 estimated")
    expect(page.locator("#budgets tbody tr")).to_contain_text(["somebodyday"])
    page.get_by_label("By", exact=True).focus()
    page.keyboard.type("prov")
    expect(page.locator("#sums tbody th")).to_have_text(["Groq", "Simulator"])
    assert page.url.endswith("?by=provider&since=90d")
    assert violations(page, LOOKS) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_key_sees_its_own(usage: Open) -> None:
    """Whatever the page asks for."""
    page = usage("other-key")
    expect(page.locator("#whose")).to_have_text("Of your own key, other.")
    expect(page.locator("#link")).to_have_text("0 streams")
    expect(page.locator("#budgets-section")).to_be_hidden()
    assert violations(page) == []
    page.get_by_label("API key").fill("some-key")
    page.keyboard.press("Enter")
    expect(page.locator("#link")).to_have_text("3 streams")


def test_the_chat_links_it(visit: Open) -> None:
    """Among the options."""
    page = visit()
    page.get_by_role("button", name="Options").click()
    link = page.get_by_role("link", name="What your streams have cost")
    expect(link).to_have_attribute("href", "/page/usage.html")


def test_what_is_shown_is_what_was_asked_last(usage: Open) -> None:
    """An answer that is overtaken by a later one is left out."""
    page = usage("admin-key", "?since=90d")
    expect(page.locator("#link")).to_have_text("4 streams")
    held: list[Route] = []
    page.route(re.compile(r"/usage\?by=model"), lambda route: held.append(route))
    with page.expect_request(re.compile(r"/usage\?by=model")):
        page.get_by_label("By", exact=True).select_option("model")
    page.get_by_label("By", exact=True).select_option("outcome")
    first = page.locator("#sums thead th").first
    expect(first).to_have_text("outcome")
    with page.expect_response(re.compile(r"/usage\?by=model")) as late:
        held[0].continue_()
    late.value.finished()
    page.evaluate("() => new Promise(requestAnimationFrame)")
    expect(first).to_have_text("outcome")
