"""`trio-ai-stream chat` in a terminal: a conversation, typed and read."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest

from tests.support.serving import PATIENCE_S, ServerProcess


class Terminal:
    """A command in a terminal of 100 columns, and what stands there."""

    def __init__(self, *words: str, **env: str) -> None:
        self._own, theirs = pty.openpty()
        self.screen = pyte.Screen(100, 60)
        self._stream = pyte.ByteStream(self.screen)
        size = {"LINES": "60", "COLUMNS": "100", "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trio_ai_stream", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **size, **env},
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(theirs)

    def see(self, text: str, times: int = 1) -> str:
        """Wait until `text` stands there so often; return all that stands there."""
        give_up_at = time.monotonic() + PATIENCE_S
        while (shown := "\n".join(self.screen.display)).count(text) < times:
            left = give_up_at - time.monotonic()
            ready, _, _ = select.select([self._own], [], [], max(left, 0))
            assert ready, f"expected {text!r}, got\n{shown}"
            self._stream.feed(os.read(self._own, 65536))
        return shown

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._own, text.encode())

    def close(self) -> None:
        """End the command, and the terminal."""
        self.process.kill()
        self.process.wait()
        os.close(self._own)


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
        assert "the model calls a tool, which this client does not run: get_w" in shown
        terminal.type(f"/save {tmp_path / 'talk.md'}\r")
        terminal.see("saved: ")
        assert (tmp_path / "talk.md").read_text().startswith("## You\n\nfirst\nsecond")
        terminal.type("\x04")
        assert terminal.process.wait(PATIENCE_S) == 0
    finally:
        terminal.close()
