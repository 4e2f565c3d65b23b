"""What the terminal client draws of an answer in Markdown."""

from __future__ import annotations

import io
from typing import Any

import pyte
import pytest
from rich.console import Console

from trio_ai_stream.chat_client.markdown_screen import MarkdownScreen

WIDTH = 60
ANSWER = """\
Hello, a paragraph that is longer than the terminal is wide, so it is folded.

1. one
2. two
   more

| cause | outcome |
|---|---|
| end | completed |

## Head

```python
x = 1

y = 2
```

- a
  - b

A [link](https://example.com/x) at the end."""


class Drawn:
    """A screen whose terminal is emulated, with all that has scrolled away."""

    def __init__(self, height: int) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        console = Console(
            file=self.out, force_terminal=True, width=WIDTH, height=height
        )
        self.screen = MarkdownScreen(self.out, self.err, console=console)
        self._height = height

    def feed(self, name: str, text: str) -> None:
        """Take a piece of the answer."""
        self.screen.event({"choices": [{"delta": {name: text}}]})

    def terminal(self) -> pyte.HistoryScreen:
        """Return the terminal with all that was written to it."""
        terminal = pyte.HistoryScreen(WIDTH, self._height, history=1000)
        terminal.set_mode(pyte.modes.LNM)
        pyte.Stream(terminal).feed(self.out.getvalue())
        return terminal

    def lines(self) -> list[str]:
        """Return what stands there, and above it."""
        terminal = self.terminal()
        above: list[Any] = list(terminal.history.top)
        gone = ["".join(row[x].data for x in range(WIDTH)) for row in above]
        return "\n".join(r.rstrip() for r in [*gone, *terminal.display]).split("\n")

    def text(self) -> str:
        """Return it without what stands below."""
        return "\n".join(self.lines()).rstrip()


@pytest.mark.parametrize("height", [8, 40])
def test_an_answer_in_pieces_looks_like_the_whole(height: int) -> None:
    """Drawn after every two letters, on a terminal lower than it: all is there once."""
    whole, pieces = Drawn(height), Drawn(height)
    whole.feed("content", ANSWER)
    for at in range(0, len(ANSWER), 2):
        pieces.feed("content", ANSWER[at : at + 2])
        pieces.screen.refresh()
    for drawn in (whole, pieces):
        drawn.screen.end("completed")
    assert pieces.text() == whole.text()
    assert "link (https://example.com/x) at the end." in whole.text()
    assert " 2 two" in whole.text()
    assert pieces.err.getvalue() == "[completed]\n"


def test_what_is_below_the_terminal_is_what_grows() -> None:
    """Of a block that is taller than the terminal the end is shown."""
    drawn = Drawn(8)
    for n in range(30):
        drawn.feed("content", f"- item {n}\n")
        drawn.screen.refresh()
    assert "item 29" in drawn.text()
    assert "item 3\n" not in drawn.text()


def test_a_terminals_echo_of_ctrl_c_leaves_nothing_behind() -> None:
    """No line reaches the last columns: there ^C would move what is drawn down."""
    drawn = Drawn(8)
    drawn.feed("content", "word " * 40)
    drawn.screen.refresh()
    drawn.out.write("^C")
    drawn.screen.end("cancelled")
    assert drawn.text().split() == ["word"] * 40


def test_reasoning_is_dim_and_stands_above() -> None:
    """Rich's way to say so is the terminal's own."""
    drawn = Drawn(20)
    drawn.feed("reasoning", "Let me see.")
    drawn.screen.refresh()
    assert "\x1b[2;3mLet me see." in drawn.out.getvalue()
    drawn.feed("content", "It is so.")
    drawn.screen.end("completed")
    assert drawn.text() == "Let me see.\n\nIt is so."


def test_a_model_cannot_steer_what_is_drawn() -> None:
    """Neither by its words nor by the address of a link, whatever that unescapes to."""
    drawn = Drawn(20)
    drawn.feed("content", "a\x1b]0;taken\x07 [b](https://x.example/\x9bm)\n\n")
    drawn.feed("content", "<https://x.example/%1b]52;c;eA==%07%9b2J> <mailto:%1bc@x>")
    drawn.screen.refresh()
    drawn.screen.end("completed")
    assert not {"\x07", "\x9b"} & set(drawn.out.getvalue())
    assert "\x1b]" not in drawn.out.getvalue()
    assert "\x1bc" not in drawn.out.getvalue()
    assert "https://x.example/\ufffd]52;c;eA==" in drawn.text()
    assert "a\ufffd]0;taken\ufffd" in drawn.text()


def test_what_is_said_in_between_does_not_cut_a_block_in_two() -> None:
    """A lost connection is told above the list that goes on to grow."""
    drawn = Drawn(20)
    drawn.feed("content", "1. one\n2. tw")
    drawn.screen.refresh()
    drawn.screen.note("connection lost")
    drawn.feed("content", "o\n3. three\n")
    drawn.screen.end("completed")
    assert drawn.text().splitlines() == [" 1 one", " 2 two", " 3 three"]
