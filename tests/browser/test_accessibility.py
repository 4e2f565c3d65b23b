"""axe-core finds nothing wrong with the page, and a keyboard is enough for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open, ask, finished

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js")
# What a rule depends on besides the page: each is looked at where it costs little.
FORCED: dict[str, Any] = {"color_scheme": "dark", "forced_colors": "active"}
LOOKS: list[dict[str, Any]] = [{"color_scheme": "dark"}, FORCED]
LIGHT: dict[str, Any] = {"color_scheme": "light", "forced_colors": "none"}
MARKDOWN = """# Title
*a* **b** `c` [link](https://example.org)

| a | b |
|---|--:|
| 1 | 2 |

> quote

1. one
   - two

```python
print(1)
```
"""


def violations(
    page: Page, looks: Sequence[dict[str, Any]] = ()
) -> list[tuple[str, str, str]]:
    """Return what axe-core complains of: (look, rule, element).

    All rules in a light look, in `looks` those that depend on it.
    """
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE.read_text())
    page.emulate_media(**LIGHT)
    found = complaints(page, "light", {"resultTypes": ["violations"]})
    for look in looks:
        page.emulate_media(**look)
        found += complaints(page, str(look), {"runOnly": ["color-contrast"]})
    return found


def complaints(
    page: Page, look: str, options: dict[str, Any]
) -> list[tuple[str, str, str]]:
    """Run axe-core once."""
    found: dict[str, Any] = page.evaluate("options => axe.run(options)", options)
    return [
        (look, rule["id"], node["html"])
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("width", [320, 1280])
def test_axe_finds_nothing(visit: Open, width: int) -> None:
    """In light, dark and with forced colours, with each part open.

    And nothing is wider than the screen (WCAG 2.2, 1.4.10).
    """
    page = visit(width=width)
    looks = LOOKS if width > 1000 else []

    def check(state: str) -> None:
        assert violations(page, looks) == [], state
        assert page.evaluate("document.documentElement.scrollWidth") == width, state

    check("start")
    page.locator("#model").click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#models [aria-selected=true]")).to_be_visible()
    check("the list of models")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Options").click()
    check("options")
    page.keyboard.press("Escape")
    answer = ask(page, "Go on for ever.", "simulator/endless")
    if width < 1000:
        page.get_by_text("Running streams").click()
    expect(page.locator(".stream[data-state=streaming] .tree")).to_be_visible()
    page.get_by_text("What is this?").click()
    expect(answer.locator(".body")).to_have_text(re.compile(r"\w"))
    check("streaming")
    page.keyboard.press("Escape")
    expect(finished(answer).locator(".card.stopped")).to_be_visible()
    expect(page.locator(".was .steps")).to_be_visible()
    finished(ask(page, "Fail.", "simulator/drop"))
    answer = finished(ask(page, "Weather?", "simulator/agent"))
    for part in answer.locator("summary").all():
        part.click()
    finished(ask(page, MARKDOWN, "simulator/echo"))
    page.locator(".user").last.get_by_role("button", name="Edit").click()
    check("answers of all kinds")
    page.get_by_role("button", name="Leave it").click()
    page.get_by_role("button", name="Chats").click()
    page.get_by_role("button", name="Rename").click()
    check("the list of chats")


REACHABLE = """() => [...document.querySelectorAll(
    "a[href], button:enabled, input, textarea, summary, [tabindex='0']"
)].filter((one) => one.checkVisibility({visibilityProperty: true})
    && getComputedStyle(one).pointerEvents !== "none")
  .map((one) => (one.tried = true, one)).length"""
FOCUSED = """() => {
    const one = document.activeElement;
    const style = getComputedStyle(one);
    const first = one.tried === true;
    one.tried = false;
    const name = one.id || one.className || one.localName;
    return [first, name, style.outlineStyle !== "none", one.localName];
}"""


@pytest.mark.parametrize("width", [320, 1280])
def test_the_keyboard_reaches_everything(visit: Open, width: int) -> None:
    """Tab goes to all that can be used, and what has the focus shows it."""
    page = visit(width=width)
    finished(ask(page, MARKDOWN, "simulator/echo"))
    if width < 1000:
        page.get_by_text("Running streams").click()
    expect(page.locator("#live-past li")).to_have_count(1)
    expect(page.locator(".stream")).to_have_count(0)
    page.locator("#prompt").focus()
    expected = page.evaluate(REACHABLE)
    reached: list[str] = []
    for _ in range(expected + 4):  # the browser itself is on the way
        page.keyboard.press("Tab")
        first, name, outlined, tag = page.evaluate(FOCUSED)
        if first:
            reached.append(name)
        assert outlined or tag == "body", name
    assert len(reached) == expected, reached


def test_by_keys_alone_a_stream_is_opened_and_cancelled(visit: Open) -> None:
    """The focus stays where it was, and does not vanish with what had it."""
    page = visit()
    answer = ask(page, "Go on for ever.", "simulator/endless")
    stream = page.locator(".stream[data-state=streaming]")
    expect(stream.locator(".tree")).to_be_visible()
    stream.locator(".open").focus()
    page.keyboard.press("Enter")
    expect(stream.locator(".tree")).to_have_count(0)
    expect(stream.locator(".open")).to_be_focused()
    page.keyboard.press("Enter")
    expect(stream.locator(".tree")).to_be_visible()
    page.keyboard.press("Tab")
    expect(stream.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(finished(answer)).to_contain_text("Someone cancelled this answer")
    expect(page.locator("#live-body")).to_be_focused()


def press_enter_slowly(page: Page, then: Locator) -> None:
    """Press Enter; its character comes once `then` has the focus, as under load."""
    session = page.context.new_cdp_session(page)
    for kind in ("rawKeyDown", "char", "keyUp"):
        event = {"type": kind, "key": "Enter", "windowsVirtualKeyCode": 13}
        event |= {"text": "\r"} if kind == "char" else {}
        session.send("Input.dispatchKeyEvent", event)
        expect(then).to_be_focused()
    session.detach()


def test_by_keys_alone_chats_are_renamed_and_answers_asked_for_again(
    visit: Open,
) -> None:
    """A dialog gives the focus back; a button that is gone hands it on."""
    page = visit()
    answer = finished(ask(page, "Rivers", "simulator/echo"))
    page.get_by_role("button", name="Chats").press("Enter")
    page.get_by_role("button", name="Rename").press("Enter")
    page.keyboard.type("Water")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Rename: Rivers")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_label("New name").fill("Water")
    press_enter_slowly(page, page.get_by_role("button", name="Rename: Water"))
    expect(page.get_by_role("button", name="Rename: Water")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Chats")).to_be_focused()
    answer.get_by_role("button", name="Retry").press("Enter")
    finished(answer)
    expect(page.locator("#prompt")).to_be_focused()
