"""A conversation in the terminal, without a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trio_ai_stream.chat_client.conversation import MAX_LISTED, Conversation, converse

MODELS = ["openai/gpt-4o", *(f"some/model-{n}" for n in range(MAX_LISTED + 2))]
INTERRUPT = "^C"


def said(lines: list[str], answers: list[str]) -> tuple[list[Any], list[str]]:
    """Type `lines`; return what was asked and what was said."""
    typed, answered = iter(lines), iter(answers)
    asked: list[Any] = []
    told: list[str] = []

    def read(_prompt: str) -> str:
        line = next(typed, None)
        if line is None:
            raise EOFError
        if line == INTERRUPT:
            raise KeyboardInterrupt
        return line

    def ask(body: dict[str, Any]) -> str:
        asked.append(body)
        return next(answered)

    converse(Conversation(), read, ask, told.append, lambda: MODELS)
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


def test_the_servers_models_are_listed() -> None:
    """Those with the word in them, a page of them at most."""
    _, told = said(["/models GPT", "/models", "/models none-such"], [])
    assert told[1] == "openai/gpt-4o"
    assert told[2].splitlines()[0] == "openai/gpt-4o"
    assert told[2].splitlines()[-1] == "and 3 more: /models WORD"
    assert told[3] == "the server names no such model"


def test_ctrl_c_takes_a_line_back_and_twice_ends() -> None:
    """What is typed after the first counts; the second in a row ends."""
    asked, told = said([INTERRUPT, "hi", INTERRUPT, INTERRUPT, "never"], ["hello"])
    assert [body["messages"][-1]["content"] for body in asked] == ["hi"]
    assert told.count("Ctrl-C once more, or Ctrl-D, ends") == 2


def test_a_line_that_is_not_utf8_is_left_out_and_said() -> None:
    """A terminal of another encoding sends bytes that no server can be sent."""
    asked, told = said(["caf\udce9", "hi"], ["hello"])
    assert [body["messages"][-1]["content"] for body in asked] == ["hi"]
    assert "expected a line in UTF-8" in told[1]
