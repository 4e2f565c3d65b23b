"""HTTP/1.1 in bytes: requests read by httptools, responses written by hand.

No I/O: bytes are fed in, a `SimulatedRequest` comes out. Its head is known before its
body, so that a slow read can begin with the first body byte that names it. Responses
are framed by a known length, by chunks, or by the connection's end (RFC 9112).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

import httptools

from trio_ai_stream.simulator.encoding import ERRORS
from trio_ai_stream.simulator.schedule import SimulatedHead, Step, Write

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024 * 1024  # more than any gateway should pass on
_MODEL = re.compile(rb'"model"\s*:\s*"(simulator/[^"]{1,2000})"')
MODEL_WITHIN = 4096  # a model name later in the body is not found before its end


class RequestError(ValueError):
    """Bytes that are not a request we take; `status` says what HTTP calls that."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class SimulatedRequest:
    """One request; `complete` once its last byte has been fed.

    The `on_…` methods are httptools' callbacks: the parser knows method, version and
    persistence only inside of them. A second request in the same bytes is refused.
    """

    def __init__(self) -> None:
        # It holds this object in turn: let go of at the end, for the collector's sake.
        self.parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(
            self
        )
        self.method = ""
        self.target = b""
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.head_done = False
        self.seen = False  # whoever serves it has looked at the head
        self.http11 = True
        self.complete = False
        self.keep_alive = True

    @property
    def path(self) -> str:
        """The target's path, without its query."""
        return urlsplit(self.target.decode("latin-1")).path

    @property
    def query(self) -> dict[str, str]:
        """The target's query; of a repeated key the last value."""
        pairs = parse_qs(urlsplit(self.target.decode("latin-1")).query)
        return {key: values[-1] for key, values in pairs.items()}

    def early_model(self) -> str | None:
        """Return the simulator's model name if the body so far holds it."""
        found = _MODEL.search(bytes(self.body[:MODEL_WITHIN]))
        return found[1].decode("latin-1") if found else None

    def on_message_begin(self) -> None:
        if self.complete:
            raise RequestError("pipelined requests are not supported")

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        try:
            urlsplit(self.target.decode("latin-1"))
        except ValueError as exc:
            raise RequestError("the target is no URL") from exc
        assert self.parser is not None
        self.method = self.parser.get_method().decode("latin-1")
        self.http11 = self.parser.get_http_version() == "1.1"
        self.head_done = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        assert self.parser is not None
        self.keep_alive = self.parser.should_keep_alive()
        self.parser = None
        self.complete = True


class RequestReader:
    """Feeds a connection's bytes to the parser, one request after the other."""

    def __init__(self) -> None:
        self._early = b""  # bytes of the next request
        self._begin()

    def _begin(self) -> None:
        self.request = SimulatedRequest()
        self._fed = 0

    @property
    def waiting(self) -> int:
        """How many bytes have come for the request after the current one."""
        return len(self._early)

    def release(self) -> None:
        """Let go of a parser whose request will not be whole any more. Idempotent."""
        self.request.parser = None

    def keep(self, data: bytes | bytearray) -> None:
        """Keep bytes that came while the current request was being answered."""
        self._early += data

    def next_request(self) -> None:
        """Begin the next request, with the bytes that have come for it already."""
        early, self._early = self._early, b""
        self._begin()
        if early:
            self.feed(early)

    def feed(self, data: bytes | bytearray) -> None:
        """Take in bytes; look at `request` afterwards. Raises RequestError."""
        self._fed += len(data)
        request, parser = self.request, self.request.parser
        if parser is None:
            raise RequestError("pipelined requests are not supported")
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            raise RequestError("upgrade is not supported", 400) from exc
        except httptools.HttpParserError as exc:
            raise RequestError(f"not an HTTP/1.1 request: {exc}") from exc
        if not request.head_done and self._fed > HEAD_LIMIT:
            raise RequestError("request head too large", 431)
        if len(request.body) > BODY_LIMIT:
            raise RequestError("request body too large", 413)


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </api/v1/models>; rel=preload\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_PHRASES = {200: "OK", 431: "Request Header Fields Too Large"} | {
    status: known.phrase for status, known in ERRORS.items()
}


def head_bytes(head: SimulatedHead, *, chunked: bool, keep_alive: bool) -> bytes:
    """Return a response head; `chunked` matters only where it has no length."""
    phrase = _PHRASES.get(head.status, "Unknown")
    lines = [f"HTTP/1.1 {head.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in head.headers]
    if head.length is not None:
        lines.append(f"Content-Length: {head.length}")
    elif chunked:
        lines.append("Transfer-Encoding: chunked")
    if not keep_alive:
        lines.append("Connection: close")
    text = "\r\n".join((*lines, "", ""))
    return (INTERIM if head.interim else b"") + text.encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Return one chunk; no data gives nothing, for an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def short_response(steps: Iterable[Step], *, keep_alive: bool) -> bytes:
    """Return a response whose steps are one head with a length, and writes."""
    parts = [
        head_bytes(step, chunked=False, keep_alive=keep_alive)
        if isinstance(step, SimulatedHead)
        else step.data
        for step in steps
        if isinstance(step, SimulatedHead | Write)
    ]
    return b"".join(parts)
