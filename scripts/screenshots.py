"""Takes the pictures of the page, and of the terminal, in docs/screenshots.

`python -m scripts.screenshots` starts a server with the embedded simulator and drives
the system's Chromium through one conversation, in each look. It needs the fonts that a
reader would have: the simulator's prose has Japanese and emoji in it
(`apt-get install chromium fonts-noto-cjk fonts-noto-color-emoji`).
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import httpx
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from scripts import terminal_pictures
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.support.serving import ServerProcess, until

FOLDER = Path(__file__).parent.parent / "docs" / "screenshots"
# The README shows them all; a picture is to load at once.
MAX_BYTES = 180_000
WIDE: ViewportSize = {"width": 1180, "height": 760}
MANY = 50
PHONE: ViewportSize = {"width": 375, "height": 760}


def take(page: Page, name: str) -> None:
    """Write one picture.

    :raises ValueError: when it is too large for the README.
    """
    picture = page.screenshot(path=FOLDER / f"{name}.png", animations="disabled")
    if len(picture) > MAX_BYTES:
        raise ValueError(f"{name}: expected {MAX_BYTES} bytes, got {len(picture)}")


def converse(page: Page, name: str) -> None:
    """Stream an answer without end, stop it, and take a picture of both."""
    page.get_by_role("button", name="An answer without end").click()
    body = page.locator(".assistant .body")
    until(lambda: len(body.inner_text()) > 420)
    if name == "phone":
        page.get_by_text("Running streams").click()
    expect(page.locator(".stream[data-state=streaming] .scope")).to_have_count(3)
    take(page, f"{name}-streaming")
    # The picture has kept the page busy, which is not to count as time to stop.
    length = len(body.inner_text())
    until(lambda: len(body.inner_text()) > length + 40)
    page.keyboard.press("Escape")
    expect(page.locator(".card.stopped")).to_be_visible()
    expect(page.locator(".was .closed").first).to_be_visible()
    if name == "phone":
        page.get_by_text("Running streams").click()
        page.locator("#scroll").evaluate("e => e.scrollTop = e.scrollHeight")
    page.evaluate("document.activeElement.blur()")
    take(page, f"{name}-stopped")


def crowd(page: Page) -> None:
    """Take a picture of many streams, which a client of another kind asks for."""
    body = {"prompt": "Go on.", "model": "simulator/endless"}
    limits = httpx.Limits(max_connections=MANY)
    with httpx.Client(timeout=30, limits=limits) as client, ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(client.stream("POST", f"{page.url}chat", json=body))
        expect(page.locator("#live-count")).to_have_text(str(MANY))
        until(lambda: len(page.locator(".spark").nth(9).inner_text()) > 9)
        page.locator(".stream .open").nth(1).click()
        take(page, "light-many")


def visit(
    browser: Browser, url: str, scheme: Literal["light", "dark"], size: ViewportSize
) -> Page:
    """Open the page as a new visitor."""
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.goto(url)
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    return page


def main() -> None:
    """Take all pictures."""
    if CHROMIUM is None:
        sys.exit("there is no chromium: apt-get install chromium")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = ServerProcess(Path(folder) / "log")
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=ARGUMENTS
        )
        try:
            terminal_pictures.main(server.url, FOLDER)
            take(visit(browser, server.url, "light", WIDE), "light-start")
            converse(visit(browser, server.url, "light", WIDE), "light")
            converse(visit(browser, server.url, "dark", WIDE), "dark")
            crowd(visit(browser, server.url, "light", WIDE))
            converse(visit(browser, server.url, "light", PHONE), "phone")
        finally:
            browser.close()
            server.stop()


if __name__ == "__main__":
    main()
