"""axe-core finds nothing wrong with the page, in any of its states."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, ask, finished

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js")


def violations(page: Page) -> list[tuple[str, str]]:
    """Return what axe-core complains of: (rule, element)."""
    page.evaluate(AXE.read_text())
    found: dict[str, Any] = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        (rule["id"], node["html"])
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_axe_finds_nothing(visit: Open, width: int, scheme: str) -> None:
    """At the start, while a stream runs, after a stop, an error and a whole answer."""
    page = visit(width=width, color_scheme=scheme)
    assert violations(page) == []
    answer = ask(page, "Go on for ever.", "simulator/endless")
    if width < 1000:
        page.get_by_text("Running streams").click()
    expect(page.locator(".stream[data-state=streaming]")).to_be_visible()
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(finished(answer).locator(".card.stopped")).to_be_visible()
    finished(ask(page, "Fail.", "simulator/drop"))
    finished(ask(page, "Hello.", "simulator/fast"))
    expect(page.locator(".line")).to_be_visible()
    assert violations(page) == []
