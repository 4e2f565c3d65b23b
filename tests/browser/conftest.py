"""A real server for all modules of a worker, and the system's Chromium for each.

The tests are plain functions on Playwright's synchronous API. What Playwright evaluates
in the page stands outside its content security policy, except for `wait_for_function`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    Locator,
    Page,
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


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server without keys, for all modules."""
    log = tmp_path_factory.mktemp("server") / "log"
    process = ServerProcess(
        log, MAX_MESSAGES_LENGTH="20000", FIRST_TOKEN_TIMEOUT_SECS="100"
    )
    yield process
    process.stop()


@pytest.fixture(scope="module")
def server(plain_server: ServerProcess) -> ServerProcess:
    """The server that the page is of; a module may have one of its own."""
    return plain_server


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Headless Chromium.

    Not for longer: Playwright's event loop runs in this thread for as long, and then no
    test of another folder can run one of its own.
    """
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


class Tab:
    """A page; its script errors and violations of the policy are `complaints`."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self.complaints.append(line.text))

    def visit(self, url: str, width: int, **media: Any) -> Page:
        """Open the page of a server."""
        page = self.page
        page.set_viewport_size({"width": width, "height": 800})
        # Animations cost a core where there is no graphics card.
        page.emulate_media(**{"reduced_motion": "reduce", **media})
        page.goto(url)
        page.locator("#link:not([data-state=waiting])").or_(
            page.get_by_text("needs the API key")
        ).wait_for()
        return page

    def forget(self) -> None:
        """Leave the page, and be the next visitor's: without what this one has left."""
        page = self.page
        page.unroute_all()
        page.emulate_media(color_scheme="null", forced_colors="null", contrast="null")
        if page.url.startswith("http"):
            parts = urlsplit(page.url)
            page.evaluate("sessionStorage.clear()")
            page.goto("about:blank")
            session = page.context.new_cdp_session(page)
            origin = f"{parts.scheme}://{parts.netloc}"
            what = {"origin": origin, "storageTypes": "indexeddb,local_storage"}
            session.send("Storage.clearDataForOrigin", what)
            session.detach()
        self.complaints.clear()

    def close(self) -> None:
        """Close it with all that it holds."""
        self.page.context.close()


@pytest.fixture(scope="module")
def first_tab(browser: Browser) -> Iterator[Tab]:
    """A tab for all tests: a new one costs half a second."""
    tab = Tab(browser)
    yield tab
    tab.close()


MEDIA = {"color_scheme", "reduced_motion", "forced_colors", "contrast"}


@contextmanager
def visits(
    browser: Browser, server: ServerProcess, first: Tab | None = None
) -> Iterator[Open]:
    """Open the page as a new visitor; no script error and no policy violation."""
    tabs: list[Tab] = []

    def open_page(url: str = "", *, width: int = 1280, **options: Any) -> Page:
        media = {name: options.pop(name) for name in MEDIA & options.keys()}
        if first is None or first in tabs or options:
            tab = Tab(browser, **options)
        else:
            tab = first
        tabs.append(tab)
        return tab.visit(url or server.url, width, **media)

    yield open_page
    # An answer of 4xx is in the console too; it is no complaint of the page's.
    own = [
        text
        for tab in tabs
        for text in tab.complaints
        if not text.startswith("Failed to load")
    ]
    for tab in tabs:
        if tab is first:
            tab.forget()
        else:
            tab.close()
    assert not own, own


@pytest.fixture
def visit(browser: Browser, server: ServerProcess, first_tab: Tab) -> Iterator[Open]:
    """Visits of one test; what they have left running ends with them."""
    with visits(browser, server, first_tab) as open_page:
        yield open_page
    server.cancel_all()


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
