"""What an upstream answer is made of: the vocabulary between decoder and encoders.

A plain `str` is a piece of content. That is the one item which comes ten thousand times
a second, so it is the one which costs no object of ours. The other two that come often
are structs of msgspec's: making one costs a fifth of a frozen dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from trio_ai_stream.wire.problems import Problem


class Reasoning(Struct, frozen=True, gc=False):
    """A piece of the model's reasoning."""

    text: str


class ToolCallPiece(Struct, frozen=True, gc=False):
    """A piece of the tool call with this index; the first piece has its id and name."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """The model works, but not at text: audio, an image, an annotation.

    A tool call is one as well, unless its pieces are told as `ToolCallPiece`.
    """


@dataclass(frozen=True, slots=True)
class Choice:
    """What follows is of the choice with this index; the first one is not announced."""

    index: int


@dataclass(frozen=True, slots=True)
class Finish:
    """One choice is whole: `stop`, `length`, `tool_calls`, `content_filter`.

    Without a reason: that of the `Stopped` before it.
    """

    reason: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why the model stopped, before the answer is whole."""

    reason: str


@dataclass(frozen=True, slots=True)
class Identity:
    """The id that upstream's chunks have, and who answers; once, if asked for."""

    id: str
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts and cost as upstream reports them; later ones overrule.

    `final`: they are the whole bill, although the answer has no end.
    """

    data: dict[str, Any]
    final: bool = False


@dataclass(frozen=True, slots=True)
class Comment:
    """An SSE comment: proof that upstream is alive, and nothing else."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error inside the stream (`error` in a chunk), under status 200.

    `detail` is for the log: upstream's code and type, never its text. `told`: its event
    is passed on with it, and is the last one.
    """

    problem: Problem
    detail: str
    told: bool = False


@dataclass(frozen=True, slots=True)
class Malformed(Failure):
    """Upstream sent what is no chat stream: nothing after it can be read."""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing follows: `[DONE]`, or the last event of an API that has one of its own.

    `ends` is false where the answer has an end of its own.
    """

    ends: bool = True


class Raw(Struct, frozen=True, gc=False):
    """One event's payload, byte for byte, for encoders that pass it through."""

    payload: bytes


Item = (
    str
    | Reasoning
    | ToolCallPiece
    | Progress
    | Choice
    | Finish
    | Stopped
    | Identity
    | Usage
    | Comment
    | Failure
    | Done
    | Raw
)


@dataclass(slots=True, eq=False)
class Answer:
    """What upstream has said so far, as far as its end is concerned.

    `asked`: upstream may have the request, and has not refused it. `opened`: it has
    answered 200. An estimate is made of how much text there was, in how many events
    (`texts`), and of how many `pieces` that are no text.
    """

    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    usage_final: bool = False
    generation_id: str | None = None
    asked: bool = False
    opened: bool = False
    provider: str | None = None
    text_size: int = 0
    reasoning_size: int = 0
    texts: int = 0
    pieces: int = 0
