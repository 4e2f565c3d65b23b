"""What the terminal client shows."""

from __future__ import annotations

import io
import json

import pytest

from trio_ai_stream.chat_client.command import Screen


class Terminal(io.StringIO):
    """A text file that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


HOSTILE = "a\x1b]0;taken\x07b\x9bm\tc\n\x7f"


def test_a_model_cannot_steer_the_terminal() -> None:
    """On a terminal control characters, but for tab and newline, are replaced."""
    out = Terminal()
    Screen(out, io.StringIO()).event({"type": "content", "content": HOSTILE})
    assert out.getvalue() == "a\ufffd]0;taken\ufffdb\ufffdm\tc\n\ufffd"


def test_a_pipe_gets_every_character() -> None:
    """Into a file or a pipe the answer goes unchanged."""
    out = io.StringIO()
    Screen(out, io.StringIO()).event({"type": "content", "content": HOSTILE})
    assert out.getvalue() == HOSTILE


@pytest.mark.parametrize(("content", "ends"), [("a", "a\n"), ("a\n", "a\n"), ("", "")])
def test_the_answer_ends_with_its_line(content: str, ends: str) -> None:
    """A newline is added only where one is missing, and the ending goes to stderr."""
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(out, err)
    screen.event({"type": "content", "content": content})
    screen.end("completed\x1b[2J")
    assert out.getvalue() == ends
    assert err.getvalue() == "[completed\ufffd[2J]\n"


def test_raw_events_are_lines_of_json() -> None:
    """With `raw` every event is there, content or not."""
    out = Terminal()
    screen = Screen(out, io.StringIO(), raw=True)
    events = [{"type": "connected"}, {"type": "content", "content": "a\n\x1b"}]
    for event in events:
        screen.event(event)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == events
    assert "\x1b" not in out.getvalue()
