"""What a user chooses: a model, options, a key; and what is copied."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.browser.conftest import Open, ask, choose, finished
from tests.support.serving import until


def test_a_list_of_models_that_failed_is_asked_for_again(visit: Open) -> None:
    """The reason is shown, and the next look has the list."""
    page = visit()

    def real(route: Route) -> None:
        config = route.fetch().json()
        route.fulfill(json={**config, "upstream": "openrouter", "faults": []})

    page.route("**/page/config", real)
    page.reload()
    error = {"error": {"message": "the key is unknown", "type": "x"}}
    page.route("**/v1/models", lambda route: route.fulfill(status=401, json=error))
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    page.locator("#model").click()
    expect(page.locator("#models")).to_contain_text("the key is unknown")
    page.keyboard.press("ArrowUp")
    models = {"data": [{"id": f"some/model-{n}", "name": "Some"} for n in range(3)]}
    page.route("**/v1/models", lambda route: route.fulfill(json=models))
    page.locator("#model").fill("some")
    options = page.locator("#models [role=option]")
    expect(options).to_have_count(3)
    page.keyboard.press("ArrowUp")
    expect(options.last).to_have_attribute("aria-selected", "true")


def test_the_simulators_model_is_not_asked_of_another_upstream(visit: Open) -> None:
    """Who gives the server a key has its default model, and what they choose then."""
    page = visit()
    expect(page.locator("#model")).to_have_value("simulator/default")
    choose(page, "simulator/fast")

    def real(route: Route) -> None:
        config = route.fetch().json()
        route.fulfill(json={**config, "upstream": "openrouter", "faults": []})

    page.route("**/page/config", real)
    page.reload()
    expect(page.locator("#model")).to_have_attribute("placeholder", re.compile("."))
    expect(page.locator("#model")).to_have_value("")
    choose(page, "some/model")
    page.reload()
    expect(page.locator("#model")).to_have_attribute("placeholder", re.compile("."))
    expect(page.locator("#model")).to_have_value("some/model")


def test_an_option_is_sent_or_it_is_said(visit: Open) -> None:
    """Any temperature from 0 to 2 is sent; of what cannot be, the page says so."""
    page = visit()
    bodies: list[dict[str, Any]] = []

    def collect(request: Request) -> None:
        if request.url.endswith("/chat"):
            bodies.append(request.post_data_json or {})

    page.on("request", collect)
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Temperature").fill("0.75")
    page.get_by_label("Most tokens").fill("2.5")
    expect(page.locator("#settings-note")).to_contain_text("Not sent. Most tokens")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Options (1, 1 not sent)")).to_be_visible()
    finished(ask(page, "Hm?"))
    assert bodies[0]["temperature"] == 0.75
    assert "max_tokens" not in bodies[0]
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Most tokens").fill("2")
    expect(page.locator("#settings-note")).to_have_text("")


def test_a_key_can_be_given_once_the_server_wants_one(visit: Open) -> None:
    """A page from before the server had keys shows the field for one."""
    page = visit()
    expect(page.locator("#key")).to_be_hidden()
    error = {"error_type": "missing_api_key", "message": "got no key", "code": 401}
    page.route("**/chat", lambda route: route.fulfill(status=401, json=error))
    finished(ask(page, "Hello.")).get_by_role("button", name="Enter a key").click()
    expect(page.locator("#key")).to_be_focused()
    page.unroute("**/chat")


SAID = """(button) => {
    window.said = [];
    const note = (all) => window.said.push(...all.map(() => button.textContent));
    new MutationObserver(note).observe(button, { childList: true });
}"""


def copied(page: Page, times: int) -> None:
    """Press Copy under the answer so often, and paste into the message box."""
    button = page.locator(".assistant .actions button").first
    button.evaluate(SAID)
    button.click(click_count=times)
    until(lambda: "Copied" in page.evaluate("window.said"))
    page.locator("#prompt").focus()
    page.keyboard.press("Control+V")
    expect(page.locator("#prompt")).to_have_value("Rivers and\nmountains")
    page.locator("#prompt").fill("")
    until(lambda: len(page.evaluate("window.said")) == 2 * times)
    expect(button).to_have_text("Copy")


def test_copy_works_twice_and_without_tls(visit: Open) -> None:
    """Its button is itself again, and where there is no clipboard it copies as well."""
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    finished(ask(page, "Rivers and\nmountains", "simulator/echo"))
    copied(page, 2)
    # What a page has that came by `http` from another machine.
    page.evaluate("navigator.clipboard.writeText('')")
    page.evaluate('Object.defineProperty(navigator, "clipboard", { value: undefined })')
    copied(page, 1)


PIECES = 4000


def answer_with(page: Page, events: list[dict[str, Any]]) -> tuple[Locator, str]:
    """Have the page get these events for an answer; return it with what was sent."""
    common = {"request_id": "x", "content": ""}
    said = [{**common, **one} for one in [*events, {"type": "done"}]]
    text = "".join(f"data: {json.dumps(one)}\n\n" for one in said)
    kind = "text/event-stream"
    page.route("**/chat", lambda route: route.fulfill(body=text, content_type=kind))
    answer = finished(ask(page, "Write."))
    page.unroute("**/chat")
    return answer, text


def piece(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    """Return the event of one piece of a tool call."""
    call = {"type": "tool_call", "index": index, "id": name, "name": name}
    return {**call, "arguments": arguments}


def test_a_tool_call_in_many_pieces_is_no_work(visit: Open) -> None:
    """Its arguments are laid out once, at the end; not with every piece."""
    page = visit()
    page.evaluate(
        """() => {
            const parse = JSON.parse;
            window.parsed = 0;
            JSON.parse = (text) => (window.parsed += text.length, parse(text));
        }"""
    )
    more = [piece(0, "some words ")] * PIECES
    pieces = [piece(0, '{"text":"', "write"), *more, piece(0, '"}')]
    answer, sent = answer_with(page, pieces)
    shown = answer.locator("details.tool pre").text_content() or ""
    assert json.loads(shown) == {"text": "some words " * PIECES}
    # All that was parsed: each event once, and the arguments.
    assert page.evaluate("window.parsed") < 3 * len(sent)


def test_tool_calls_are_shown_however_they_are_counted(visit: Open) -> None:
    """A provider may begin at 1, leave numbers out, and mix the pieces."""
    page = visit()
    pieces = [piece(1, "[1", "one"), piece(4, "[4", "four"), piece(1, "]")]
    answer, _ = answer_with(page, [*pieces, piece(4, "]")])
    calls = answer.locator("details.tool")
    expect(calls.locator("summary")).to_have_text(["Tool call one", "Tool call four"])
    assert [json.loads(one) for one in calls.locator("pre").all_text_contents()] == [
        [1],
        [4],
    ]


@pytest.mark.parametrize("more", [[], [{"type": "reasoning", "content": "Hm."}]])
def test_an_answer_without_text_says_so(
    visit: Open, more: list[dict[str, Any]]
) -> None:
    """A picture of a model's is nothing that the page can show; then it says that."""
    page = visit()
    answer, _ = answer_with(page, more)
    for _ in range(2):
        expect(answer).to_contain_text("This answer has no text.")
        if more:
            expect(answer.locator(".thoughts summary")).to_have_text("Thoughts")
        page.reload()


def test_a_message_that_is_too_long_can_be_edited(visit: Open) -> None:
    """A new chat would not take it, either."""
    page = visit()
    finished(ask(page, "Hello."))
    answer = finished(ask(page, "x" * 30_000))
    expect(answer).to_contain_text("more than the server takes")
    answer.get_by_role("button", name="Edit the message").click()
    page.locator("#prompt").fill("x")
    page.locator("#prompt").press("Enter")
    expect(page.locator(".user > p")).to_have_text(["Hello.", "x"])
    expect(finished(answer)).to_have_attribute("data-end", "done")


def test_a_system_prompt_that_is_too_long_can_be_shortened(visit: Open) -> None:
    """No other message, and no new chat, would help."""
    page = visit()
    shorten = page.get_by_role("button", name="Shorten the system prompt")
    page.get_by_role("button", name="Options").click()
    page.locator("#system").fill("x" * 30_000)
    page.get_by_role("button", name="Done").click()
    answer = finished(ask(page, "Hello."))
    expect(answer).to_contain_text("more than the server takes")
    shorten.click()
    expect(page.locator("#system")).to_be_focused()
    page.locator("#system").fill("")
    page.get_by_role("button", name="Done").click()
    answer.get_by_role("button", name="Retry").click()
    expect(finished(answer)).to_have_attribute("data-end", "done")
    finished(ask(page, "x" * 30_000))
    expect(shorten).to_be_hidden()
