"""A command in a terminal, as a person sees it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pyte

from tests.support.serving import PATIENCE_S


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

    def rest(self) -> str:
        """Wait until the command has ended; return all that stands there then."""
        self.process.wait(PATIENCE_S)
        while select.select([self._own], [], [], 0)[0]:
            try:
                self._stream.feed(os.read(self._own, 65536))
            except OSError:  # EIO: nobody has the other end any more
                break
        return "\n".join(self.screen.display)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._own, text.encode())

    def close(self) -> None:
        """End the command, and the terminal."""
        self.process.kill()
        self.process.wait()
        os.close(self._own)
