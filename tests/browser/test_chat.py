"""The chat of the page, in a real browser against a real server."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import Page, Request, Route, expect

from tests.browser.conftest import Open, ask, choose, finished
from tests.support.serving import ServerProcess, until

MADE = {"p", "code", "strong", "pre", "ul", "li", "h3", "div", "span", "button"}


def test_an_answer_appears_word_by_word(visit: Open) -> None:
    """Text is on the screen, and grows, while the stream is still running."""
    page = visit()
    answer = ask(page, "Slowly, please.", "simulator/slow")
    body = answer.locator(".body")
    expect(body).to_have_text(re.compile(r"\w"))
    early = body.inner_text()
    until(lambda: len(body.inner_text()) > len(early))
    expect(answer).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Escape")
    finished(answer)


def test_a_whole_answer_says_how_it_went(visit: Open) -> None:
    """Under a completed answer stand outcome, events and tokens."""
    answer = finished(ask(visit(), "Hello."))
    expect(answer.locator(".line")).to_have_text(
        re.compile(r"simulator · completed · first word .* · \d+ events .* \d+ tokens")
    )


LEFT = "e => e.scrollHeight - e.scrollTop - e.clientHeight"


def test_who_reads_is_left_in_peace(visit: Open) -> None:
    """The end stays in view, also in another window, until somebody scrolls up."""
    page = visit()
    lines = " ".join(f"w{n}\n\n" for n in range(900))
    answer = ask(page, lines, "simulator/echo?delay_ms=5")
    scroll = page.locator("#scroll")
    expect(answer.locator(".body")).to_have_text(re.compile("w100"))
    assert scroll.evaluate(LEFT) < 60
    box = scroll.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    for _ in range(60):  # a finger that moves slowly
        page.mouse.wheel(0, -12)
    until(lambda: scroll.evaluate(LEFT) > 500)
    scroll.evaluate("e => e.scrollTop = e.scrollHeight")
    until(lambda: scroll.evaluate(LEFT) < 60)
    page.keyboard.press("Escape")
    finished(answer)
    scroll.evaluate("e => e.scrollTop = e.scrollHeight")
    page.set_viewport_size({"width": 500, "height": 500})
    until(lambda: scroll.evaluate(LEFT) < 4)


def test_stop_shows_what_the_server_did(visit: Open, server: ServerProcess) -> None:
    """Stop cancels by id; outcome, time to upstream's close and events are shown."""
    page = visit()
    for way in ("escape", "button"):
        answer = ask(page, "Go on for ever.", "simulator/endless")
        expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
        if way == "escape":
            page.keyboard.press("Escape")
        else:
            page.get_by_role("button", name="Stop").click()
        card = finished(answer).locator(".card.stopped")
        expect(card).to_contain_text("You stopped this answer")
        record = server.ended(answer.get_attribute("data-request") or "")
        assert record["outcome"] == "cancelled"
        assert 0 <= record["cancel_latency_ms"] < 1000
        expect(card.locator("dd").nth(0)).to_have_text("cancelled")
        expect(card.locator("dd").nth(1)).to_have_text(re.compile("ms after the stop"))
        events = f"{record['events']:,} event"
        expect(card.locator("dd").nth(2)).to_have_text(re.compile(events))
        expect(card.locator("dd").nth(3)).to_contain_text("error: cancelled")
        said = "Stopped. Outcome: cancelled."
        expect(page.get_by_role("status")).to_have_text(said)


def test_a_flood_drowns_neither_the_page_nor_its_stop(
    visit: Open, server: ServerProcess
) -> None:
    """As fast as it is read: the display has an end, and Stop still works at once."""
    page = visit()
    answer = ask(page, "Flood me.", "simulator/flood")
    expect(answer).to_contain_text("The display stops here")
    page.keyboard.press("Escape")
    expect(finished(answer).locator(".card.stopped")).to_be_visible()
    assert len(answer.locator(".body").inner_text()) < 250_000
    record = server.ended(answer.get_attribute("data-request") or "")
    assert record["outcome"] == "cancelled"


def test_stop_before_upstream_has_answered(visit: Open, server: ServerProcess) -> None:
    """A stream that has nothing yet is stopped as well, and the page says so."""
    page = visit()
    answer = ask(page, "Are you there?", "simulator/no-answer")
    expect(answer).to_have_attribute("data-request", re.compile("."))
    page.keyboard.press("Escape")
    card = finished(answer).locator(".card.stopped")
    expect(card).to_contain_text("after the stop")
    record = server.ended(answer.get_attribute("data-request") or "")
    assert record["outcome"] == "cancelled"
    assert record["cancel_latency_ms"] is not None


def sent_bodies(page: Page) -> list[dict[str, Any]]:
    """Collect what the page sends to `/chat`."""
    bodies: list[dict[str, Any]] = []

    def collect(request: Request) -> None:
        if request.url.endswith("/chat"):
            bodies.append(request.post_data_json or {})

    page.on("request", collect)
    return bodies


def test_the_conversation_so_far_is_sent(visit: Open) -> None:
    """The second question carries the first and its answer."""
    page = visit()
    bodies = sent_bodies(page)
    finished(ask(page, "First.", "simulator/echo"))
    finished(ask(page, "Second.", "simulator/echo"))
    assert [m["role"] for m in bodies[1]["messages"]] == ["user", "assistant", "user"]
    assert [m["content"] for m in bodies[1]["messages"]] == [
        "First.",
        "First.",
        "Second.",
    ]


def test_what_does_not_fit_is_left_out_from_the_start(visit: Open) -> None:
    """Beyond MAX_MESSAGES_LENGTH the oldest messages stay behind, and it is said."""
    page = visit()
    bodies = sent_bodies(page)
    finished(ask(page, "a" * 9000, "simulator/echo"))
    answer = finished(ask(page, "b" * 9000, "simulator/echo"))
    assert [m["content"][0] for m in bodies[1]["messages"]] == ["a", "b"]
    expect(answer).to_contain_text("1 older left out")


def test_a_long_conversation_is_sent_whole(visit: Open) -> None:
    """Old turns stay: MAX_PROMPT_LENGTH is not the limit of a conversation."""
    page = visit()
    bodies = sent_bodies(page)
    finished(ask(page, "a" * 3900, "simulator/echo"))
    answer = finished(ask(page, "b" * 3900, "simulator/echo"))
    assert [m["content"][0] for m in bodies[1]["messages"]] == ["a", "a", "b"]
    expect(answer).not_to_contain_text("left out")


def test_no_answer_keeps_a_chat_from_going_on(visit: Open) -> None:
    """What a model may write and no request may hold is replaced in the next one."""
    page = visit()
    bodies = sent_bodies(page)

    def odd(route: Route) -> None:
        event = {"request_id": "x", "type": "content", "content": "a \ud83d b\x00 \x1b"}
        done = {"type": "done", "content": "", "finish_reason": "stop"}
        text = "".join(f"data: {json.dumps(one)}\n\n" for one in (event, done))
        route.fulfill(body=text, content_type="text/event-stream")

    page.route("**/chat", odd)
    finished(ask(page, "First."))
    page.unroute("**/chat")
    answer = finished(ask(page, "Second\x1b[0m.", "simulator/echo"))
    expect(answer).to_have_attribute("data-end", "done")
    contents = [m["content"] for m in bodies[1]["messages"]]
    assert contents == ["First.", "a \ufffd b\ufffd \ufffd", "Second\ufffd[0m."]


def test_an_address_with_a_password_opens_the_page(
    visit: Open, server: ServerProcess
) -> None:
    """What a proxy before the server may want does not keep the page from asking."""
    url = server.url.replace("://", "://name:password@")
    page = visit(url, locale="en-GB")  # a tab of its own
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    expect(finished(ask(page, "Hello."))).to_have_attribute("data-end", "done")


def test_a_new_chat_forgets(visit: Open) -> None:
    """After New chat the next question stands alone."""
    page = visit()
    bodies = sent_bodies(page)
    finished(ask(page, "First.", "simulator/echo"))
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#messages li")).to_have_count(0)
    finished(ask(page, "Second.", "simulator/echo"))
    assert [m["content"] for m in bodies[1]["messages"]] == ["Second."]


FAULTS = [
    ("simulator/error", "upstream_unavailable (502)", 5),
    ("simulator/drop", "upstream_failed (502)", 5),
    ("simulator/truncated", "upstream_failed (502)", 5),
    ("simulator/no-credit", "upstream_payment_required (502)", 0),
]


def test_a_fault_is_shown_with_what_came_before_it(visit: Open) -> None:
    """The card names the error; the words that did come stay."""
    page = visit()
    for model, told, words in FAULTS:
        answer = finished(ask(page, "Fail, please.", model))
        expect(answer).to_have_attribute("data-end", "error")
        expect(answer.locator(".card.failed code")).to_have_text(told)
        expect(answer.locator(".card.failed dd")).to_contain_text(f"{words} events in")
        assert bool(answer.locator(".body").inner_text()) is (words > 0)


def test_what_is_not_whole_is_said_in_words(visit: Open) -> None:
    """A filter and a limit that cut an answer; a model that does not exist."""
    page = visit()
    cut = {"content_filter": "by the provider's filter", "length": "at the limit"}
    for finish, words in cut.items():
        answer = finished(ask(page, "Hello.", f"simulator/fast?finish={finish}"))
        expect(answer.locator(".line")).to_contain_text(f"cut off {words}")
    card = finished(ask(page, "Hello.", "simulator/not-found")).locator(".failed")
    expect(card.locator(".title")).to_contain_text("There is no such model")
    card.get_by_role("button", name="Choose another model").click()
    expect(page.locator("#model")).to_be_focused()


def test_the_simulator_is_announced(visit: Open) -> None:
    """Nobody takes the simulator for a model, and each of its faults is in the menu."""
    page = visit()
    note = page.get_by_role("note")
    expect(note).to_contain_text("No model answers here")
    expect(note).to_be_in_viewport()
    page.locator("#model").click()
    menu = page.locator("#models [role=option] > span:first-child").all_inner_texts()
    assert {f"simulator/{one}" for one in ("default", "endless", "drop")} <= set(menu)
    choose(page, "simulator/drop")
    expect(page.locator("#hint")).to_contain_text("closed in mid-body")


MARKUP = [
    "<img src=x onerror=alert(1)>",
    "<script>document.title='taken'</script>",
    "**<b onclick=alert(1)>bold</b>** and `<i>code</i>`",
    "```html\n<svg onload=alert(1)></svg>\n```",
    "# <a href=javascript:alert(1)>heading</a>",
    "- <iframe src=//example.invalid></iframe>",
]


def test_an_answer_is_never_markup(visit: Open) -> None:
    """What a model (or a user) writes as HTML is shown as text."""
    page = visit()
    for text in MARKUP:
        answer = finished(ask(page, text, "simulator/echo"))
        elements = answer.locator(".body *")
        made = elements.evaluate_all("all => all.map(e => e.localName)")
        assert set(made) <= MADE
        expect(answer.locator(".body")).to_contain_text("<")
        assert page.title() == "trio-ai-stream"


def test_keyboard_alone_is_enough(visit: Open) -> None:
    """Shift+Enter makes a line, Enter sends, Esc stops, and the focus is never lost."""
    page = visit()
    expect(page.locator("#prompt")).to_be_focused()
    choose(page, "simulator/endless")
    page.locator("#prompt").focus()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    expect(page.locator(".user > p")).to_have_text("one\ntwo")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Enter")
    finished(page.locator(".assistant"))
    expect(page.locator("#prompt")).to_be_focused()
    outline = page.locator("#prompt").evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid"


def test_the_first_tab_leads_to_the_message_box(visit: Open) -> None:
    """A skip link comes first."""
    page = visit(width=375)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the message box")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the message box")).to_be_in_viewport()
