"""Takes the pictures of the page, and of the terminal, in docs/screenshots.

`python -m scripts.screenshots` starts a server with the embedded simulator and drives
the system's Chromium through one conversation, in each look. It needs the fonts that a
reader would have: the simulator's prose has Japanese and emoji in it
(`apt-get install chromium fonts-noto-cjk fonts-noto-color-emoji`).
"""

from __future__ import annotations

import base64
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from scripts import terminal_pictures
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.browser.crowd import crowd
from tests.support.serving import ServerProcess, until

FOLDER = Path(__file__).parent.parent / "docs" / "screenshots"
# README and site show them: together they are to load at once.
MAX_BYTES = 600_000
WIDE: ViewportSize = {"width": 1180, "height": 760}
Scheme = Literal["light", "dark"]
PHONE: ViewportSize = {"width": 375, "height": 700}
# Ten of each: quick ones, slow ones, ones that have fallen silent.
CROWD = ("endless", "bursts?endless=1", "slow?endless=1", "silent", "no-token")


def take(page: Page, name: str) -> None:
    """Write one picture, as WebP: a third of a PNG, and nobody sees the difference."""
    session = page.context.new_cdp_session(page)
    options = {"format": "webp", "quality": 93}
    picture = session.send("Page.captureScreenshot", options)["data"]
    (FOLDER / f"{name}.webp").write_bytes(base64.b64decode(picture))


def start(page: Page) -> None:
    """What a visitor sees."""
    take(page, "page-start")


def stream(page: Page) -> None:
    """Have an answer without end, until some of it is there."""
    page.get_by_role("button", name="An answer without end").click()
    body = page.locator(".assistant .body")
    until(lambda: len(body.inner_text()) > 420)


def streaming(page: Page) -> None:
    """A stream beside its tree."""
    stream(page)
    expect(page.locator(".stream[data-state=streaming] .scope")).to_have_count(4)
    take(page, "page-streaming")


def cancel(page: Page) -> None:
    """A cancel that travels through the tree."""
    stream(page)
    page.keyboard.press("Escape")
    expect(page.locator(".card.stopped")).to_be_visible()
    expect(page.locator(".was .closed").first).to_be_visible()
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(900)  # some is struck out, some is not yet
    take(page, "page-cancel")


def shield(page: Page) -> None:
    """A stream that is over, whose task reads the rest behind a shield."""
    page.locator("#model").fill("simulator/fast?chunks=40&done_ms=980")
    page.locator("#model").press("Enter")
    page.locator("#prompt").fill("What is a shield?")
    page.locator("#prompt").press("Enter")
    expect(page.locator(".stream .scope[data-shield]")).to_be_visible()
    take(page, "page-shield")


def fifty(page: Page) -> None:
    """Many streams, one of them open."""
    with ExitStack() as stack:
        for model in CROWD * 10:
            stack.enter_context(crowd(page.url, 1, f"simulator/{model}"))
        expect(page.locator("#live-count")).to_have_text("50")
        until(lambda: len(page.locator(".spark").nth(9).inner_text()) > 8)
        page.locator(".stream .open").nth(1).click()
        expect(page.locator(".tree")).to_be_visible()
        take(page, "page-fifty")


def phone(page: Page) -> None:
    """The same on a small screen, with the stream's tree."""
    stream(page)
    page.get_by_role("button", name="Put this note away").click()
    page.get_by_text("Running streams").click()
    expect(page.locator(".stream .tree")).to_be_visible()
    page.evaluate("document.activeElement.blur()")
    take(page, "page-phone")


PICTURES: list[tuple[Scheme, ViewportSize, Callable[[Page], None]]] = [
    ("light", WIDE, start),
    ("light", WIDE, streaming),
    ("dark", WIDE, cancel),
    ("light", WIDE, shield),
    ("light", WIDE, fifty),
    ("light", PHONE, phone),
]


def visit(browser: Browser, url: str, scheme: Scheme, size: ViewportSize) -> Page:
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
            server.cancel_all()
            for scheme, size, picture in PICTURES:
                page = visit(browser, server.url, scheme, size)
                picture(page)
                page.context.close()
                server.cancel_all()
        finally:
            browser.close()
            server.stop()
    if (total := sum(one.stat().st_size for one in FOLDER.iterdir())) > MAX_BYTES:
        sys.exit(f"expected pictures of {MAX_BYTES} bytes together, got {total}")


if __name__ == "__main__":
    main()
