"""A real server and the system's Chromium; both for one module of tests at a time.

The tests are plain functions on Playwright's synchronous API. What Playwright evaluates
in the page stands outside its content security policy, except for `wait_for_function`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_S = 30
T = TypeVar("T")


class ServerProcess:
    """`trio-ai-stream serve` with the embedded simulator, on a free port."""

    def __init__(self, log: Path, **env: str) -> None:
        self._log = log
        settings = {"PORT": "0", "LOG_FORMAT": "json", "UPSTREAM": "simulator"}
        environ = {**os.environ, **settings, "RATE_LIMIT": "10000", **env}
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trio_ai_stream", "serve"],
                env=environ,
                cwd=log.parent,
                stderr=stderr,
            )
        self.url = until(self._address)

    def _address(self) -> str:
        assert self._process.poll() is None, self._log.read_text()
        match = re.search(r"Running on (http://[^ ]+) ", self._log.read_text())
        return match[1] if match else ""

    def ended(self, request_id: str) -> dict[str, Any]:
        """Return the one record of a stream, once it is there."""

        def found() -> dict[str, Any]:
            lines = self._log.read_text().splitlines()
            records = [json.loads(line) for line in lines if "stream_ended" in line]
            return next((r for r in records if r["request_id"] == request_id), {})

        return until(found)

    def stop(self) -> None:
        """End the process; it may still drain, but not for long."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def until(look: Callable[[], T]) -> T:
    """Return what `look` finds, as soon as it finds something."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < give_up_at, "what was waited for did not come"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without keys."""
    process = ServerProcess(tmp_path_factory.mktemp("server") / "log")
    yield process
    process.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=ARGUMENTS
        )
        yield browser
        browser.close()


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, server: ServerProcess) -> Iterator[Open]:
    """Open the page as a new visitor; no script error and no policy violation."""
    complaints: list[str] = []
    pages: list[Page] = []

    def open_page(url: str = "", *, width: int = 1280, **options: Any) -> Page:
        size = ViewportSize(width=width, height=800)
        page = browser.new_context(viewport=size, **options).new_page()
        pages.append(page)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text))
        page.goto(url or server.url)
        page.locator("#link:not([data-state=waiting])").or_(
            page.get_by_text("needs the API key")
        ).wait_for()
        return page

    yield open_page
    for page in pages:
        page.context.close()
    # An answer of 4xx is in the console too; it is no complaint of the page's.
    own = [text for text in complaints if not text.startswith("Failed to load")]
    assert not own, own


def ask(page: Page, text: str, model: str = "simulator/fast") -> Locator:
    """Choose a behaviour, type, press Enter; return the answer's element."""
    page.locator("#fault").select_option(model)
    page.locator("#prompt").fill(text)
    page.locator("#prompt").press("Enter")
    return page.locator(".assistant").last


def finished(answer: Locator) -> Locator:
    """Return the answer once it has ended."""
    answer.locator("xpath=self::*[@data-end]").wait_for()
    return answer
