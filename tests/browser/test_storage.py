"""What the browser keeps, when it is full, closed, cleared, or changed meanwhile."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, ask, finished
from tests.support.serving import ServerProcess, until

CLOSED = """for (const name of ["sessionStorage", "localStorage", "indexedDB"]) {
    Object.defineProperty(window, name, {
        get() { throw new DOMException("denied", "SecurityError"); },
    });
}"""
PACED = "simulator/echo?delay_ms=10"
NUMBERS = " ".join(f"w{n}" for n in range(120))


def own_tab(visit: Open) -> Page:
    """Return a page in a tab that no other test has."""
    return visit(locale="en-GB")


def titles(page: Page) -> list[str]:
    """Open the list of chats; return their names, without the times."""
    page.get_by_role("button", name="Chats").click()
    expect(page.locator("#history")).to_be_visible()
    names = page.locator("#history-list .title").all_inner_texts()
    page.keyboard.press("Escape")
    return [name.splitlines()[0] for name in names]


def test_a_browser_that_keeps_nothing_can_chat(visit: Open) -> None:
    """The page works without any storage, lists its chat, and says it is not kept."""
    page = own_tab(visit)
    page.add_init_script(CLOSED)
    page.reload()
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    expect(finished(ask(page, "Rivers"))).to_have_attribute("data-end", "done")
    expect(page.locator("#unkept")).to_contain_text("only as long as this page")
    assert titles(page) == ["Rivers"]


def test_a_full_disk_is_said(visit: Open, server: ServerProcess) -> None:
    """What cannot be kept stays on the page; it is kept as soon as there is room."""
    page = own_tab(visit)
    quota = page.context.new_cdp_session(page)
    small = {"origin": server.url, "quotaSize": 10_000}
    quota.send("Storage.overrideQuotaForOrigin", small)
    finished(ask(page, f"Rivers {'r' * 9000}", "simulator/echo"))
    expect(page.locator("#unkept")).to_be_visible()
    assert titles(page)[0].startswith("Rivers")
    quota.send("Storage.overrideQuotaForOrigin", {"origin": server.url})
    finished(ask(page, "more"))
    expect(page.locator("#unkept")).to_be_hidden()
    page.reload()
    expect(page.locator(".user")).to_have_count(2)


def test_cleared_data_does_not_end_the_keeping(
    visit: Open, server: ServerProcess
) -> None:
    """A page whose site data was cleared keeps what it does from then on."""
    page = own_tab(visit)
    finished(ask(page, "one"))
    what = {"origin": server.url, "storageTypes": "indexeddb"}
    page.context.new_cdp_session(page).send("Storage.clearDataForOrigin", what)
    finished(ask(page, "two"))
    expect(page.get_by_role("status")).to_contain_text("Answer complete")
    page.reload()
    expect(page.locator(".user")).to_have_count(2)


def rename(page: Page, old: str, new: str) -> None:
    """Give a chat of the open list another name."""
    page.get_by_role("button", name=f"Rename: {old}").click()
    page.get_by_label("New name").fill(new)
    page.keyboard.press("Enter")
    expect(page.locator("#history-list")).to_contain_text(new)


def test_a_new_name_stays_and_costs_no_answer(visit: Open) -> None:
    """Renaming writes the name alone, and later answers leave it."""
    page = visit()
    answer = ask(page, NUMBERS, PACED)
    expect(answer.locator(".body")).to_contain_text("w1 w2")
    page.get_by_role("button", name="Chats").click()
    finished(answer)  # so the list is older than the answer's end
    expect(page.locator("#status")).to_contain_text("Answer complete")
    rename(page, "w0", "Numbers")
    page.keyboard.press("Escape")
    page.route("**/events*", lambda route: route.fulfill(status=404))
    page.reload()
    expect(finished(page.locator(".assistant"))).to_have_attribute("data-end", "done")
    finished(ask(page, "more"))
    assert titles(page) == ["Numbers"]


def test_two_tabs_keep_what_each_has_typed(visit: Open) -> None:
    """A draft is its tab's own, and an option that one sets costs no other."""
    first = visit()
    second = first.context.new_page()
    second.goto(first.url)
    for tab, option, value in (
        (first, "System prompt", "Be brief."),
        (second, "Temperature", "0.5"),
    ):
        tab.get_by_role("button", name="Options").click()
        tab.get_by_label(option).fill(value)
        tab.keyboard.press("Escape")
        tab.locator("#prompt").fill(f"a draft beside {option}")
    first.reload()
    expect(first.locator("#prompt")).to_have_value("a draft beside System prompt")
    expect(first.locator("#system")).to_have_value("Be brief.")
    expect(first.locator("#temperature")).to_have_value("0.5")
    second.close()


def test_what_is_deleted_stays_deleted(visit: Open, server: ServerProcess) -> None:
    """Deleting a chat whose answer runs ends the answer, and nothing writes it anew."""
    page = visit()
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    name = answer.get_attribute("data-request") or ""
    page.get_by_role("button", name="Chats").click()
    page.get_by_role("button", name="Delete: Go on").click()
    expect(page.locator("#history-note")).to_have_text("Nothing is kept yet.")
    page.keyboard.press("Escape")
    assert server.ended(name)["outcome"] == "cancelled"
    expect(page.locator("#messages li")).to_have_count(0)
    finished(ask(page, "Next"))
    expect(page.locator(".user p")).to_have_text("Next")
    assert titles(page) == ["Next"]


def test_what_is_deleted_in_another_tab_stays_deleted(
    visit: Open, server: ServerProcess
) -> None:
    """The tab that has it open lets go of it, ends its answer, and says why."""
    first = visit()
    finished(ask(first, "Rivers"))
    answer = ask(first, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    request_id = answer.get_attribute("data-request") or ""
    second = first.context.new_page()
    second.goto(first.url)
    second.get_by_role("button", name="Chats").click()
    second.get_by_role("button", name="Delete: Rivers").click()
    expect(first.locator("#notice")).to_contain_text("deleted in another tab")
    expect(first.locator("#messages li")).to_have_count(0)
    assert server.ended(request_id)["outcome"] == "cancelled"
    finished(ask(first, "Mountains"))
    expect(first.locator("#notice")).to_be_hidden()
    expect(first.get_by_role("status")).to_contain_text("Answer complete")
    assert titles(first) == ["Mountains"]
    second.close()


def test_a_chat_that_cannot_be_opened_says_why(visit: Open) -> None:
    """While an answer runs another chat stays shut, with a reason."""
    page = visit()
    finished(ask(page, "Rivers"))
    page.get_by_role("button", name="New chat").click()
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    page.get_by_role("button", name="Chats").click()
    page.locator("#history-list .title", has_text="Rivers").click()
    expect(page.locator("#history-note")).to_contain_text("stop it first")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    finished(answer)


def test_a_name_is_cut_between_characters(visit: Open) -> None:
    """Half an emoji is no name, and marks alone are one."""
    page = visit()
    finished(ask(page, "x" * 59 + "\U0001f600" * 2))
    assert titles(page) == ["x" * 59 + "\U0001f600"]
    page.get_by_role("button", name="New chat").click()
    finished(ask(page, "###"))
    until(lambda: titles(page)[0] == "###")
