"""How the page looks: narrow or wide, dark or light, without motion, by the policy."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import Open, ask, finished
from tests.support.serving import ServerProcess

CODE = "Look:\n\n```text\n" + "wide " * 80 + "\n```\n\n" + "unbroken" * 60
MORE: dict[str, Any] = {"color_scheme": "dark", "contrast": "more"}
# Pairs of custom properties that stand on each other as text and ground.
PAIRS = [
    ("ink", "paper"),
    ("ink", "sheet"),
    ("ink", "wash"),
    ("soft", "paper"),
    ("soft", "sheet"),
    ("soft", "sunk"),
    ("accent", "paper"),
    ("accent", "sheet"),
    ("accent", "sunk"),
    ("accent", "wash"),
    ("on-accent", "accent"),
    ("good", "sheet"),
    ("good", "sunk"),
    ("wait", "sheet"),
    ("bad", "bad-wash"),
    ("bad", "sunk"),
    ("bad", "sheet"),
    ("bad", "paper"),
    ("soft", "bad-wash"),
    ("warn-ink", "warn-wash"),
]


def test_nothing_scrolls_sideways(visit: Open) -> None:
    """With wide code and endless words in it the page is as wide as the screen."""
    page = visit()
    finished(ask(page, CODE, "simulator/echo"))
    finished(ask(page, "Fail.", "simulator/bad-request"))
    for width in (320, 375, 768, 1280):
        page.set_viewport_size({"width": width, "height": 640})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for part in ("#scroll", "#composer", ".live-body"):
            wider = page.locator(part).evaluate("e => e.scrollWidth - e.clientWidth")
            assert wider <= 0, (part, width)
        expect(page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)


def test_with_large_letters_a_message_has_room(visit: Open) -> None:
    """At twice the size on a phone the box is as wide as some words."""
    page = visit(width=320)
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert page.locator("#prompt").evaluate("e => e.clientWidth") > 200
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_on_a_phone_the_live_view_folds_away(visit: Open) -> None:
    """On a narrow screen the running streams open on demand."""
    phone = visit(width=375)
    note = phone.get_by_text("Nothing runs")
    expect(note).to_be_hidden()
    phone.get_by_text("Running streams").click()
    expect(note).to_be_visible()
    expect(visit(width=1280).get_by_text("Nothing runs")).to_be_visible()


def test_on_a_phone_a_stream_has_its_model(visit: Open) -> None:
    """At 320 pixels no heading is on another one, and a model is legible."""
    page = visit(width=320)
    page.get_by_text("Running streams").click()
    ask(page, "Hm?", "simulator/no-token")
    model = page.locator("td.model")
    expect(model).to_have_text("simulator/no-token")
    for owned in (False, True):  # by several
        wider = page.evaluate(
            """(owned) => {
                const table = document.querySelector("#live-streams");
                table.classList.toggle("owned", owned);
                const heads = [...table.querySelectorAll("th")];
                const shows = { visibilityProperty: true };
                const wide = heads.filter((one) => one.checkVisibility(shows))
                    .filter((one) => one.scrollWidth > one.clientWidth);
                const room = table.querySelector("td.model").clientWidth;
                return [wide.map((one) => one.textContent), room >= 40];
            }""",
            owned,
        )
        assert wider == [[], True]


def test_text_stands_out_from_its_ground(visit: Open) -> None:
    """Each pair of text and ground has a contrast of 4.5 at least (WCAG 2.2, 1.4.3)."""
    page = visit()
    names = {name for pair in PAIRS for name in pair}
    for look in ({"color_scheme": "light"}, {"color_scheme": "dark"}, MORE):
        page.emulate_media(**look)
        colours: dict[str, str] = page.evaluate(
            """names => Object.fromEntries(names.map((name) => [
                name, getComputedStyle(document.body).getPropertyValue("--" + name)
            ]))""",
            sorted(names),
        )
        weak = {
            pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2)
            for pair in PAIRS
            if contrast(colours[pair[0]], colours[pair[1]]) < 4.5
        }
        assert not weak, look


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two `#rrggbb` (WCAG 2.2, relative luminance)."""
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`."""
    match = re.fullmatch(r"\s*#(\w\w)(\w\w)(\w\w)\s*", colour)
    assert match is not None, colour
    parts = [int(part, 16) / 255 for part in match.groups()]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_conversation_is_printed_whole(visit: Open) -> None:
    """On paper is all of it, and nothing that only a screen can use."""
    page = visit()
    finished(ask(page, "Line.\n\n" * 200, "simulator/echo"))
    page.emulate_media(media="print")
    tall = page.locator("#messages").evaluate("e => e.scrollHeight")
    assert page.evaluate("document.documentElement.scrollHeight") >= tall
    for part in ("header", "#composer", "#live", ".actions >> nth=0"):
        expect(page.locator(part)).to_be_hidden()
    page.emulate_media(media="null")


def test_nothing_moves_for_those_who_asked(visit: Open) -> None:
    """With reduced motion neither cursor nor bars are animated."""
    page = visit(reduced_motion="reduce")
    answer = ask(page, "Go on for ever.", "simulator/endless")
    bar = page.locator(".stream .bar > span").first
    expect(bar).to_have_css("transition-property", "none")
    expect(page.locator(".stream .state")).to_have_css("animation-name", "none")
    page.keyboard.press("Escape")
    finished(answer)


def test_the_policy_holds_and_nothing_comes_from_elsewhere(
    visit: Open, server: ServerProcess
) -> None:
    """The policy allows nothing unsafe; every request goes to the page's own server."""
    page = visit()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    response = page.reload()
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    finished(ask(page, "Hello."))
    assert requested
    assert {url for url in requested if not url.startswith(server.url)} == set()
