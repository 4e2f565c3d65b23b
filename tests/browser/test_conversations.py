"""What the page keeps and what can be done with it; nothing typed is lost."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import Open, ask, choose, finished
from tests.support.serving import ServerProcess
from trio_ai_stream.http.page.page_routes import FOLDER


def bodies_of(page: Page) -> list[dict[str, Any]]:
    """Collect what the page sends to `/chat`."""
    found: list[dict[str, Any]] = []

    def collect(request: Request) -> None:
        if request.url.endswith("/chat"):
            found.append(request.post_data_json or {})

    page.on("request", collect)
    return found


def test_the_page_is_light() -> None:
    """The first load is 150 kB at most, uncompressed."""
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 150_000


def test_a_conversation_and_a_draft_survive_a_reload(visit: Open) -> None:
    """Messages, their endings and what was typed are there again, and go on."""
    page = visit()
    bodies = bodies_of(page)
    finished(ask(page, "First **one**.", "simulator/echo"))
    page.locator("#prompt").fill("half a thought")
    page.reload()
    answer = finished(page.locator(".assistant"))
    expect(answer.locator("strong")).to_have_text("one")
    expect(answer.locator(".line")).to_contain_text("completed")
    expect(page.locator("#prompt")).to_have_value("half a thought")
    page.locator("#prompt").press("Enter")
    expect(page.locator(".assistant")).to_have_count(2)
    assert [m["role"] for m in bodies[-1]["messages"]] == ["user", "assistant", "user"]


def test_chats_are_listed_renamed_exported_and_deleted(visit: Open) -> None:
    """The list is the browser's own; a deleted conversation is gone."""
    page = visit()
    finished(ask(page, "Rivers", "simulator/echo"))
    page.get_by_role("button", name="New chat").click()
    finished(ask(page, "Mountains", "simulator/echo"))
    page.get_by_role("button", name="Chats").click()
    titles = page.locator("#history-list .title")
    expect(titles).to_have_text([re.compile("Mountains"), re.compile("Rivers")])
    page.get_by_role("button", name="Rename: Rivers").click()
    page.get_by_label("New name").fill("Water")
    page.keyboard.press("Enter")
    expect(titles.last).to_contain_text("Water")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export: Water").click()
    assert "## You\n\nRivers" in download.value.path().read_text()
    page.get_by_role("button", name="Delete: Mountains").click()
    expect(titles).to_have_count(1)
    titles.click()
    expect(page.locator(".user > p")).to_have_text("Rivers")


def test_an_export_says_of_an_answer_that_it_is_not_whole(visit: Open) -> None:
    """What broke off, was cut or was a tool call is written as such."""
    page = visit()
    finished(ask(page, "One.", "simulator/drop"))
    finished(ask(page, "Two.", "simulator/fast?finish=length"))
    finished(ask(page, "Three.", "simulator/tools"))
    finished(ask(page, "Four.", "simulator/echo"))
    page.get_by_role("button", name="Chats").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    answers = download.value.path().read_text().split("## Answer\n")[1:]
    assert "*This answer broke off: " in answers[0]
    assert "*This answer was cut off at the limit" in answers[1]
    assert "Tool call get_weather: {" in answers[2]
    assert answers[3] == "\nFour.\n"


def test_edit_and_retry_replace_what_follows(visit: Open) -> None:
    """An earlier message is changed and sent anew; an answer is asked for again."""
    page = visit()
    bodies = bodies_of(page)
    finished(ask(page, "One.", "simulator/echo"))
    finished(ask(page, "Two.", "simulator/echo"))
    page.locator("#prompt").fill("a draft")
    page.locator(".user").first.get_by_role("button", name="Edit").click()
    expect(page.locator("#prompt")).to_have_value("One.")
    page.locator("#prompt").fill("Uno.")
    page.locator("#prompt").press("Enter")
    expect(page.locator(".user > p")).to_have_text(["Uno."])
    expect(page.locator("#prompt")).to_have_value("a draft")
    finished(page.locator(".assistant")).get_by_role("button", name="Retry").click()
    finished(page.locator(".assistant"))
    asked = [[m["content"] for m in body["messages"]] for body in bodies[2:]]
    assert asked == [["Uno."], ["Uno."]]


@pytest.mark.parametrize("way", ["Retry", "Edit"])
def test_what_others_have_followed_is_not_lost(visit: Open, way: str) -> None:
    """What is asked anew has a chat of its own; the one as it was stays."""
    page = visit()
    for text in ("One.", "Two.", "Three."):
        finished(ask(page, text, "simulator/echo"))
    if way == "Retry":
        page.locator(".assistant").first.get_by_role("button", name=way).click()
        asked = ["One."]
    else:
        page.locator(".user").nth(1).get_by_role("button", name=way).click()
        page.locator("#prompt").fill("Dos.")
        page.locator("#prompt").press("Enter")
        asked = ["One.", "Dos."]
    expect(page.locator("#notice")).to_contain_text("kept under Chats")
    expect(page.locator(".user > p")).to_have_text(asked)
    finished(page.locator(".assistant").last)
    finished(ask(page, "Four.", "simulator/echo"))
    expect(page.locator("#notice")).to_be_hidden()
    page.get_by_role("button", name="Chats").click()
    page.locator("#history-list .title").last.click()
    expect(page.locator(".user > p")).to_have_text(["One.", "Two.", "Three."])


def test_a_chat_has_the_name_of_what_was_asked(visit: Open) -> None:
    """What was taken back, or written otherwise, names no chat."""
    page = visit()
    page.route("**/chat", lambda route: route.abort())
    choose(page, "simulator/echo")
    page.locator("#prompt").fill("Taken back")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Take back").click()
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_enabled(timeout=1000)
    page.unroute("**/chat")
    finished(ask(page, "Rivers", "simulator/echo"))
    titles = page.locator("#history-list .title")
    for name in ("Rivers", "Mountains"):
        page.get_by_role("button", name="Chats").click()
        expect(titles).to_have_text([re.compile(name)])
        page.keyboard.press("Escape")
        page.locator(".user").get_by_role("button", name="Edit").click()
        page.locator("#prompt").fill("Mountains")
        page.locator("#prompt").press("Enter")
        finished(page.locator(".assistant"))


def test_a_retry_ends_the_editing_of_what_it_replaces(visit: Open) -> None:
    """The message that was edited is gone, and what was typed before is back."""
    page = visit()
    for text in ("One.", "Two.", "Three."):
        finished(ask(page, text, "simulator/echo"))
    page.locator("#prompt").fill("a draft")
    page.locator(".user").last.get_by_role("button", name="Edit").click()
    page.locator(".assistant").first.get_by_role("button", name="Retry").click()
    expect(page.locator("#editing")).to_be_hidden()
    expect(page.locator("#prompt")).to_have_value("a draft")
    finished(page.locator(".assistant"))
    page.locator("#prompt").press("Enter")
    expect(page.locator(".user > p")).to_have_text(["One.", "a draft"])
    finished(page.locator(".assistant").last)
    page.reload()
    expect(page.locator(".user > p")).to_have_text(["One.", "a draft"])


def test_reasoning_is_folded_and_options_are_sent(visit: Open) -> None:
    """Thoughts open on demand; system prompt, temperature, tokens reach `/chat`."""
    page = visit()
    bodies = bodies_of(page)
    page.get_by_role("button", name="Options").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Most tokens").fill("30")
    page.keyboard.press("Escape")
    answer = finished(ask(page, "Hm?", "simulator/reasoning"))
    thoughts = answer.locator("details.thoughts")
    expect(thoughts.locator("p")).to_be_hidden()
    thoughts.get_by_text("Thoughts").click()
    expect(thoughts.locator("p")).to_contain_text("simple")
    assert bodies[0]["temperature"] == 0.5
    assert bodies[0]["max_tokens"] == 30
    assert bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    expect(page.get_by_role("button", name="Options (3)")).to_be_visible()


def test_tool_calls_are_named_and_folded(visit: Open) -> None:
    """Each call has its name; its arguments open on demand, also after a reload."""
    page = visit()
    answer = finished(ask(page, "Weather?", "simulator/agent"))
    for _ in range(2):
        calls = answer.locator("details.tool")
        expect(calls.locator("summary")).to_have_text(["Tool call get_weather"] * 2)
        expect(calls.first.locator("pre")).to_be_hidden()
        calls.first.locator("summary").click()
        expect(calls.first.locator("pre")).to_have_text(
            re.compile(r'^{\n  "location": ".*",\n  "days": \d+\n}$')
        )
        expect(answer.locator(".line")).to_contain_text("finish tool_calls")
        page.reload()


def test_the_list_of_models_is_searched(visit: Open) -> None:
    """Words find names and descriptions; arrows and Enter choose."""
    page = visit()
    page.locator("#model").click()
    page.locator("#model").fill("half second")
    options = page.locator("#models [role=option]")
    expect(options).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_have_value("simulator/slow")
    expect(page.locator("#models")).to_be_hidden()
    expect(page.locator("#hint")).to_contain_text("every half second")


def test_a_message_waits_for_its_server(visit: Open) -> None:
    """Before the first answer of the server, and while it is gone; it can be undone."""
    page = visit()
    page.route("**/chat", lambda route: route.abort())
    page.route("**/page/config", lambda route: route.abort())
    choose(page, "simulator/echo")
    page.locator("#prompt").fill("Taken back")
    page.keyboard.press("Enter")
    expect(page.locator(".user")).to_contain_text("Not sent")
    for dead in ("Send", "New chat"):
        expect(page.get_by_role("button", name=dead)).to_be_disabled()
    expect(page.get_by_role("button", name="Edit")).to_be_hidden()
    page.get_by_role("button", name="Take back").click()
    expect(page.locator("#prompt")).to_have_value("Taken back")
    expect(page.get_by_role("button", name="New chat")).to_be_enabled()
    page.reload()
    page.locator("#prompt").fill("Patience")
    page.keyboard.press("Enter")
    expect(page.locator(".user")).to_contain_text("Not sent")
    page.unroute("**/chat")
    page.unroute("**/page/config")
    expect(page.locator(".user")).to_have_count(1)
    expect(finished(page.locator(".assistant"))).to_contain_text("Patience")
    expect(page.locator(".user")).not_to_contain_text("Not sent")


def test_the_banner_can_be_put_away(visit: Open) -> None:
    """And stays away; each answer still says that it is the simulator's."""
    page = visit()
    page.get_by_role("button", name="Put this note away").click()
    expect(page.get_by_role("note")).to_be_hidden()
    page.reload()
    finished(ask(page, "Hello."))
    expect(page.get_by_role("note")).to_be_hidden()
    expect(page.locator(".assistant .line")).to_contain_text("simulator")


def test_keys_of_an_input_method_are_its_own(visit: Open) -> None:
    """Enter takes a word, Escape leaves it: nothing is sent, named, chosen, stopped."""
    page = visit()
    finished(ask(page, "Rivers", "simulator/echo"))
    keys = page.context.new_cdp_session(page)

    def compose(key: str) -> None:
        word = {"text": "nihon", "selectionStart": 5, "selectionEnd": 5}
        keys.send("Input.imeSetComposition", word)
        expect(page.locator(":focus")).to_have_value(re.compile("nihon"))
        page.keyboard.press(key)

    page.get_by_role("button", name="Chats").click()
    page.get_by_role("button", name="Rename").click()
    compose("Enter")
    keys.send("Input.insertText", {"text": "\u65e5\u672c"})
    expect(page.get_by_label("New name")).to_have_value(re.compile("\u65e5\u672c"))
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Rename")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Chats")).to_be_focused()
    page.locator("#prompt").focus()
    compose("Enter")
    # What Safari says of the Enter that ends a word.
    page.locator("#prompt").dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    expect(page.locator(".user")).to_have_count(1)
    page.locator("#prompt").fill("")
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    compose("Escape")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    keys.send("Input.insertText", {"text": ""})
    page.keyboard.press("Escape")
    expect(finished(answer).locator(".card.stopped")).to_be_visible()


def test_a_phone_in_landscape_keeps_its_chat(visit: Open) -> None:
    """At 740 by 360 the conversation has a quarter of the height at least."""
    page = visit()
    page.set_viewport_size({"width": 740, "height": 360})
    finished(ask(page, "Hello."))
    assert page.locator("#scroll").evaluate("e => e.clientHeight") >= 90
    expect(page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)


def test_without_scripts_a_sentence_says_so(visit: Open, server: ServerProcess) -> None:
    """Who has no JavaScript is told what to use."""
    browser = visit().context.browser
    assert browser is not None
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(server.url)
    expect(page.locator("noscript p")).to_contain_text("This page needs JavaScript")
    expect(page.locator("noscript p")).to_be_visible()
    page.context.close()
