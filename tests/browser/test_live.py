"""The live view in the page: trees of tasks while streams run, endings afterwards."""

from __future__ import annotations

import re
import time

from playwright.sync_api import CDPSession, Page, expect

from tests.browser.conftest import Open, ask, finished
from tests.browser.crowd import crowd
from tests.browser.line import Line
from tests.support.serving import ServerProcess
from trio_ai_stream.http.live_view import MAX_ROWS


def test_a_running_stream_is_a_tree_of_tasks_and_scopes(
    visit: Open, server: ServerProcess
) -> None:
    """While it streams its nurseries, tasks, scopes and deadlines are shown."""
    page = visit()
    answer = ask(page, "Go on for ever.", "simulator/endless")
    stream = page.locator(".stream[data-state=streaming]")
    expect(stream).to_have_count(1)
    request_id = answer.get_attribute("data-request") or ""
    expect(stream).to_have_attribute("data-id", request_id)
    expect(page.locator("#live-count")).to_have_text("1")
    expect(stream.locator(".nursery .name")).to_have_text(
        ["grace nursery", "stream nursery"]
    )
    expect(stream.locator(".task > code")).to_have_text(["stream", "grace"])
    expect(stream.locator(".scope > span:first-child")).to_have_text(
        ["stop", "grace", "deadline", "idle"]
    )
    expect(stream.locator("[data-label=idle] .left")).to_have_text(
        re.compile(r"^(60\.0|59\.\d) s$")
    )
    page.keyboard.press("Escape")
    finished(answer)
    expect(page.locator(".stream")).to_have_count(0)
    expect(page.locator("#live-count")).to_have_text("0")
    expect(page.locator("#live-ended li").first).to_contain_text("cancelled")


def test_a_waiting_stream_shows_its_first_token_budget(visit: Open) -> None:
    """Before the first content the first-token scope counts down, not the idle one."""
    page = visit()
    answer = ask(page, "Think.", "simulator/no-token")
    stream = page.locator(".stream[data-state=waiting]")
    labels = stream.locator(".scope > span:first-child")
    expect(labels).to_have_text(["stop", "grace", "deadline", "first token"])
    left = stream.locator("[data-label=first_token] .left")
    expect(left).to_have_text(re.compile(r"^(100\.0|9\d\.\d) s$"))
    before = left.inner_text()
    expect(left).not_to_have_text(before)
    page.keyboard.press("Escape")
    finished(answer)


def test_another_visitor_sees_the_stream_come_and_go(visit: Open) -> None:
    """The view is the server's, not the page's own memory."""
    watcher, talker = visit(), visit()
    answer = ask(talker, "Go on for ever.", "simulator/endless")
    expect(watcher.locator(".stream[data-state=streaming]")).to_have_count(1)
    assert answer is not None
    talker.close()
    detached = watcher.locator(".stream[data-state=detached]")
    expect(detached.locator("[data-label=grace] .left")).to_contain_text("s")
    detached.get_by_role("button", name="Cancel").click()
    expect(watcher.locator(".stream")).to_have_count(0)
    ended = watcher.locator("#live-ended li").first
    expect(ended).to_contain_text("cancelled")
    expect(ended).to_contain_text("upstream closed in")


def test_without_its_server_the_page_claims_nothing(
    visit: Open, server: ServerProcess
) -> None:
    """When the live view breaks off, the number is not known; then it is again."""
    line = Line(server.url)
    page = visit(line.url)
    expect(page.locator("#live-count")).to_have_text("0")
    line.cut()
    expect(page.locator("#link")).to_have_text("reconnecting")
    expect(page.locator("#live-count")).to_have_text("?")
    expect(page.locator("#live-note")).to_contain_text("Not known")
    line.mend()
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    expect(page.locator("#live-count")).to_have_text("0")
    line.cut()


CROWD = MAX_ROWS + 10


def test_hundreds_of_streams_are_counted_and_cost_the_page_little(
    visit: Open, server: ServerProcess
) -> None:
    """Fifty are fifty; of more the first are listed; an update takes less than 50 ms.

    The page gets no more rows of 2000 streams than of these.
    """
    page = visit()
    with crowd(server.url, 50):
        expect(page.locator("#live-count")).to_have_text("50")
        expect(page.locator(".stream")).to_have_count(50)
        expect(page.locator("#live-note")).to_have_text("50 waiting.")
        with crowd(server.url, CROWD - 50):
            expect(page.locator("#live-count")).to_have_text(str(CROWD))
            expect(page.locator(".stream")).to_have_count(MAX_ROWS)
            expect(page.locator("#live-note")).to_have_text(
                f"{CROWD} waiting; {CROWD - MAX_ROWS} streams not listed."
            )
            last = page.locator(".stream").last
            last.scroll_into_view_if_needed()
            before = last.locator(".age").inner_text()
            cpu = page.context.new_cdp_session(page)
            cpu.send("Performance.enable", {"timeDomain": "threadTicks"})
            begun, at = task_s(cpu), time.monotonic()
            expect(last.locator(".age")).not_to_have_text(before)
            page.wait_for_function(
                "began => performance.now() > began + 1000",
                arg=page.evaluate("performance.now()"),
            )
            updates = (time.monotonic() - at) / 0.25
            assert (task_s(cpu) - begun) / updates < 0.05
            last.locator(".open").click()
            expect(last.locator(".nursery .name")).to_have_text("stream nursery")
            last.get_by_role("button", name="Cancel").click()
            expect(page.locator("#live-count")).to_have_text(str(CROWD - 1))
    expect(page.locator("#live-count")).to_have_text("0")
    expect(page.locator(".stream")).to_have_count(0)


def task_s(cpu: CDPSession) -> float:
    """Return the processor's time that the page's main thread has had."""
    metrics = cpu.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def test_many_streams_are_rows_and_one_opens_into_its_tree(
    visit: Open, server: ServerProcess
) -> None:
    """The count is right; a row opens; its cancel runs through the tree slowly."""
    page = visit()
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer).to_have_attribute("data-request", re.compile("."))
    with crowd(server.url, 2, "simulator/endless"):
        look_at_three(page, server)


def look_at_three(page: Page, server: ServerProcess) -> None:
    """Look at three streams, and cancel the first."""
    rows = page.locator(".stream")
    expect(rows).to_have_count(3)
    expect(page.locator("#live-count")).to_have_text("3")
    expect(page.locator("#live-note")).to_contain_text("3 streaming")
    expect(page.locator(".stream .tree")).to_have_count(0)
    expect(rows.first.locator(".spark")).to_have_text(re.compile("[▁-█]{2}"))
    rows.first.locator(".open").press("Enter")
    expect(rows.first.locator(".nursery .name").last).to_have_text("stream nursery")
    request_id = rows.first.get_attribute("data-id") or ""
    expect(rows.first.locator(".scope")).to_have_count(4)
    rows.first.get_by_role("button", name="Cancel").click()
    was = page.locator(".was")
    expect(was.locator(".steps li").first).to_contain_text("cause: cancelled")
    expect(was.locator(".steps li").last).to_contain_text("permit are gone")
    expect(was.locator(".nursery.closed")).to_have_count(2)
    expect(was.locator(".scope.closed")).to_have_count(4)
    expect(page.locator("#live-count")).to_have_text("2")
    ended = page.locator("#live-ended li").first
    expect(ended).to_contain_text(request_id[:8])
    expect(ended).to_contain_text("simulator/endless")
    assert server.ended(request_id)["outcome"] == "cancelled"


STRUCK = """() => {
    window.struck = [];
    addEventListener("transitionend", ({ target, propertyName }) => {
        if (propertyName === "text-decoration-color" && target.closest(".was"))
            window.struck.push(target.innerText.split("\\n")[0]);
    });
}"""


def test_a_cancel_travels_through_the_tree(visit: Open) -> None:
    """What is inside is struck out before what holds it."""
    page = visit(reduced_motion="no-preference")
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(page.locator(".stream[data-state=streaming] .scope")).to_have_count(4)
    page.evaluate(STRUCK)
    page.keyboard.press("Escape")
    page.wait_for_function("() => window.struck.length === 8")
    assert page.evaluate("window.struck") == [
        *("stop", "grace", "deadline", "idle"),
        *("stream nursery", "grace", "grace nursery", "stream"),
    ]
    finished(answer)


def test_what_ran_is_struck_out_where_the_end_takes_long(
    visit: Open, server: ServerProcess
) -> None:
    """Not the last event's scope, which is all that the server has then."""
    page = visit()
    labels = page.locator(".stream .scope > span:first-child")
    with crowd(server.url, 1, "simulator/flood"):
        # No time runs for the next event while the client takes none.
        page.locator(".stream [data-label=idle]:not([data-due])").wait_for()
        page.locator(".stream").get_by_role("button", name="Cancel").click()
        expect(labels).to_have_text(["last event"])
    expect(page.locator(".was .scope.closed > span:first-child")).to_have_text(
        ["stop", "deadline", "idle"]
    )


SHIELD = """() => new MutationObserver(() => {
    const chip = document.querySelector(".stream[data-state=finishing] [data-shield]");
    window.shield ??= chip && {
        chip: chip.innerText,
        note: document.getElementById("live-note").innerText,
        count: document.getElementById("live-count").innerText,
        cancels: chip.closest(".stream").querySelectorAll(".cancel").length,
    };
}).observe(document.body, { subtree: true, childList: true })"""


def test_a_shield_is_seen_while_the_rest_of_an_answer_is_read(visit: Open) -> None:
    """The answer is whole and no stream is counted; a hatched scope runs down.

    Its end is told with the rest, once it is there.
    """
    page = visit()
    page.evaluate(SHIELD)  # it lasts for a second: each change of the page is looked at
    answer = ask(page, "Hello.", "simulator/fast?done_ms=990")
    seen = page.wait_for_function("() => window.shield").json_value()
    page.locator(".was").hover()  # it stays while it is pointed at
    finished(answer)
    assert re.fullmatch(r"rest of the answer\s*\d\.\d s", seen["chip"])
    note = "1 stream over, the rest of upstream's answer is being read."
    assert (seen["note"], seen["count"], seen["cancels"]) == (note, "0", 0)
    steps = page.locator(".was .steps li")
    expect(steps.last).to_contain_text("behind the shield; then the task is gone")
    expect(steps.nth(1)).to_contain_text("the client was told")
    expect(page.locator(".was .scope[data-shield]")).to_have_class(re.compile("closed"))
    expect(page.locator("#live-note")).to_contain_text("Nothing runs")


def test_who_has_never_seen_trio_finds_the_words(visit: Open) -> None:
    """The legend says what a task, a nursery, a scope and a shield are."""
    page = visit()
    page.get_by_text("What is this?").click()
    expect(page.locator(".legend dt")).to_have_text(
        ["task", "nursery", "scope", "shield", "gaps"]
    )


def test_a_cancel_that_fails_is_said(visit: Open, server: ServerProcess) -> None:
    """With the server's reason, if it gave one; and the next one may succeed."""
    page = visit()
    answer = ask(page, "Go on for ever.", "simulator/endless")
    cancel = page.locator(".stream").get_by_role("button", name="Cancel")
    error = {
        "error_type": "streams_unavailable",
        "message": "it did not answer in time",
    }
    way = re.compile("/streams/[0-9a-f]+$")
    page.route(way, lambda route: route.fulfill(status=503, json=error))
    cancel.click()
    said = page.locator("#live-failed")
    expect(said).to_contain_text("could not be cancelled: it did not answer in time.")
    page.unroute(way)
    page.route(way, lambda route: route.abort())
    cancel.click()
    expect(said).to_contain_text("could not be cancelled: the server did not answer.")
    page.unroute(way)
    cancel.click()
    expect(finished(answer)).to_contain_text("Someone cancelled this answer")
    expect(said).to_be_hidden()
