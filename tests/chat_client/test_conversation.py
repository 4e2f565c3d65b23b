"""A conversation in the terminal, without a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trio_ai_stream.chat_client.conversation import Conversation, converse


def said(lines: list[str], answers: list[str]) -> tuple[list[Any], list[str]]:
    """Type `lines`; return what was asked and what was said."""
    typed, answered = iter(lines), iter(answers)
    asked: list[Any] = []
    told: list[str] = []

    def read(_prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    def ask(body: dict[str, Any]) -> str:
        asked.append(body)
        return next(answered)

    converse(Conversation(), read, ask, told.append)
    return asked, told


def test_each_question_carries_what_was_said_before() -> None:
    """Also of an answer that was cut; a line may go on; a retry forgets its answer."""
    asked, _ = said(["one\\", "more", "", "two", "/retry"], ["1", "", "2"])
    contents = [[m["content"] for m in body["messages"]] for body in asked]
    second = ["one\nmore", "1", "two"]
    assert contents == [["one\nmore"], second, second]


def test_commands_set_what_is_sent(tmp_path: Path) -> None:
    """Model and system prompt go with the next question; a file is not replaced."""
    file = tmp_path / "talk.md"
    lines = ["/model m/1", "/system Be brief.", "hi", f"/save {file}", f"/save {file}"]
    asked, told = said([*lines, "/new", "/unknown", "/quit", "never"], ["hello"])
    assert asked == [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hi"},
            ],
            "model": "m/1",
        }
    ]
    assert file.read_text() == "## You\n\nhi\n\n## Answer\n\nhello\n"
    assert told[3].startswith("saved")
    assert told[4].startswith("not saved")
    assert "/retry" in told[-1]
