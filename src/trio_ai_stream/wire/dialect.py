"""How one API speaks, as data and pure functions: what the relay's two ends ask for.

The relay itself knows no API. What reads upstream's bytes and what writes the client's
ask a `Dialect`; there is one for each endpoint, in `dialects/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from trio_ai_stream.wire.events import Answer, Item
from trio_ai_stream.wire.problems import Problem

HEARTBEAT: Final = b": heartbeat\n\n"
"""A comment: a sign of life that no client takes for an event."""
CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """One checked request; `body` is the JSON for upstream.

    `choices` is how many answers are asked for at a time. `reasoning`, `tool_calls`:
    the client wants to see them, where that is asked of us and not of upstream.
    `event_heartbeats`: its signs of life are events, not comments. `prompt_chars`
    counts the prompt's characters; `user` is whom the caller serves, by its own word.
    """

    model: str
    stream: bool
    body: bytes
    choices: int = 1
    reasoning: bool = False
    tool_calls: bool = False
    event_heartbeats: bool = False
    prompt_chars: int = 0
    user: str | None = None


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What the settings say of requests; lengths are in characters."""

    default_model: str
    max_prompt_length: int
    max_messages_length: int
    event_heartbeats: bool = False


class ErrorResponse(NamedTuple):
    """A refusal: status, header fields and JSON body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class EventEncoder(Protocol):
    """Writes one stream's events; made for each stream."""

    @property
    def opening(self) -> bytes:
        """What is written before upstream answers; nothing if the status waits."""

    @property
    def held(self) -> tuple[int, int]:
        """What of the answer `ending` returns: (events, bytes)."""

    def content(self, items: Sequence[Item]) -> tuple[bytes, int]:
        """Return the frames of a block, joined, and their number."""

    def heartbeat(self) -> bytes:
        """Return a sign of life."""

    def ending(self, problem: Problem | None, answer: Answer) -> bytes:
        """Return the terminal event: the answer is whole, or there is a problem."""

    def error(self, problem: Problem, answer: Answer) -> bytes:
        """Return the event that ends a connection, whatever its stream has written."""


ReadEvents = Callable[[Iterator[bytes], list[Item], bool], bytes | None]
"""Appends what payloads say; with True each as `Raw` before it.

Returns the first payload that is no JSON, with those after it still to come; None if
there is none.
"""
ReadDocument = Callable[[bytes], list[Item]]
"""Returns what a whole answer says, its bytes first as `Raw`; or its error, last.

ValueError or RecursionError if it is neither.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One API, from its request to its last event.

    `path` is ours, `upstream_path` stands below upstream's base URL. With `raw` the
    client gets upstream's payloads as they came; with `whole_events` these are events
    with all their fields, not only the data. `forwarded` are the names of the request's
    header fields that go on to upstream, in lower case. `as_stream` returns a whole
    answer as the payloads of a stream, where a stream was asked for; it is asked with
    `raw` only. `encoder` takes the request, its id, and the name of what answers.
    """

    path: str
    upstream_path: str
    raw: bool
    whole_events: bool = False
    forwarded: frozenset[bytes] = frozenset()
    parse: Callable[[bytes, RequestLimits], ParsedRequest]
    read_events: ReadEvents
    read_document: ReadDocument
    as_stream: Callable[[dict[str, Any]], list[bytes]]
    encoder: Callable[[ParsedRequest, str, str], EventEncoder]
    error: Callable[[Problem, str], ErrorResponse]
    """Takes the problem and the request's id."""
