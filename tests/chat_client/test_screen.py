"""What the terminal client shows."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.support.odd import altered, encoded
from trio_ai_stream.chat_client.completion_chunk import (
    decode_object,
    read_error,
    read_usage,
)
from trio_ai_stream.chat_client.screen import Screen


class Terminal(io.StringIO):
    """A text file that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def chunk(**delta: Any) -> dict[str, Any]:
    """A chunk of a completion."""
    return {"choices": [{"delta": delta}]}


HOSTILE = "a\x1b]0;taken\x07b\x9bm\tc\n\x7f"


def test_a_model_cannot_steer_the_terminal() -> None:
    """On a terminal control characters, but for tab and newline, are replaced."""
    out = Terminal()
    Screen(out, io.StringIO()).event(chunk(content=HOSTILE))
    assert out.getvalue() == "a\ufffd]0;taken\ufffdb\ufffdm\tc\n\ufffd"


def test_a_pipe_gets_every_character() -> None:
    """Into a file or a pipe the answer goes unchanged."""
    out = io.StringIO()
    Screen(out, io.StringIO()).event(chunk(content=HOSTILE))
    assert out.getvalue() == HOSTILE


@pytest.mark.parametrize(("content", "ends"), [("a", "a\n"), ("a\n", "a\n"), ("", "")])
def test_the_answer_ends_with_its_line(content: str, ends: str) -> None:
    """A newline is added only where one is missing, and the ending goes to stderr."""
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(out, err)
    screen.event(chunk(content=content))
    screen.end("completed\x1b[2J")
    assert out.getvalue() == ends
    assert err.getvalue() == "[completed\ufffd[2J]\n"


def test_raw_events_are_lines_of_json() -> None:
    """With `raw` every event is there, content or not."""
    out = Terminal()
    screen = Screen(out, io.StringIO(), raw=True)
    events = [{"usage": {}}, chunk(content="a\n\x1b\x9b2J\x7f\ud83dé")]
    for event in events:
        screen.event(event)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == events
    assert not {"\x1b", "\x9b", "\x7f", "\ud83d"} & set(out.getvalue())
    assert "é" in out.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_raw_events_are_whole_in_any_encoding(encoding: str) -> None:
    """What stdout cannot write is escaped, as JSON can."""
    file = io.BytesIO()
    out = io.TextIOWrapper(file, encoding, errors="replace")
    Screen(out, io.StringIO(), raw=True).event(chunk(content="\ud83dé€"))
    assert json.loads(file.getvalue()) == chunk(content="\ud83dé€")


def test_half_a_character_is_replaced() -> None:
    """A pipe cannot be given it either, and it is sent back with the next question."""
    out = io.StringIO()
    screen = Screen(out, io.StringIO())
    screen.event(chunk(content="a\ud83d"))
    assert out.getvalue() == screen.text == "a\ufffd"


def test_what_is_said_in_between_has_a_line_of_its_own_on_a_terminal() -> None:
    """In a pipe the answer stays as it is."""
    for out, shown in ((Terminal(), "a\nb"), (io.StringIO(), "ab")):
        screen = Screen(out, io.StringIO())
        screen.event(chunk(content="a"))
        screen.note("connection lost")
        screen.event(chunk(content="b"))
        assert out.getvalue() == shown


REASONING = chunk(reasoning="Hm,\x1b[2J")


def test_reasoning_is_dimmed_on_a_terminal_and_no_part_of_the_answer() -> None:
    """Under both of its names; in a pipe there is the answer alone."""
    out, piped = Terminal(), io.StringIO()
    for file in (out, piped):
        screen = Screen(file, io.StringIO())
        screen.event(REASONING)
        screen.event(chunk(reasoning_content=" yes."))
        screen.event(chunk(content="It is."))
        assert screen.text == "It is."
    assert out.getvalue() == "\x1b[2mHm,\ufffd[2J yes.\x1b[22m\n\nIt is."
    assert piped.getvalue() == "It is."


def test_a_tool_call_is_named_once_it_is_whole() -> None:
    """Its pieces are put together; whatever else stands there is left out."""
    err = io.StringIO()
    screen = Screen(io.StringIO(), err)
    first = {"index": 0, "function": {"name": "get_weather", "arguments": '{"city":'}}
    odd: list[Any] = [None, {"index": "x"}, {"function": []}]
    screen.event(chunk(tool_calls=[first, *odd]))
    screen.event(chunk(tool_calls=[{"index": 0, "function": {"arguments": '"Oslo"}'}}]))
    assert err.getvalue() == ""
    screen.event({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    screen.end("completed")
    assert err.getvalue().count('get_weather({"city":"Oslo"})]') == 1


@pytest.mark.parametrize("choices", [None, 1, [], [None], [{"delta": []}], [{}]])
def test_a_chunk_that_says_nothing_shows_nothing(choices: object) -> None:
    """Other servers leave out what they like."""
    out = io.StringIO()
    Screen(out, io.StringIO()).event({"choices": choices})
    assert out.getvalue() == ""


def test_no_chunk_is_too_odd_to_show() -> None:
    """Whatever stands where, what can be shown is, and nothing is raised."""
    call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
    delta = {"content": "a", "reasoning": "hm", "tool_calls": [call]}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.1}
    error = {"code": 502, "message": "x", "metadata": {"error_type": "y"}}
    choice = {"delta": delta, "finish_reason": "stop"}
    for odd in altered({"choices": [choice], "usage": usage, "error": error}):
        if isinstance(odd, dict):
            chunk = decode_object(encoded(odd))
            out = io.StringIO()
            screen = Screen(out, io.StringIO())
            screen.event(chunk)
            screen.end(" ".join([*read_error(chunk), read_usage(chunk)]))
            out.getvalue().encode()
