"""What upstream has said, as far as the end of the stream depends on it; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trio_ai_stream.stream.estimate import text_size
from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.wire.events import (
    Answer,
    Choice,
    Done,
    Failure,
    Finish,
    Identity,
    Item,
    Malformed,
    Progress,
    Raw,
    Reasoning,
    Stopped,
    ToolCallPiece,
    Usage,
)
from trio_ai_stream.wire.record import Outcome

_OUTPUT: Final = (str, Reasoning, ToolCallPiece, Progress, Choice)

# Choices by their index. Most streams have the one, and share these.
_FIRST: Final = frozenset({0})
_NONE: Final[frozenset[int]] = frozenset()


@dataclass(slots=True, eq=False)
class Transcript:
    """Reads the items of one stream and knows where it stands.

    `begun`: some output of the model has come, of whatever kind. `whole`: each choice
    that was asked for has its finish reason. `complete`: upstream has said that the
    answer is over, or the body ended once it was whole. `choices` is how many answers
    were asked for at a time.
    """

    answer: Answer
    choices: int = 1
    begun: bool = False
    whole: bool = False
    complete: bool = False
    failure: Failure | None = None
    _open: frozenset[int] = _FIRST  # were heard of, and have no finish reason
    _finished: frozenset[int] = _NONE

    def note(self, items: Sequence[Item]) -> int | None:
        """Take note of a block; return how much of it comes before it fails."""
        texts: list[str] = []
        found = texts.append  # this loop sees every event; texts are measured at once
        failed_at = None
        for index, item in enumerate(items):
            if type(item) is str:
                found(item)
            elif type(item) is not Raw:
                if not self.begun and any(texts):
                    self.begun = True
                if self._note_rare(item):
                    told = self.failure is not None and self.failure.told
                    failed_at = index + told
                    break
        if texts:
            text = "".join(texts)
            self.begun = self.begun or bool(text)
            size = len(text) if text.isascii() else text_size(text)
            self.answer.text_size += size
            self.answer.texts += len(texts)
        return failed_at

    def _note_rare(self, item: Item) -> bool:
        match item:
            case Reasoning(text=text):
                self.begun = True
                self.answer.reasoning_size += text_size(text)
                self.answer.texts += 1
            case Progress() | ToolCallPiece():
                self.begun = True
                self.answer.pieces += 1
            case Choice(index=index):
                if not self.begun:
                    self._open -= _FIRST  # it has said nothing: there may be none
                self.begun = True
                if index not in self._finished:
                    self._open |= {index}
                self._settle()
            case Finish(reason=reason, index=index):
                known = self.answer.finish_reason
                self.answer.finish_reason = reason or known or "stop"
                self._finished |= {index}
                self._open -= {index}
                self._settle()
            case Stopped(reason=reason):
                self.answer.finish_reason = reason
            case Usage(data=data, final=final):
                self.answer.usage_final = final
                before = self.answer.usage or {}
                # What is null is not known now, and may have been said before.
                news = {k: v for k, v in data.items() if v is not None}
                self.answer.usage = {**data, **before, **news}
            case Identity(id=name, provider=provider):
                self.answer.generation_id = self.answer.generation_id or name
                self.answer.provider = provider
            case Done(ends=False):
                self.complete = self.whole
                return not self.complete
            case Done():
                self.complete = self.begun or self.answer.finish_reason is not None
                return not self.complete  # else upstream has left its error out
            case Malformed() if self.whole:
                self.complete = True
            case Failure():
                self.failure = item
                return True
            case _:
                pass
        return False

    def _settle(self) -> None:
        self.whole = not self._open and len(self._finished) >= self.choices

    def fail(self) -> None:
        """Raise what the failing item means."""
        if self.failure is None:
            detail = "[DONE] before the end of the answer"
            raise EndStream(Outcome.UPSTREAM_FAILED, detail=detail)
        outcome = Outcome.UPSTREAM_FAILED
        if not self.begun and type(self.failure) is Failure:
            self.answer.asked = False  # refused, under 200: it costs nothing
            if not self.answer.usage:
                outcome = Outcome.UPSTREAM_REJECTED
        raise EndStream(
            outcome,
            problem=self.failure.problem,
            detail=self.failure.detail,
        )

    def end(self) -> None:
        """Take note of the end of the body.

        :raises EndStream: when it came before a finish reason and `[DONE]`: truncated.
        """
        if self._open:
            detail = "body ended with neither finish_reason nor [DONE]"
            raise EndStream(Outcome.UPSTREAM_FAILED, detail=detail)
        self.complete = True


def holds_output(items: Sequence[Item]) -> bool:
    """Tell whether some output of the model is among `items`."""
    return any(isinstance(item, _OUTPUT) for item in items)
