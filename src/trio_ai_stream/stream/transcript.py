"""What upstream has said, as far as the end of the stream depends on it; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trio_ai_stream.stream.outcome import EndStream, Outcome
from trio_ai_stream.wire.events import (
    Done,
    Failure,
    Finish,
    Item,
    Raw,
    Reasoning,
    ToolCall,
    Usage,
)


class Answer:
    """What upstream has said so far, as far as its end is concerned."""

    __slots__ = ("finish_reason", "generation_id", "usage")

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.generation_id: str | None = None


class Transcript:
    """Reads the items of one stream and knows where it stands.

    `begun`: some content, reasoning or tool call has come. `complete`: `[DONE]` has
    come, or the body ended after a finish reason.
    """

    __slots__ = ("answer", "begun", "complete", "failure")

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.begun = False
        self.complete = False
        self.failure: Failure | None = None

    def note(self, items: Sequence[Item]) -> int | None:
        """Take note of a block; return the index from which it fails."""
        for index, item in enumerate(items):
            kind = type(item)
            if kind is str:
                self.begun = True
            elif kind is not Raw and self._note_rare(item):
                raw_too = index and type(items[index - 1]) is Raw
                return index - 1 if raw_too else index
        return None

    def _note_rare(self, item: Item) -> bool:
        match item:
            case Reasoning() | ToolCall():
                self.begun = True
            case Finish(reason="error"):
                self.failure = None
                return True
            case Finish(reason=reason):
                self.answer.finish_reason = reason
            case Usage(data=data):
                self.answer.usage = data
            case Done():
                self.complete = True
            case Failure():
                self.failure = item
                return True
            case _:
                pass
        return False

    def fail(self) -> None:
        """Raise what the failing item means."""
        if self.failure is None:
            raise EndStream(Outcome.UPSTREAM_FAILED, detail="finish_reason is error")
        raise EndStream(
            Outcome.UPSTREAM_FAILED,
            problem=self.failure.problem,
            detail=self.failure.detail,
        )

    def end(self) -> None:
        """Take note of the end of the body.

        :raises EndStream: when it came before a finish reason and `[DONE]`: truncated.
        """
        if self.answer.finish_reason is None:
            detail = "body ended with neither finish_reason nor [DONE]"
            raise EndStream(Outcome.UPSTREAM_FAILED, detail=detail)
        self.complete = True
