"""One request and its answer, with a way to cancel it from another task."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx
import msgspec
import trio

from trio_ai_stream.chat_client.completion_chunk import (
    decode_object,
    read_delta,
    read_error,
    read_usage,
)
from trio_ai_stream.upstream.transport.transport_errors import describe

if TYPE_CHECKING:
    from trio_ai_stream.upstream.bodies import ResponseBody

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"
_WHICH_URL: Final = "does the URL lead to a server with OpenAI's API?"


def _may_pass(status: int) -> bool:
    """Whether a stream may be behind this: a proxy that waits for its server."""
    return status >= 500 or status == 429


class NotAStreamError(ValueError):
    """The server sent what are no completion chunks; says what was expected."""


class EventReader:
    """Reads one response's events; `feed` it in any cuts.

    `begun` says whether there has been anything of an event, `done` whether the end of
    the stream, `[DONE]`, has come.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []  # the pieces of an unfinished line
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._id = b""
        self._bom = _BOM  # may stand before the first line
        self.last_id = b""  # of the last whole event
        self.begun = False
        self.done = False

    def feed(self, block: bytes) -> list[dict[str, Any]]:
        """Return the events that `block` completes.

        :raises NotAStreamError: an event is no JSON object, or longer than 4 MiB.
        """
        if self._after_cr:  # the CR has ended its line; this is the rest of a CRLF
            block = block.removeprefix(b"\n")
        self._after_cr = block.endswith(b"\r") or (self._after_cr and not block)
        head, *rest = _LINE_END.split(block)
        self._line.append(head)
        self._size += len(block)
        events = []
        for piece in rest:
            event = self._end_line(b"".join(self._line))
            self._line = [piece]
            if event is not None:
                events.append(event)
                self._size = len(block)
        if self._size > MAX_EVENT_BYTES:
            raise NotAStreamError("expected events of at most 4 MiB, got a longer one")
        return events

    def end(self) -> list[dict[str, Any]]:
        """Return the last event, if only the empty line behind it has not come."""
        try:
            return self.feed(b"\n\n")
        except NotAStreamError:  # it was cut
            return []

    def _end_line(self, line: bytes) -> dict[str, Any] | None:
        line, self._bom = line.removeprefix(self._bom), b""
        if line.startswith(b"data:"):
            self.begun = True
            self._data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"id:") and line[3:].strip().isdigit():  # as ours are
            self._id = line[3:].strip()
        if line or not self._data:
            return None
        payload, self._data = b"\n".join(self._data), []
        if payload.strip() == b"[DONE]":
            self.done = True
            return None
        try:
            event = decode_object(payload)
        except ValueError as exc:
            raise NotAStreamError(
                f"expected events of JSON objects, got something else; {_WHICH_URL}"
            ) from exc
        self.last_id = self._id
        return event


# The answer to a cancel, and then the stream's last event, are milliseconds away.
CANCEL_S: Final = 2.0
MAX_ERROR_BYTES: Final = 65536
# How long the stream may wait for this client after a lost connection, and how long it
# pauses before it tries again to reach a server that it cannot connect to.
GRACE_S: Final = 15.0
PAUSE_S: Final = 0.25


class ExitCode(IntEnum):
    """What the program's end says; 2, for bad usage, is argparse's own."""

    DONE = 0
    FAILED = 1
    CANCELLED = 130  # as a shell reports SIGINT


@dataclass
class ChatEnding:
    """How the exchange ended; `line` is for a person."""

    code: ExitCode
    line: str


class ChatExchange:
    """One `POST /v1/chat/completions`; `run` it once.

    Any server with OpenAI's API will do. One of this kind says so by its answer to
    `X-Stream-Grace`: then a cancel is told to it, which says what it did, and after a
    lost connection the exchange comes back to its stream.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        show: Callable[[dict[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        """Take what shows a chunk, and what says a line to a person meanwhile."""
        self._client = client
        self._show = show
        self._say = say
        self._began_at = trio.current_time()
        self._reading = trio.CancelScope()
        self._request_id: str | None = None
        self._way_back: str | None = None
        self._last_id = b""
        self._names_model = True
        self._cancelled = False
        self._receipt: dict[str, Any] | None = None
        self._answered = trio.Event()
        self._events = 0
        self._finish = ""
        self._usage = ""

    async def run(self, body: dict[str, Any]) -> ChatEnding:
        """Send `body`, show every chunk, return how it ended.

        *Cancellation:* closes the connection at once, which ends the stream upstream.
        """
        self._names_model = "model" in body
        ending: ChatEnding | None = None
        try:
            with self._reading:
                ending = await self._converse(body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            url, got = self._client.base_url, describe(exc)
            line = f"connection: expected a server at {url}, got: {got}"
            ending = ChatEnding(ExitCode.FAILED, line)
        except (httpx.HTTPError, NotAStreamError) as exc:
            ending = self._failed("connection", describe(exc))
        except OSError as exc:  # of `show`
            with trio.move_on_after(CANCEL_S):  # it would wait for this client
                await self._delete()
            line = f"cannot write the answer: {exc.strerror}"
            if isinstance(exc, BrokenPipeError):
                line = "nobody reads the answer any more"
            return ChatEnding(ExitCode.FAILED, line)
        if ending is None and not self._cancelled:
            return self._failed("connection", "it ended without a last event")
        if ending is not None and (ending.code is ExitCode.DONE or not self._cancelled):
            return ending
        with trio.move_on_after(CANCEL_S):
            await self._answered.wait()
        return ChatEnding(ExitCode.CANCELLED, self._cancel_line())

    async def cancel(self) -> None:
        """Cancel by id, so that the server can say what it did; else hang up."""
        self._cancelled = True
        with trio.move_on_after(CANCEL_S):
            self._receipt = await self._delete()
        self._answered.set()
        if self._receipt is None:
            self.hang_up()
        else:
            self._reading.deadline = trio.current_time() + CANCEL_S

    def hang_up(self) -> None:
        """Close the connection now."""
        self._cancelled = True
        self._answered.set()
        self._reading.cancel(reason="hang up")

    async def _converse(self, body: dict[str, Any]) -> ChatEnding | None:
        content = msgspec.json.encode({**body, "stream": True})
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "X-Stream-Grace": f"{GRACE_S:g}",
        }
        url = f"{api_of(self._client.base_url)}/chat/completions"
        why = "it ended without a last event"
        try:
            ending = await self._read("POST", url, headers, content)
        except httpx.TransportError as exc:
            if self._way_back is None:
                raise
            ending, why = None, describe(exc)
        until = trio.current_time() + GRACE_S
        waits = False
        while ending is None and self._way_back is not None:
            try:
                before, said = self._last_id, {"Last-Event-ID": self._last_id.decode()}
                ending = await self._read("GET", self._way_back, said)
                if self._last_id == before:  # all that is left is nothing
                    return ending
                until, waits = trio.current_time() + GRACE_S, False
            except (httpx.TransportError, httpx.HTTPStatusError):
                if trio.current_time() + PAUSE_S >= until:
                    lost = f"{why}; no way back to the stream in {GRACE_S:g} s"
                    return self._failed("connection lost", lost)
                if not waits:
                    waits = True
                    self._say(f"connection lost; trying for {GRACE_S:g} s to come back")
                await trio.sleep(PAUSE_S)
        return ending

    async def _read(
        self, method: str, url: str, headers: dict[str, str], content: bytes = b""
    ) -> ChatEnding | None:
        """Read one response; None: it ended without a last event."""
        reader = EventReader()
        async with self._client.stream(
            method, url, content=content, headers=headers
        ) as response:
            if response.status_code == 204:
                return None
            if response.status_code != 200:
                if method == "GET" and _may_pass(response.status_code):
                    response.raise_for_status()
                return await self._refused(response)
            if "x-stream-grace" in response.headers:
                self._note_kin(response.headers)
            body = _body(response)
            while block := await body.receive():
                if not reader.begun and block.removeprefix(_BOM).lstrip()[:1] == b"{":
                    return self._whole(await _rest(block, body, MAX_EVENT_BYTES))
                if ending := self._take_all(reader.feed(block), reader):
                    return ending
            if ending := self._take_all(reader.end(), reader):
                return ending
            if not reader.begun and self._way_back is None:
                got = response.headers.get("content-type") or "nothing"
                raise NotAStreamError(f"expected events, got {got}; {_WHICH_URL}")
        # Some servers say no more than why the model stopped.
        return self._done() if self._finish and self._way_back is None else None

    def _note_kin(self, headers: httpx.Headers) -> None:
        """Keep what a server of this kind says of the stream."""
        root = root_of(self._client.base_url)
        self._request_id = self._request_id or headers.get("x-request-id")
        path = headers.get("x-stream-resume", "")
        if self._way_back is None and path.startswith("/"):  # else: another host
            self._way_back = f"{root}{path}"

    def _take_all(
        self, chunks: list[dict[str, Any]], reader: EventReader
    ) -> ChatEnding | None:
        for chunk in chunks:
            self._last_id = reader.last_id
            if ending := self._take(chunk):
                return ending
        return self._done() if reader.done else None

    def _whole(self, body: bytes) -> ChatEnding:
        """Take a whole document in the place of a stream."""
        try:
            return self._take(decode_object(body)) or self._done()
        except ValueError as exc:
            message = f"expected events, or a JSON document, got neither; {_WHICH_URL}"
            raise NotAStreamError(message) from exc

    def _take(self, chunk: dict[str, Any]) -> ChatEnding | None:
        self._show(chunk)
        name, message = read_error(chunk)
        if name:
            return self._failed(name, message)
        delta = read_delta(chunk)
        self._events += bool(delta.content)
        self._finish = delta.finish_reason or self._finish
        self._usage = read_usage(chunk) or self._usage
        return None

    def _done(self) -> ChatEnding:
        reason = f"finish reason {self._finish}" if self._finish else ""
        said = ", ".join(filter(None, (self._delivered(), self._usage, reason)))
        return ChatEnding(ExitCode.DONE, f"completed: {said}")

    async def _refused(self, response: httpx.Response) -> ChatEnding:
        try:
            body = await _rest(b"", _body(response), MAX_ERROR_BYTES)
            document = decode_object(body)
        except ValueError:
            document = {}
        status = response.status_code
        name, message = read_error(document, status)
        if response.has_redirect_location:
            message = f"it is at {response.headers['location']}; give that with --url"
        message = message or "no reason was given"
        if not self._names_model and status in {400, 404, 422}:
            message += "; perhaps it wants to be told a model (--model)"
        return self._failed(name or f"refused ({status})", message)

    async def _delete(self) -> dict[str, Any] | None:
        """Cancel the stream, if the server knows how; return what it did."""
        if self._request_id is None:
            return None
        root = root_of(self._client.base_url)
        try:
            name = quote(self._request_id, safe="")
            response = await self._client.delete(f"{root}/streams/{name}")
            if response.status_code == 200:
                return decode_object(response.content)
        except (httpx.HTTPError, ValueError):
            pass
        return None

    def _failed(self, name: str, message: str) -> ChatEnding:
        return ChatEnding(ExitCode.FAILED, f"{name}: {message}; {self._delivered()}")

    def _cancel_line(self) -> str:
        if self._receipt is None:
            return f"hung up: {self._delivered()}"
        closed = self._receipt.get("upstream_closed_ms")
        known = isinstance(closed, int | float)
        took = f"closed in {closed:g} ms" if known else "had not answered"
        outcome = self._receipt.get("outcome")
        return f"{outcome}: upstream {took}, {self._delivered()}"

    def _delivered(self) -> str:
        seconds = trio.current_time() - self._began_at
        plural = "" if self._events == 1 else "s"
        return f"{self._events} event{plural} in {seconds:.2f} s"


def _body(response: httpx.Response) -> ResponseBody:
    """Return the body of a response; some servers compress it unasked.

    :raises NotAStreamError: in a way that is not known here.
    """
    body: ResponseBody = response.extensions["body"]
    coding = response.headers.get("content-encoding")
    if coding is None:
        return body
    # Imported only where it is needed: it takes longer than all the rest of a start.
    from trio_ai_stream.upstream.bodies import decoded

    try:
        return decoded(body, coding)
    except LookupError as exc:
        raise NotAStreamError(f"{exc.args[0]}, got {coding}") from exc


async def _rest(begun: bytes, body: ResponseBody, at_most: int) -> bytes:
    """Return what has begun with what is behind it, cut off at about `at_most`."""
    parts, size = [begun], len(begun)
    while size <= at_most and (block := await body.receive()):
        parts.append(block)
        size += len(block)
    return b"".join(parts)


def api_of(url: httpx.URL) -> str:
    """Return the base of OpenAI's API at `url`: its path, and if it has none, `/v1`."""
    text = str(url).rstrip("/")
    return text if url.path.strip("/") else f"{text}/v1"


def root_of(url: httpx.URL) -> str:
    """Return the address below which a server of this kind has its other paths."""
    return str(url).rstrip("/").removesuffix("/v1")
