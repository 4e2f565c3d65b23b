"""The page in Firefox: what other tests do not see in Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.browser.firefox import Firefox
from tests.support.serving import ServerProcess

PROGRAM = shutil.which("firefox-esr") or shutil.which("firefox")
ENTER, ESCAPE = "\ue007", "\ue00c"
NUMBERS = " ".join(f"w{n}" for n in range(200))
LIVE = "document.querySelector('#link')?.dataset.state === 'live'"
BODY = "document.querySelector('.assistant:last-child .body')?.innerText"
ENDED = "document.querySelector('.assistant:last-child')?.dataset.end"
RUNS = f"{BODY}?.includes('w1 w2') && !{ENDED}"
GO_ON = """[...document.querySelectorAll(".assistant:last-child button")]
    .find((one) => one.textContent === "Go on here")"""


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """One Firefox: a start costs two seconds."""
    if PROGRAM is None:
        pytest.skip("there is no firefox: apt-get install firefox-esr")
    browser = Firefox(PROGRAM, tmp_path_factory.mktemp("firefox"))
    yield browser
    browser.close()


@pytest.fixture
def first(firefox: Firefox, server: ServerProcess) -> Iterator[str]:
    """A new visitor's window; no script error and no violation of the policy."""
    window = firefox.visit(server.url)
    firefox.wait(window, LIVE)
    yield window
    server.cancel_all()
    complaints, firefox.complaints = firefox.complaints, []
    assert not complaints, complaints


def ask(firefox: Firefox, window: str, text: str, model: str) -> None:
    """Choose a behaviour, put a text into the box, press Enter."""
    firefox.value(
        window,
        f"""[["model", {json.dumps(model)}], ["prompt", {json.dumps(text)}]].map(
            ([id, text]) => {{
                const field = document.getElementById(id);
                field.focus();
                field.value = text;
                field.dispatchEvent(new Event("input", {{ bubbles: true }}));
            }})""",
    )
    firefox.press(window, ENTER)


def test_an_answer_is_reloaded_finished_and_stopped(
    firefox: Firefox, first: str
) -> None:
    """Its words come one by one, also after a reload; Escape stops the next one."""
    ask(firefox, first, NUMBERS, "simulator/echo?delay_ms=5")
    firefox.wait(first, RUNS)
    firefox.reload(first)
    firefox.wait(first, ENDED)
    assert firefox.value(first, BODY) == NUMBERS
    ask(firefox, first, "Go on for ever.", "simulator/endless")
    firefox.wait(first, f"{BODY}?.includes('Go on')")
    firefox.press(first, ESCAPE)
    firefox.wait(first, ENDED)
    assert firefox.value(first, ENDED) == "stopped"


def test_two_windows_read_at_once(
    firefox: Firefox, server: ServerProcess, first: str
) -> None:
    """No reader waits in the browser's cache for the end of what another one reads."""
    second = firefox.beside(first, server.url)
    firefox.wait(second, LIVE)
    ask(firefox, first, NUMBERS * 9, "simulator/echo?delay_ms=5")
    firefox.wait(first, RUNS)
    firefox.value(second, "document.querySelector('#history-open').click()")
    firefox.wait(second, "document.querySelector('#history-list .title')")
    firefox.value(second, "document.querySelector('#history-list .title').click()")
    firefox.wait(second, RUNS)
    firefox.wait(first, GO_ON)
    firefox.value(first, f"({GO_ON}).click()")
    firefox.wait(first, RUNS)
    firefox.press(first, ESCAPE)


def test_text_from_the_right_stands_there(firefox: Firefox, first: str) -> None:
    """A question's lines, paragraphs and the items of a list begin at the right."""
    ask(firefox, first, "\u05e9\u05dc\u05d5\u05dd\n\n- \u05d0", "simulator/echo")
    firefox.wait(first, ENDED)
    gaps = firefox.value(
        first,
        """[...document.querySelectorAll(".user > p, .body :is(p, li)")].map((one) => {
            const text = document.createRange();
            text.selectNodeContents(one);
            const [box, words] = [one, text].map((it) => it.getBoundingClientRect());
            return Math.round(box.right - words.right);
        })""",
    )
    assert gaps == [0, 0, 0]
