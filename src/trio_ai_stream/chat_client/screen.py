"""One answer on a terminal, in a file or in a pipe, as plain text."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final, TextIO

from trio_ai_stream.chat_client.completion_chunk import ToolCalls, read_delta

# A model's words are not to move the cursor, rename the window or write the clipboard:
# C0 and C1 controls but for tab and newline. Halves of pairs cannot be written at all.
CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_DIM, _NORMAL = "\x1b[2m", "\x1b[22m"


def harmless(text: str) -> str:
    """Return the text without what a terminal would obey."""
    return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


class Screen:
    """Shows one answer as it comes; with `raw` every chunk is a line of JSON instead.

    The answer goes to stdout; what became of it, and the tools that it asks for, to
    stderr. Reasoning is shown on a terminal only, dimmed. The writes block: a terminal
    that does not read holds the reading from the server as well (backpressure).
    `text` is the answer so far; `warned`: that no model answers need not be said.
    """

    def __init__(
        self, out: TextIO | None = None, err: TextIO | None = None, *, raw: bool = False
    ) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._raw = raw
        self._unicode = (self._out.encoding or "utf-8").lower().startswith("utf")
        self._terminal = self._out.isatty()
        self._line_is_open = False
        self._reasons = False
        self.warned = False
        self._calls = ToolCalls()
        self.text = ""

    def event(self, chunk: dict[str, Any]) -> None:
        """Take one chunk.

        :raises BrokenPipeError: nobody reads stdout any more.
        """
        if not self.warned and chunk.get("provider") == "Simulator":
            self.warned = True
            self.note("no model answers: this is the server's embedded simulator")
        if self._raw:
            line = json.dumps(chunk, ensure_ascii=not self._unicode)
            escaped = CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", line)
            self._out.write(f"{escaped}\n")
            self._out.flush()
            return
        delta = read_delta(chunk)
        if delta.reasoning and self._terminal:
            self.show_reasoning(harmless(delta.reasoning))
        if delta.content:
            self.text += delta.content
            content = harmless(delta.content) if self._terminal else delta.content
            self.show_content(content)
        self._calls.add(delta.calls)
        if delta.finish_reason:
            self._name_calls()

    def show_reasoning(self, text: str) -> None:
        """Write what the model thinks before it answers."""
        if not self._reasons:
            self._reasons = True
            self._out.write(_DIM)
        self._write(text)

    def show_content(self, text: str) -> None:
        """Write a piece of the answer."""
        self._end_reasoning()
        self._write(text)

    def refresh(self) -> None:
        """Bring what is shown up to date; called now and then. Here it always is."""

    def end(self, line: str) -> None:
        """End the answer's last line and say how it ended."""
        self._end_reasoning()
        self._name_calls()
        self.end_line()
        self.note(line)

    def end_line(self) -> None:
        """Begin a new line on stdout if the last one is not ended."""
        if self._line_is_open:
            self._write("\n")

    def note(self, line: str) -> None:
        """Say something that is not the answer; on a terminal, on a line of its own."""
        if self._terminal and self._line_is_open:
            self.end_line()
        self._err.write(f"[{harmless(line)}]\n")
        self._err.flush()

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
        self._line_is_open = not text.endswith("\n")

    def _end_reasoning(self) -> None:
        if self._reasons:
            self._reasons = False
            self._out.write(_NORMAL)
            self.end_line()
            self._write("\n")

    def _name_calls(self) -> None:
        for call in self._calls.taken():
            self.end_line()
            self.note(f"the model calls a tool, which this client does not run: {call}")
