"""What a person reads: the answer on stdout, what became of it on stderr.

The writes are plain and blocking: a terminal that does not read holds the reading from
the server as well, which is backpressure as it should be.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final, TextIO

# A model's words are not to move the cursor, rename the window or write the clipboard:
# C0 and C1 controls but for tab and newline.
CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Screen:
    """Shows one exchange; with `raw` every event is a line of JSON instead."""

    def __init__(
        self, out: TextIO | None = None, err: TextIO | None = None, *, raw: bool = False
    ) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._raw = raw
        self._terminal = self._out.isatty()
        self._column_zero = True

    def event(self, event: dict[str, Any]) -> None:
        """Show one event as it comes.

        :raises BrokenPipeError: nobody reads stdout any more.
        """
        if self._raw:
            self._out.write(json.dumps(event, ensure_ascii=False) + "\n")
        elif event.get("type") == "content" and (text := str(event["content"])):
            self._out.write(_harmless(text) if self._terminal else text)
            self._column_zero = text.endswith("\n")
        self._out.flush()

    def warn_of_simulator(self) -> None:
        """Say that no model answers."""
        self._note("no model answers: this is the server's embedded simulator")

    def end(self, line: str) -> None:
        """End the answer's last line and say how it ended."""
        if not self._column_zero:
            self._out.write("\n")
            self._out.flush()
        self._note(line)

    def _note(self, line: str) -> None:
        self._err.write(f"[{_harmless(line)}]\n")
        self._err.flush()


def _harmless(text: str) -> str:
    return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)
