"""The page over HTTP/2, and before a server that goes away."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, ask, finished
from tests.support.serving import ServerProcess
from trio_ai_stream.server.certificate import write


@contextmanager
def serving(folder: Path, drain_s: str = "0.5") -> Iterator[ServerProcess]:
    """A server with TLS, a short drain and a short grace."""
    certificate, key = write(folder)
    process = ServerProcess(
        folder / "log",
        TLS_CERT_FILE=str(certificate),
        TLS_KEY_FILE=str(key),
        DRAIN_TIMEOUT_SECS=drain_s,
        GRACE_MAX_SECS="0.5",
    )
    yield process
    process.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Such a server for the tests that leave it as it is."""
    with serving(tmp_path_factory.mktemp("server")) as process:
        yield process


def test_over_http2_a_stop_is_the_same(visit: Open, server: ServerProcess) -> None:
    """All goes over one h2 connection: page, live view, chat, and the cancel."""
    page = visit(ignore_https_errors=True)
    kinds = "performance.getEntries().map(e => e.nextHopProtocol).filter(Boolean)"
    assert set(page.evaluate(kinds)) == {"h2"}
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(page.locator(".stream[data-state=streaming]")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(finished(answer).locator(".card.stopped")).to_contain_text(
        "ms after the stop"
    )
    assert server.ended(answer.get_attribute("data-request") or "")["told"] is True


def test_a_closed_tab_ends_its_stream(visit: Open, server: ServerProcess) -> None:
    """Closing the tab resets the stream on the connection; its grace is all it has."""
    page = visit(ignore_https_errors=True)
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    request_id = answer.get_attribute("data-request") or ""
    page.close()
    record = server.ended(request_id)
    assert record["outcome"] == "abandoned"
    assert record["detached_ms"] >= 500


def test_where_a_cancel_fails_the_page_hangs_up(
    visit: Open, server: ServerProcess
) -> None:
    """Without DELETE (a proxy may refuse it) Stop closes the request itself."""
    page = visit(ignore_https_errors=True)
    page.route(
        re.compile("/streams/[0-9a-f]+$"),
        lambda route: route.fulfill(status=404, body="{}"),
    )
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    page.keyboard.press("Escape")
    expect(finished(answer).locator(".card.stopped")).to_contain_text("abandoned")
    request_id = answer.get_attribute("data-request") or ""
    assert server.ended(request_id)["outcome"] == "abandoned"


def test_a_drain_is_told_and_held_up_by_nobody(visit: Open, tmp_path: Path) -> None:
    """The answer ends with `shutting_down`, and the process soon after it."""
    # Long enough to be seen by a browser that gets little of a busy machine.
    with serving(tmp_path, drain_s="3") as server:
        drain(visit(server.url, ignore_https_errors=True), server)


def drain(page: Page, server: ServerProcess) -> None:
    """Look at a drain from its beginning to its end."""
    answer = ask(page, "Go on for ever.", "simulator/endless")
    expect(page.locator(".stream[data-state=streaming]")).to_have_count(1)
    ending = threading.Thread(target=server.terminate)
    ending.start()
    expect(page.locator("#link")).to_have_text("draining: 1 stream left")
    expect(page.locator("#live-count")).to_have_text("1")
    ending.join(10)
    assert not ending.is_alive()
    card = finished(answer).locator(".card.failed")
    expect(card).to_contain_text("shutting_down (503)")
    expect(card).to_contain_text("may well succeed if you send it again")
    expect(page.locator("#link")).to_have_attribute("data-state", "lost")
    expect(page.locator("#link")).to_contain_text("drained")
    expect(page.locator("#live-note")).to_contain_text("The server has drained")
