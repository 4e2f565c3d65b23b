"""Takes the pictures of the terminal commands, as SVG by rich.

`python -m scripts.screenshots` takes them with those of the page. What is drawn is what
the commands draw, of real answers of a real server.
"""

from __future__ import annotations

import io
import re
from functools import partial
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.text import Text

from trio_ai_stream.chat_client.chat_exchange import ChatEnding, ChatExchange
from trio_ai_stream.chat_client.completion_chunk import read_delta
from trio_ai_stream.chat_client.markdown_screen import MarkdownScreen
from trio_ai_stream.chat_client.process_tree import first_snapshot, lines
from trio_ai_stream.chat_client.server_client import open_client

WIDTH = 88
ANSWERING = "simulator/default?reasoning=24&chunks=100&delay_ms=5"
ENDLESS = "simulator/endless"
# Rich's picture loads its font from elsewhere; what the reader has will do.
FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


class StillScreen(MarkdownScreen):
    """Draws an answer once, when it has ended, all of it on one console."""

    def __init__(self, console: Console) -> None:
        super().__init__(io.StringIO(), io.StringIO(), console=console)
        self._paper = console

    def refresh(self) -> None:
        """Draw nothing yet: a picture would hold every state of the drawing."""

    def note(self, line: str) -> None:
        """Say it where the answer stands."""
        self._paper.print(Text(f"[{line}]"))


async def take(url: str, folder: Path) -> None:
    """Write `terminal-chat.svg` and `terminal-pstree.svg`."""
    paper = new_console()
    paper.print("> How do I cancel?")
    await answer(url, paper, ANSWERING, "How do I cancel?")
    paper.print(
        "> /model simulator/endless\nmodel: simulator/endless\n> What is a shield?"
    )
    await answer(url, paper, ENDLESS, "What is a shield?", cancel_after=60)
    paper.print("> ")
    save(paper, folder / "terminal-chat.svg", "trio-ai-stream chat")

    paper = new_console()
    async with trio.open_nursery() as nursery:
        for n in range(2):
            nursery.start_soon(answer, url, new_console(), ENDLESS, f"{n}")
        await trio.sleep(2)  # for numbers that are not all 0
        paper.print("$ trio-ai-stream pstree")
        for line in lines(await first_snapshot(url, "", None)):
            paper.print(Text(line))
        nursery.cancel_scope.cancel(reason="seen")
    save(paper, folder / "terminal-pstree.svg", "trio-ai-stream pstree")


def new_console() -> Console:
    """Return a console that keeps what is printed."""
    return Console(
        file=io.StringIO(),
        record=True,
        force_terminal=True,
        width=WIDTH,
        highlight=False,
    )


async def answer(
    url: str, paper: Console, model: str, question: str, cancel_after: int | None = None
) -> ChatEnding:
    """Ask, draw the answer, and how it ended; cancel after so many pieces."""
    screen = StillScreen(paper)
    screen.warned = model == ENDLESS  # it is said once in a conversation
    pieces = 0

    async with open_client(url, "", None) as client, trio.open_nursery() as nursery:

        def show(chunk: dict[str, Any]) -> None:
            nonlocal pieces
            screen.event(chunk)
            pieces += bool(read_delta(chunk).content)
            if pieces == cancel_after:
                nursery.start_soon(exchange.cancel)

        exchange = ChatExchange(client, show, screen.note)
        messages = [{"role": "user", "content": question}]
        ending = await exchange.run({"messages": messages, "model": model})
    screen.end(ending.line)
    return ending


def save(paper: Console, path: Path, title: str) -> None:
    """Write a picture of all that was printed."""
    picture = paper.export_svg(title=title, unique_id=path.stem)
    path.write_text(FONT.sub("", picture))


def main(url: str, folder: Path) -> None:
    """Take both pictures."""
    trio.run(partial(take, url, folder))
