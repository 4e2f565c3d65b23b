"""The page of a server that wants a key."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open, ask, choose, finished
from tests.browser.line import Line
from tests.support.serving import ServerProcess

KEY = "a-key-for-this-test-of-the-page"
OTHER = "another-key-for-this-test-of-the-page"
# Safari resets each field without autocompletion when Back shows a page again.
AS_IN_SAFARI = """() => {
    const kept = { persisted: true };
    dispatchEvent(new PageTransitionEvent("pagehide", kept));
    for (const field of document.querySelectorAll("input[autocomplete=off]")) {
        field.value = field.defaultValue;
    }
    dispatchEvent(new PageTransitionEvent("pageshow", kept));
}"""
NUMBERS = " ".join(f"w{n}" for n in range(120))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two keys."""
    log = tmp_path_factory.mktemp("server") / "log"
    process = ServerProcess(log, API_KEYS=f"{KEY},{OTHER}")
    yield process
    process.stop()


def test_without_a_key_the_page_asks_for_one(visit: Open) -> None:
    """The page itself opens, its key field has the focus, and `/chat` says 401."""
    page = visit()
    expect(page.locator("#key")).to_be_focused()
    expect(page.locator("#link")).to_have_text("needs the API key")
    answer = finished(ask(page, "Hello."))
    expect(answer.locator(".card.failed")).to_contain_text("missing_api_key (401)")


def test_with_its_key_all_works_and_the_key_stays_in_the_tab(visit: Open) -> None:
    """The key goes into sessionStorage only, and the live view follows with it."""
    page = visit()
    page.locator("#key").fill(KEY)
    page.locator("#key").press("Tab")
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    answer = finished(ask(page, "Hello."))
    expect(answer).to_have_attribute("data-end", "done")
    assert KEY in page.evaluate("JSON.stringify(sessionStorage)")
    assert page.evaluate("document.cookie") == ""
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")
    page.reload()
    expect(page.locator("#key")).to_have_value(KEY)
    expect(page.locator("#link")).to_have_attribute("data-state", "live")


def test_enter_in_the_field_of_the_key_sends_nothing(visit: Open) -> None:
    """It takes the key; what is half written in the message box stays there."""
    page = visit()
    page.locator("#prompt").fill("half a thought")
    page.locator("#key").fill(KEY)
    page.locator("#key").press("Enter")
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    expect(page.locator("#prompt")).to_have_value("half a thought")
    expect(page.locator(".user")).to_have_count(0)


def test_what_can_be_no_key_is_told_by_the_server(visit: Open) -> None:
    """A letter that no header holds is sent all the same; nobody waits for it."""
    page = visit()
    page.locator("#key").fill("\u043a\u043b\u044e\u0447\u200b")
    page.locator("#key").press("Tab")
    answer = finished(ask(page, "Hello."))
    expect(answer.locator(".card.failed")).to_contain_text("(401)")
    expect(page.locator("#link")).to_have_text("needs the API key")


@pytest.mark.parametrize("reload", [False, True])
def test_an_answer_keeps_the_key_that_it_was_asked_for_with(
    visit: Open, server: ServerProcess, reload: bool
) -> None:
    """With another key in the field it still reconnects, and Stop still ends it."""
    line = Line(server.url)
    page = visit(line.url)
    page.locator("#key").fill(KEY)
    page.locator("#key").press("Tab")
    answer = ask(page, NUMBERS, "simulator/echo?delay_ms=20")
    expect(answer.locator(".body")).to_have_text(re.compile("w1 w2"))
    page.locator("#key").fill(OTHER)
    page.locator("#key").press("Tab")
    line.cut()
    line.mend()
    if reload:
        page.reload()
    assert finished(answer).locator(".body").inner_text() == NUMBERS
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    page.locator("#key").fill(KEY)
    page.locator("#key").press("Tab")
    if reload:
        page.reload()
    page.get_by_role("button", name="Stop").click()
    expect(finished(answer).locator(".card.stopped")).to_be_visible()
    record = server.ended(answer.get_attribute("data-request") or "")
    assert record["outcome"] == "cancelled"
    line.cut()


@pytest.mark.parametrize("path", ["/", "/page/usage.html"])
def test_key_and_model_are_there_after_back(
    visit: Open, server: ServerProcess, path: str
) -> None:
    """A page that is shown again has what stood in it, and asks with that."""
    page = visit()
    page.locator("#key").fill(KEY)
    page.locator("#key").press("Tab")
    choose(page, "simulator/echo")
    page.goto(f"{server.url}{path}")
    expect(page.locator("#key")).to_have_value(KEY)
    page.evaluate(AS_IN_SAFARI)
    expect(page.locator("#key")).to_have_value(KEY)
    if path == "/":
        expect(page.locator("#model")).to_have_value("simulator/echo")
        return
    page.evaluate("document.querySelector('#key').value = ''")  # not by the reader
    with page.expect_request("**/usage?*") as asked:
        page.get_by_role("button", name="Ask").click()
    assert asked.value.headers["authorization"] == f"Bearer {KEY}"
