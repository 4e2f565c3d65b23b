"""`trio-ai-stream chat` in a terminal: a conversation, typed and read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import PATIENCE_S, ServerProcess
from tests.support.terminal import Terminal


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without keys."""
    process = ServerProcess(tmp_path_factory.mktemp("server") / "log")
    yield process
    process.stop()


def test_a_conversation(server: ServerProcess, tmp_path: Path) -> None:
    """Asked, cancelled, asked again, saved: with the keys that a person presses."""
    terminal = Terminal("chat", "--url", server.url)
    try:
        terminal.see("> ")
        terminal.type("/model simulator/endless\r")
        terminal.see("model: simulator/endless")
        terminal.type("first\\\r")
        terminal.see(". ")
        terminal.type("second\r")
        terminal.see("You asked about “first")
        terminal.type("\x03")
        terminal.see("[cancelled: upstream closed in ")
        terminal.type("/model simulator/agent?delay_ms=0\r/retry\r")
        shown = terminal.see("finish reason tool_calls]")
        assert "The question seems simple" in shown
        assert shown.count("no model answers") == 1
        assert "the model calls a tool, which this client does not run: get_w" in shown
        terminal.type("/new\r/model simulator/echo\r")
        terminal.see("model: simulator/echo")
        terminal.type("\x1b[200~third\n/quit\x1b[201~\r")  # as a terminal pastes
        terminal.see("third /quit")
        terminal.see("finish reason stop]")
        terminal.type(f"/save {tmp_path / 'talk.md'}\r")
        terminal.see("saved: ")
        assert (tmp_path / "talk.md").read_text().startswith("## You\n\nthird\n/quit")
        terminal.type("\x04")
        assert terminal.process.wait(PATIENCE_S) == 0
    finally:
        terminal.close()
