"""One answer on a terminal as formatted Markdown, by rich.

Only the last block of the answer can still change. Blocks before it are printed once
and for all; the last one is drawn again and again below them, and of one that is taller
than the terminal the end is shown. So the scrollback holds the answer exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from trio_ai_stream.chat_client.screen import Screen, harmless

_REASONING = Style(dim=True, italic=True)


class MarkdownScreen(Screen):
    """Shows one answer with its headings, lists, tables and code."""

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        *,
        console: Console | None = None,
    ) -> None:
        """Take the console to draw on, if not a new one on `out`."""
        super().__init__(out, err)
        self._console = console or Console(file=self._out)
        self._terminal = True
        self._live: Live | None = None
        self._parser = MarkdownIt("commonmark").enable("table")
        self._pending = ""
        self._thoughts = ""
        self._stale = False
        self._spaced = True

    def show_reasoning(self, text: str) -> None:
        """Keep what the model thinks for the next refresh."""
        self._thoughts += text
        self._stale = True

    def show_content(self, text: str) -> None:
        """Keep a piece of the answer for the next refresh."""
        self._settle_thoughts()
        self._pending += text
        self._stale = True

    def refresh(self) -> None:
        """Print the blocks that are complete, and draw the one that grows."""
        if not self._stale:
            return
        self._stale = False
        # A line that is not complete may turn out to belong to the block before it.
        whole, ended, line = self._pending.rpartition("\n")
        *complete, last = self._blocks(whole + ended)
        for block in complete:
            self._settle(block)
        self._pending = last + line
        shown = self._thought() if self._thoughts else _formatted(self._pending)
        if self._live is None:
            self._space()
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(_Block(shown, tail=True), refresh=True)

    def end_line(self) -> None:
        """Print what is left: nothing grows any more."""
        self._settle_thoughts()
        self._stop_drawing()
        for block in self._blocks(self._pending):
            self._settle(block)
        self._pending = ""
        self._stale = False

    def note(self, line: str) -> None:
        """Say something that is not the answer, below what there is of it."""
        self._stop_drawing()
        self._stale = bool(self._pending or self._thoughts)
        super().note(line)

    def _settle(self, markdown: str) -> None:
        """Print a block for good."""
        self._stop_drawing()
        if markdown.strip():
            self._space()
            self._console.print(_Block(_formatted(markdown)))
            self._spaced = False

    def _settle_thoughts(self) -> None:
        if self._thoughts:
            self._stop_drawing()
            self._space()
            self._console.print(self._thought())
            self._thoughts = ""
            self._spaced = False

    def _space(self) -> None:
        if not self._spaced:
            self._console.print()
            self._spaced = True

    def _thought(self) -> Text:
        return Text(self._thoughts.strip(), style=_REASONING)

    def _stop_drawing(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _blocks(self, markdown: str) -> list[str]:
        """Return the text of each block: paragraph, list, table, code."""
        tokens = self._parser.parse(markdown)
        starts = [t.map[0] for t in tokens if t.level == 0 and t.map is not None]
        if not starts:
            return [markdown]
        lines = markdown.split("\n")
        lines = [*(f"{line}\n" for line in lines[:-1]), lines[-1]]
        ends = [*starts[1:], len(lines)]
        return ["".join(lines[a:b]) for a, b in zip(starts, ends, strict=True)]


def _formatted(markdown: str) -> Markdown:
    # A link is shown with its address: what it says may not be where it leads.
    return Markdown(markdown, hyperlinks=False)


class _Block:
    """Something without the blanks that rich puts around it.

    With `tail` only as many of its last lines as the terminal has room for.
    """

    def __init__(self, inner: Markdown | Text, *, tail: bool = False) -> None:
        self._inner = inner
        self._tail = tail

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        # Where a terminal shows ^C at the end of a full line, the cursor is a row lower
        # than is known here.
        options = options.update(width=max(1, options.max_width - len("^C")))
        rendered = console.render_lines(self._inner, options, pad=False)
        lines = [_without_blanks(map(_harmless, line)) for line in rendered]
        while lines and not lines[-1]:
            lines.pop()
        while lines and not lines[0]:
            lines.pop(0)
        if self._tail:
            lines = lines[-max(1, console.size.height - 2) :]
        for line in lines:
            yield from line
            yield Segment.line()


def _harmless(segment: Segment) -> Segment:
    """Return what may be drawn: Markdown makes a control out of an escape in a URL."""
    return segment._replace(text=harmless(segment.text))


def _without_blanks(line: Iterable[Segment]) -> list[Segment]:
    """Return a line without the blanks at its end, but for those with a colour."""
    kept = list(line)
    while kept and not (kept[-1].style and kept[-1].style.bgcolor):
        last = kept.pop()
        if text := last.text.rstrip():
            return [*kept, Segment(text, last.style)]
    return kept
