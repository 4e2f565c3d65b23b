"""A conversation in the terminal: what was said so far, and the commands in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HELP: Final = (
    "/model NAME    another model         /retry      ask the last question again\n"
    "/models WORD   the server's models   /save FILE  write all of it as Markdown\n"
    "/system TEXT   a system prompt       /new        forget all of it\n"
    "A backslash at a line's end goes on; pasted lines stay together.\n"
    "Ctrl-C cancels an answer, Ctrl-D ends."
)
MAX_LISTED: Final = 40


@dataclass
class Conversation:
    """What is sent with each question; `messages` are those said so far."""

    system: str | None = None
    model: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        """Return the body of `POST /chat` for the last question."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        model = {"model": self.model} if self.model else {}
        return {"messages": [*first, *self.messages], **model}

    def markdown(self) -> str:
        """Return all that was said."""
        names = {"user": "You", "assistant": "Answer"}
        parts = [f"## {names[m['role']]}\n\n{m['content']}\n" for m in self.messages]
        return "\n".join(parts)

    def command(
        self, line: str, list_models: Callable[[], list[str]]
    ) -> tuple[str, bool]:
        """Obey a line that begins with a slash: what to say, whether to ask again."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        match name:
            case "/model":
                self.model = rest or self.model
                return f"model: {self.model or 'the choice of the server'}", False
            case "/models":
                return _listed(list_models(), rest), False
            case "/system":
                self.system = rest or None
                return "a system prompt is set" if rest else "no system prompt", False
            case "/new":
                self.messages.clear()
                return "forgotten", False
            case "/save" if rest:
                return self._save(Path(rest)), False
            case "/retry" if self.messages:
                if self.messages[-1]["role"] == "assistant":
                    self.messages.pop()
                return "once more", True
        return HELP, False

    def _save(self, path: Path) -> str:
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(self.markdown())
        except OSError as exc:
            return f"not saved: {path}: {exc.strerror}"
        return f"saved: {path}"


def _listed(models: list[str], word: str) -> str:
    found = [name for name in models if word.lower() in name.lower()]
    if not found:
        return "the server names no such model"
    more = len(found) - MAX_LISTED
    rest = [f"and {more} more: /models WORD"] if more > 0 else []
    return "\n".join([*found[:MAX_LISTED], *rest])


def is_utf8(text: str) -> bool:
    """Return whether what was read can be sent: other bytes are halves of pairs."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def converse(
    conversation: Conversation,
    read: Callable[[str], str],
    ask: Callable[[dict[str, Any]], str],
    say: Callable[[str], None],
    list_models: Callable[[], list[str]],
) -> None:
    """Read questions and have them answered until the input ends, or `/quit`.

    `ask` shows an answer and returns its text, of a cancelled one what came. Ctrl-C
    takes a line back; a second one ends the conversation.
    """
    say(HELP)
    taken_back = False
    while True:
        try:
            text = read("> ")
            while text.endswith("\\"):
                text = text[:-1] + "\n" + read(". ")
        except EOFError:
            say("")  # the shell's prompt is to have a line of its own
            return
        except KeyboardInterrupt:
            say("")
            if taken_back:
                return
            say("Ctrl-C once more, or Ctrl-D, ends")
            taken_back = True
            continue
        taken_back = False
        if not is_utf8(text):
            say("expected a line in UTF-8, got other bytes; it was left out")
            continue
        if text.strip() == "/quit":
            return
        if text.startswith("/"):
            said, again = conversation.command(text.strip(), list_models)
            say(said)
            if not again:
                continue
        elif text.strip():
            conversation.messages.append({"role": "user", "content": text})
        else:
            continue
        if answer := ask(conversation.body()):
            conversation.messages.append({"role": "assistant", "content": answer})
