"""A real server and the system's Chromium; both for one module of tests at a time.

The tests are plain functions on Playwright's synchronous API. What Playwright evaluates
in the page stands outside its content security policy, except for `wait_for_function`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    Locator,
    Page,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.support.serving import ServerProcess

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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without keys."""
    log = tmp_path_factory.mktemp("server") / "log"
    process = ServerProcess(log, MAX_MESSAGES_LENGTH="20000")
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


# Waits of Playwright end as soon as what is awaited is there.
expect.set_options(timeout=30_000)

Open = Callable[..., Page]


@contextmanager
def visits(browser: Browser, server: ServerProcess) -> Iterator[Open]:
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


@pytest.fixture
def visit(browser: Browser, server: ServerProcess) -> Iterator[Open]:
    """Visits of one test."""
    with visits(browser, server) as open_page:
        yield open_page


def choose(page: Page, model: str) -> None:
    """Write a model's name into its field."""
    page.locator("#model").fill(model)
    page.locator("#model").press("Enter")


def ask(page: Page, text: str, model: str = "simulator/fast") -> Locator:
    """Choose a behaviour, type, press Enter; return the answer's element."""
    choose(page, model)
    page.locator("#prompt").fill(text)
    page.locator("#prompt").press("Enter")
    return page.locator(".assistant").last


def finished(answer: Locator) -> Locator:
    """Return the answer once it has ended."""
    answer.locator("xpath=self::*[@data-end]").wait_for()
    return answer
