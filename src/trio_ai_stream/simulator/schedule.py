"""The schedule of one answer: from a request and its faults to steps.

There are four kinds: a stream, one whole JSON body, an error before the stream, and no
answer at all. Pure, and lazy: an endless stream is an endless iterator. With `stamp`
the clock is the `now_ns` given, read when the step is asked for, which is when it is
about to be sent.

The connection plays the steps, one at a time. Pauses add up from the moment the request
was complete, so a late write does not make the next one later.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
import random
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from trio_ai_stream.simulator.block_encoding import (
    BlockEncoder,
    SimulatedMessageEncoder,
    SimulatedResponseEncoder,
    anthropic_error_json,
)
from trio_ai_stream.simulator.encoding import (
    PIECE,
    Encoder,
    error_body,
    error_json,
    error_object,
)
from trio_ai_stream.simulator.faults import Faults
from trio_ai_stream.simulator.simulated_answer import SimulatedAnswer, compose
from trio_ai_stream.simulator.simulated_chat import SimulatedChat
from trio_ai_stream.simulator.text import seed_of


class ResponsePhase(enum.StrEnum):
    """How far a response has got; a record's timestamps are named after them."""

    RECEIVING = "receiving"  # the request's head is in, its body is not
    AWAITING_HEADERS = "awaiting_headers"
    AWAITING_FIRST_TOKEN = "awaiting_first_token"  # noqa: S105  not a password
    STREAMING = "streaming"
    FINISHING = "finishing"  # finish_reason is sent, the body has not ended
    ENDED = "ended"


class Pause(NamedTuple):
    """Wait so many seconds; `math.inf` waits until the client leaves."""

    seconds: float


class SimulatedHead(NamedTuple):
    """Send a response head; without a length the body is chunked or ends by close."""

    status: int
    headers: tuple[tuple[str, str], ...]
    length: int | None = None
    interim: bool = False


class Write(NamedTuple):
    """Send bytes of the body; `phase` is entered as their sending begins.

    The `last` write carries the end of a chunked body, so that a client which leaves
    on its data has had the whole response.
    """

    data: bytes
    events: int = 0
    tokens: int = 0
    phase: ResponsePhase | None = None
    last: bool = False


class End(enum.Enum):
    """How the connection leaves the response; a schedule without one ends as BODY."""

    BODY = "body"  # the body is complete
    FIN = "fin"  # close in mid-body
    RST = "rst"  # reset in mid-body


Step = Pause | SimulatedHead | Write | End


ENCODERS: dict[str, type[BlockEncoder]] = {
    "messages": SimulatedMessageEncoder,
    "responses": SimulatedResponseEncoder,
}
BLOCK = 128  # content events in one write when there is no delay: about 32 kB
TRAILING = b'data: {"after":"done"}\n\n: bye\n\nnot a field at all'


class Generation(NamedTuple):
    """What identifies one answer: OpenRouter's generation id and creation time."""

    id: str
    created: int


def encoder_of(chat: SimulatedChat, generation: Generation) -> Encoder:
    """Return what writes the answer to a request."""
    return ENCODERS.get(chat.dialect, Encoder)(
        generation_id=generation.id,
        model=chat.model,
        created=generation.created,
        provider=chat.faults.provider,
        eol=chat.faults.eol,
        space=chat.faults.space,
        repeated=chat.repeated,
    )


class StreamSchedule:
    """One streamed answer in the making: the parts that its steps share."""

    def __init__(
        self, chat: SimulatedChat, generation: Generation, now_ns: Callable[[], int]
    ) -> None:
        self.chat = chat
        self.faults = chat.faults
        self.answer = compose(chat)
        self.generation = generation
        self.now_ns = now_ns
        self.encoder = encoder_of(chat, generation)
        self._jitter = random.Random(seed_of(chat.prompt, chat.seed))  # noqa: S311
        self._content = 0  # content events so far
        self._tokens = 0  # tokens so far, reasoning and tool fragments included
        self._frames = self._special()
        self._words = iter(self.answer.words)

    def steps(self) -> Iterator[Step]:
        """Yield all steps; fragments are cut last, so they cut anything."""
        yield Pause(self.faults.headers_ms / 1000)
        headers = stream_headers(self.faults, self.generation.id)
        yield SimulatedHead(200, headers, None, self.faults.interim)
        body = self._body()
        yield from fragmented(body, self.faults) if self.faults.fragment else body

    def _body(self) -> Iterator[Step]:
        yield from self._prelude()
        yield from self._reasoning()
        limit = self.faults.at if self._faulty() else None
        yield from self._events(limit)
        if self.faults.corrupt != "none":
            yield Pause(self._delay())
            bad = self.encoder.corrupt(self.faults.corrupt, self.faults.size)
            self._tokens += 1
            yield Write(bad, 1, 1, ResponsePhase.STREAMING)
            yield from self._events(None)
        yield from self._ending()

    def _faulty(self) -> bool:
        return self.faults.corrupt != "none" or self.faults.end not in ("ok", "no_done")

    def _prelude(self) -> Iterator[Step]:
        """Comments, the first events, and the wait for the first token."""
        yield from self._comments(self.faults.opening_ms / 1000)
        if self.chat.debug:
            yield Write(self.encoder.debug({"model": self.chat.model}), 1)
        if begun := self.encoder.begin(self.answer.prompt_tokens):
            yield Write(begun, begun.count(b"data:"))
        yield from self._comments(self.faults.comments_ms / 1000)
        yield Pause(self.faults.first_token_ms / 1000)

    def _comments(self, seconds: float) -> Iterator[Step]:
        every = max(self.faults.comment_every_ms, 1) / 1000
        while seconds > 0:
            yield Write(self.encoder.comment())
            yield Pause(min(every, seconds))
            seconds -= every

    def _reasoning(self) -> Iterator[Step]:
        for token in self.answer.reasoning:
            yield from self._single(self.encoder.reasoning(token))

    def _single(self, frame: bytes) -> Iterator[Step]:
        """One event that is not plain content; the first one waits for nobody."""
        if self._tokens:
            yield Pause(self._delay())
        self._tokens += 1
        yield Write(frame, 1, 1, ResponsePhase.STREAMING)

    def _special(self) -> Iterator[bytes]:
        """The events of an answer that is not words: a refusal, tool calls."""
        if self.answer.refusal is not None:
            yield self.encoder.refusal(self.answer.refusal)
        for word in self.answer.preface:
            yield self.encoder.content([word])
        for index, call in enumerate(self.answer.tool_calls):
            yield from self.encoder.tool_call(index, call)

    def _events(self, limit: int | None) -> Iterator[Step]:
        """Content events up to the limit, counted from the answer's first one."""
        while limit is None or self._content < limit:
            frame = next(self._frames, None)
            if frame is None:
                yield from self._blocks(limit)
                return
            self._content += 1
            yield from self._single(frame)

    def _blocks(self, limit: int | None) -> Iterator[Step]:
        burst = self.faults.burst or (1 if self._paced() else BLOCK)
        while limit is None or self._content < limit:
            size = burst if limit is None else min(burst, limit - self._content)
            tokens = list(itertools.islice(self._words, size))
            if not tokens:
                return
            if self._tokens:
                yield Pause(self._delay())
            if self.faults.stamp:
                tokens = [f"{self.now_ns()} "] * len(tokens)
            self._content += len(tokens)
            self._tokens += len(tokens)
            block = self.encoder.content(tokens)
            yield Write(block, len(tokens), len(tokens), ResponsePhase.STREAMING)

    def _paced(self) -> bool:
        return self.faults.delay_ms > 0 or self.faults.jitter_ms > 0

    def _delay(self) -> float:
        jitter = self.faults.jitter_ms
        extra = self._jitter.uniform(0, jitter) if jitter else 0.0
        return (self.faults.delay_ms + extra) / 1000

    def _ending(self) -> Iterator[Step]:
        kind = self.faults.end
        if kind in ("ok", "no_done"):
            yield from self._finish(done=kind == "ok")
        elif kind == "error":
            yield Pause(self._delay())
            error = error_object(self.faults.code, self.faults.message)
            tail = self.encoder.done() if self.faults.error_done else b""
            frame = self.encoder.error(error, self.faults.shape)
            yield Write(frame + tail, 1 + bool(tail), 0, ResponsePhase.FINISHING)
        elif kind == "silence":
            yield Pause(math.inf)
        elif kind == "comments":
            yield from self._comments(math.inf)
        elif kind != "truncate":
            yield Pause(self._delay())
            yield End.FIN if kind == "drop" else End.RST

    def _finish(self, *, done: bool) -> Iterator[Step]:
        place = self.faults.usage
        usage = self.answer.usage(self._tokens)
        frames = self.encoder.ending(self.answer, usage, place, done=done)
        yield Pause(self._delay())
        block = b"".join(frames)
        if self.faults.trailing:
            block += TRAILING
        last = not self.faults.done_ms
        yield Write(block, len(frames), 0, ResponsePhase.FINISHING, last)
        yield Pause(self.faults.done_ms / 1000)


def stream_headers(faults: Faults, generation_id: str) -> tuple[tuple[str, str], ...]:
    """Return the headers of a streamed answer."""
    headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")]
    if faults.generation_header:
        headers.append(("X-Generation-Id", generation_id))
    return tuple(headers)


def fragmented(steps: Iterator[Step], faults: Faults) -> Iterator[Step]:
    """Cut every write into pieces; its events count with its last piece."""
    size = faults.fragment or 1
    gap = Pause(faults.fragment_ms / 1000)
    for step in steps:
        if not isinstance(step, Write):
            yield step
            continue
        last = max(len(step.data) - 1, 0) // size * size
        for at in range(0, last, size):
            yield Write(step.data[at : at + size])
            yield gap
        yield step._replace(data=step.data[last:])


def whole_script(chat: SimulatedChat, generation: Generation) -> Iterator[Step]:
    """Yield the steps of a single JSON answer, the head included.

    It takes as long as the stream would, so that a client which leaves meanwhile can be
    measured too. A connection that closes leaves half a body.
    """
    faults = chat.faults
    answer = compose(chat)
    waits_ms = faults.headers_ms, faults.opening_ms, faults.comments_ms
    yield Pause((sum(waits_ms) + faults.first_token_ms) / 1000)
    if answer.count is None or faults.end in ("silence", "comments"):
        yield Pause(math.inf)
    yield Pause(faults.delay_ms * (answer.count or 0) / 1000)
    tokens = len(answer.reasoning) + (answer.count or 0)
    body = _damaged(whole_body(chat, answer, generation, tokens), faults)
    headers = [("Content-Type", "application/json")]
    if faults.generation_header:
        headers.append(("X-Generation-Id", generation.id))
    chunked = faults.framing == "close" or faults.end == "truncate"
    length = None if chunked else len(body)
    yield SimulatedHead(200, tuple(headers), length, faults.interim)
    if faults.end in ("drop", "reset", "truncate"):
        yield Write(body[: len(body) // 2], 0, tokens, ResponsePhase.STREAMING)
        if faults.end != "truncate":
            yield End.FIN if faults.end == "drop" else End.RST
        return
    yield Write(body, 0, tokens, ResponsePhase.FINISHING)
    yield Pause(faults.done_ms / 1000)


def whole_body(
    chat: SimulatedChat, answer: SimulatedAnswer, generation: Generation, tokens: int
) -> bytes:
    """Return the JSON of a single answer, or of the error in its place."""
    faults = chat.faults
    if faults.corrupt == "giant":
        answer = dataclasses.replace(answer, words=("x" * faults.size,), count=1)
    error = None
    if faults.end == "error":
        error = error_object(faults.code, faults.message)
    encoder = encoder_of(chat, generation)
    return encoder.document(answer, answer.usage(tokens), error, faults.shape)


# Where the text of a whole answer begins: a message's, or one in a part of it.
_TEXT: Final = re.compile(rb'"(?:content|text)":"')


def _damaged(body: bytes, faults: Faults) -> bytes:
    if faults.corrupt == "json":
        return body[:-20]
    if faults.corrupt == "utf8":
        return _TEXT.sub(b"\\g<0>\xc3(", body, 1)
    return body


JSON = ("Content-Type", "application/json")
ENDLESS_GAP_S = 0.01  # between the pieces of a body without end: 400 kB a second


def refuse_script(faults: Faults) -> Iterator[Step]:
    """Yield the steps of a connection that ends instead of answering."""
    yield Pause(faults.headers_ms / 1000)
    yield End.FIN if faults.refuse == "drop" else End.RST


def status_script(faults: Faults, dialect: str = "chat") -> Iterator[Step]:
    """Yield the steps of the answer that `faults.status` asks for."""
    status = faults.status or 500
    kind, body = error_body(faults)
    if dialect == "messages" and faults.body == "json":
        body = anthropic_error_json(faults.code if status == 200 else status)
    headers = [("Content-Type", kind)]
    if faults.retry_after is not None:
        headers.append(("Retry-After", faults.retry_after))
    if status == 429:
        headers += [
            ("X-RateLimit-Limit", "20"),
            ("X-RateLimit-Remaining", "0"),
            ("X-RateLimit-Reset", "1767225660000"),
        ]
    yield Pause(faults.headers_ms / 1000)
    if faults.body == "endless":
        yield SimulatedHead(status, tuple(headers), None, faults.interim)
        yield Write(body, 0, 0, ResponsePhase.FINISHING)
        for _ in itertools.count():
            yield Pause(ENDLESS_GAP_S)
            yield Write(PIECE)
    if faults.body == "cut":  # the length promises more than the body holds
        yield SimulatedHead(status, tuple(headers), len(body) + 100, faults.interim)
        yield Write(body, 0, 0, ResponsePhase.FINISHING)
        yield End.FIN
        return
    length = None if faults.framing == "close" else len(body)
    yield SimulatedHead(status, tuple(headers), length, faults.interim)
    yield Write(body, 0, 0, ResponsePhase.FINISHING)


def error_bodies(dialect: str) -> Callable[[int | str, str | None], bytes]:
    """Return what makes the JSON body of an error."""
    return anthropic_error_json if dialect == "messages" else error_json


def plain_error(
    status: int, message: str | None = None, dialect: str = "chat"
) -> Iterator[Step]:
    """Yield the steps of OpenRouter's JSON error, at once."""
    body = error_bodies(dialect)(status, message)
    yield SimulatedHead(status, (JSON,), len(body))
    yield Write(body, 0, 0, ResponsePhase.FINISHING)
