"""An answer outlives its connection, and the page that began it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, Response, Route, expect

from tests.browser.conftest import Open, ask, choose, finished
from tests.browser.line import Line
from tests.support.serving import ServerProcess, until

NUMBERS = " ".join(f"w{n}" for n in range(120))
PACED = "simulator/echo?delay_ms=10"
SLOW = "simulator/echo?delay_ms=20"


@pytest.fixture
def line(server: ServerProcess) -> Iterator[Line]:
    """A line to the server."""
    line = Line(server.url)
    yield line
    line.cut()


def begun(answer: Locator) -> Locator:
    """Return the answer once a part of it is there."""
    expect(answer.locator(".body")).to_have_text(re.compile(r"w1 w2"))
    return answer


def test_a_lost_connection_is_said_and_the_answer_goes_on(
    visit: Open, server: ServerProcess, line: Line
) -> None:
    """Nothing is lost and nothing doubled."""
    page = visit(line.url)
    answer = begun(ask(page, NUMBERS, SLOW))
    line.cut()
    expect(answer).to_contain_text("reconnecting")
    expect(page.get_by_role("status")).to_contain_text("reconnecting")
    line.mend()
    expect(answer).not_to_contain_text("reconnecting")
    assert finished(answer).locator(".body").inner_text() == NUMBERS
    record = server.ended(answer.get_attribute("data-request") or "")
    assert record["outcome"] == "completed"
    assert record["detached_ms"] > 0


def test_a_refusal_for_now_is_not_the_end(
    visit: Open, server: ServerProcess, line: Line
) -> None:
    """A proxy may not reach the server yet, nor a process the one with the stream."""
    page = visit(line.url)
    refusals = [502, 503]

    def refuse(route: Route) -> None:
        if refusals:
            route.fulfill(status=refusals.pop(), body="not now")
        else:
            route.continue_()

    page.route("**/streams/*/events?*", refuse)
    answer = begun(ask(page, NUMBERS, SLOW))
    line.cut()
    line.mend()
    assert finished(answer).locator(".body").inner_text() == NUMBERS
    assert not refusals


def test_a_reload_in_mid_stream_goes_on(visit: Open, server: ServerProcess) -> None:
    """The next page reads on behind what the last one has kept."""
    page = visit()
    answer = begun(ask(page, NUMBERS, SLOW))
    page.reload()
    assert finished(answer).locator(".body").inner_text() == NUMBERS
    expect(answer.locator(".line")).to_have_text(
        re.compile(r"completed · first word .* · 120 events")
    )
    record = server.ended(answer.get_attribute("data-request") or "")
    assert record["outcome"] == "completed"
    assert record["detached_ms"] > 0


def test_a_first_word_stays_the_first(visit: Open) -> None:
    """Also where a page that was left could not keep what it had shown."""
    page = visit()
    answer = ask(page, NUMBERS, "simulator/echo?first_token_ms=600&delay_ms=30")
    page.wait_for_function(
        """async () => {
            const { conversations } = await import("/page/store.js");
            return (await conversations.all())[0]?.messages.at(-1).resume;
        }"""
    )
    page.evaluate("() => { IDBObjectStore.prototype.put = () => {}; }")
    expect(answer.locator(".body")).to_have_text(re.compile("w60"))
    page.reload()
    line = finished(answer).locator(".line")
    expect(line).to_have_text(re.compile(r"first word (\d+ ms|1\.\d\d s) · 120 events"))


def test_what_ended_while_the_page_was_away_is_whole(
    visit: Open, server: ServerProcess
) -> None:
    """A page that comes back after the end has the rest, with the ending."""
    page = visit()
    answer = begun(ask(page, NUMBERS, PACED))
    request_id = answer.get_attribute("data-request") or ""
    page.goto("about:blank")
    until(lambda: not server.running())
    page.goto(server.url)
    assert finished(answer).locator(".body").inner_text() == NUMBERS
    assert server.ended(request_id)["outcome"] == "completed"


def test_stop_cancels_by_id_also_after_a_reload(
    visit: Open, server: ServerProcess
) -> None:
    """Stop works on an answer that another page has begun."""
    page = visit()
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    page.reload()
    page.get_by_role("button", name="Stop").click()
    card = finished(answer).locator(".card.stopped")
    expect(card).to_contain_text("You stopped this answer")
    record = server.ended(answer.get_attribute("data-request") or "")
    assert (record["outcome"], record["told"]) == ("cancelled", True)


def test_stop_while_the_connection_is_lost(visit: Open, line: Line) -> None:
    """Where nothing can be cancelled, the page says when the server ends it."""
    page = visit(line.url)
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    line.cut()
    expect(answer).to_contain_text("reconnecting")
    page.keyboard.press("Escape")
    card = finished(answer).locator(".card.stopped")
    expect(card).to_contain_text("the server ends it within 30 s")
    expect(answer).not_to_contain_text("reconnecting")


def test_a_second_tab_takes_over_and_can_be_taken_from(visit: Open) -> None:
    """Of two tabs with one conversation one reads; the other says so, with a button."""
    first = visit()
    answer = ask(first, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    second = first.context.new_page()
    second.goto(first.url)
    second.get_by_role("button", name="Chats").click()
    second.locator("#history-list .title").click()
    expect(answer).to_contain_text("goes on in another tab")
    expect(second.get_by_role("button", name="Stop")).to_be_visible()
    first.get_by_role("button", name="Go on here").click()
    expect(second.locator(".assistant")).to_contain_text("goes on in another tab")
    second.close()
    first.keyboard.press("Escape")
    expect(finished(answer).locator(".card.stopped")).to_be_visible()


def test_a_server_that_has_forgotten_the_stream_is_believed(visit: Open) -> None:
    """Then what came stays, and the answer can be asked for again."""
    page = visit()
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    page.route(re.compile("/events"), lambda route: route.fulfill(status=404))
    page.reload()
    expect(finished(answer).locator(".card.failed")).to_contain_text("no longer has")
    expect(answer.get_by_role("button", name="Try again")).to_be_visible()
    page.unroute_all()
    choose(page, "simulator/fast")
    answer.get_by_role("button", name="Try again").click()
    expect(finished(answer).locator(".line")).to_contain_text("completed")


def test_on_a_slow_line_all_is_as_on_a_fast_one(
    browser: Browser, server: ServerProcess
) -> None:
    """With 400 ms a request: typed before the scripts are there, answered, stopped."""
    page = browser.new_page(reduced_motion="reduce")
    line = page.context.new_cdp_session(page)
    slow = {"latency": 400, "downloadThroughput": -1, "uploadThroughput": -1}
    line.send("Network.emulateNetworkConditions", {"offline": False, **slow})
    page.goto(server.url, wait_until="commit")
    page.locator("#prompt").fill("Go on.")
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    expect(page.locator("#prompt")).to_have_value("Go on.")
    page.locator("#prompt").press("Enter")
    answer = page.locator(".assistant")
    expect(answer.locator(".body")).to_contain_text("Go on.")
    page.keyboard.press("Escape")
    expect(finished(answer)).to_contain_text("You stopped this answer")
    page.context.close()


def test_what_two_tabs_write_to_one_conversation_is_all_kept(visit: Open) -> None:
    """Neither writes over the other: there are two conversations then."""
    first = visit()
    finished(ask(first, "one", "simulator/fast"))
    second = first.context.new_page()
    second.goto(first.url)
    second.get_by_role("button", name="Chats").click()
    second.locator("#history-list .title").click()
    finished(ask(second, "two", "simulator/fast"))
    finished(ask(first, "three", "simulator/fast"))
    expect(first.locator("#notice")).to_contain_text("kept beside it")
    expect(first.locator("#status")).to_contain_text("Answer complete")
    for number, asked in enumerate((["one", "three"], ["one", "two"])):
        first.get_by_role("button", name="Chats").click()
        titles = first.locator("#history-list .title")
        expect(titles).to_have_count(2)
        titles.nth(number).click()
        expect(first.locator(".user p")).to_have_text(asked)
    second.close()


def lose(page: Page, line: Line, back: Callable[[Response], bool]) -> None:
    """Cut the line under an answer without end; wait for what brings it back."""
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    with page.expect_response(back):
        line.cut()
        line.mend()
    page.keyboard.press("Escape")
    card = finished(answer).locator(".card.stopped")
    expect(card).to_contain_text("You stopped this answer")


def test_a_proxy_without_its_server_is_waited_out(visit: Open, line: Line) -> None:
    """An answer of 5xx to the return is no end: the stream may be there behind it."""
    page = visit(line.url)
    statuses = [502, 503, 429]

    def refuse(route: Route) -> None:
        if statuses:
            route.fulfill(status=statuses.pop(), body="<html>")
        else:
            route.continue_()

    page.route(re.compile("/events"), refuse)
    lose(page, line, lambda found: "/events" in found.url and found.status == 200)
    assert statuses == []


def test_a_line_that_breaks_at_once_is_not_opened_without_end(
    visit: Open, line: Line
) -> None:
    """A way back that opens and says nothing is tried after ever longer pauses."""
    page = visit(line.url)
    tried: list[float] = []

    def break_off(route: Route) -> None:
        tried.append(time.monotonic())
        if len(tried) < 5:
            route.fulfill(body="", content_type="text/event-stream")
        else:
            route.continue_()

    page.route(re.compile("/events"), break_off)
    lose(page, line, lambda found: "/events" in found.url and len(tried) >= 5)
    assert tried[4] - tried[0] > 1


def test_who_leaves_before_there_is_a_way_back_ends_the_stream(visit: Open) -> None:
    """Nobody could come back to it: it is cancelled, not left to its grace.

    Safari tells a page that is left nothing more of its requests.
    """
    page = visit()
    page.route("**/chat", lambda route: None)  # its head is never there
    with page.expect_request("**/chat") as asked:
        ask(page, "Hm?")
    name = asked.value.headers["x-request-id"]
    with page.expect_request(lambda request: request.method == "DELETE") as gone:
        page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide'))")
    assert gone.value.url.endswith(f"/streams/{name}")
    page.unroute_all(behavior="ignoreErrors")
    page.reload()
    expect(page.get_by_role("button", name="Retry")).to_be_visible()


def test_what_was_not_sent_is_not_called_closed(visit: Open, line: Line) -> None:
    """A message that waited as its page was closed can be sent by the next page."""
    page = visit(line.url)
    line.cut()
    page.locator("#prompt").fill("Rivers")
    page.locator("#prompt").press("Enter")
    expect(page.locator(".user")).to_contain_text("Not sent")
    page.goto("about:blank")
    line.mend()
    page.goto(line.url)
    page.get_by_role("button", name="Send it").click()
    finished(page.locator(".assistant"))


def test_a_page_of_which_a_part_does_not_come_is_loaded_again(visit: Open) -> None:
    """Once by itself, as after another network; then it says so."""
    page = visit()
    page.route("**/page/sse.js", lambda route: route.abort("failed"), times=1)
    page.reload(wait_until="commit")
    expect(page.locator("#link")).to_have_text("live")
    page.route("**/page/sse.js", lambda route: route.abort("failed"))
    page.reload(wait_until="commit")
    expect(page.get_by_role("alert")).to_contain_text("did not come")
