"""OpenRouter as a stream's upstream: one HTTP/1.1 connection for each live stream.

HTTP/1.1, because there cancelling means closing the connection, which is what
OpenRouter documents as the way to stop generating and billing
(https://openrouter.ai/docs/api_reference/streaming).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import httpx
import trio
from loguru import logger

from trio_ai_stream.stream.outcome import EndStream, Outcome
from trio_ai_stream.stream.source import Call, Hold, Meanwhile, Source
from trio_ai_stream.upstream.bodies import Body, read_document, read_error
from trio_ai_stream.upstream.chunks import items_of_document
from trio_ai_stream.upstream.decoder import Decoder, MalformedError
from trio_ai_stream.upstream.errors import (
    BROKEN,
    KEY_TYPE,
    MALFORMED,
    failure_of_document,
    misplaced,
    rejection,
    transport_error,
)
from trio_ai_stream.wire.events import Item

# A 401 counts this long: whoever is not ready gets no requests, and so would never hear
# that its key is good again.
REJECTED_S: Final = 30.0


class OpenRouter:
    """Opens answers at one base URL with one key."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        base_url: str,
        kind: str,
        headers: dict[str, str],
        connect_s: float,
        on_status: Callable[[int], None] | None = None,
    ) -> None:
        self.kind = kind
        self._rejected_at = -math.inf
        self._on_status = on_status
        self._transport = transport
        self._base_url = base_url
        self._url = httpx.URL(f"{base_url}/chat/completions")
        common = {
            "Host": self._url.netloc.decode("ascii"),
            "Accept-Encoding": "identity",
            **headers,
        }
        self._headers = httpx.Headers(common).raw
        self._extensions = {"timeout": {"connect": connect_s}}

    @property
    def rejected_key(self) -> bool:
        """Whether upstream has just refused our key, and taken it since from none."""
        return trio.current_time() - self._rejected_at < REJECTED_S

    async def open(self, call: Call, meanwhile: Meanwhile, hold: Hold) -> Source:
        """Send the request and wait for upstream's headers, once.

        `meanwhile` is awaited before the first wait. Cancelling closes the connection
        at once, and so does what `hold` is given.

        :raises EndStream: when upstream refuses or cannot be reached.
        """
        accept = b"application/json" if call.whole else b"text/event-stream"
        response = await self._send(
            httpx.Request(
                "POST",
                self._url,
                headers=[
                    *self._headers,
                    (b"Content-Type", b"application/json"),
                    (b"Content-Length", b"%d" % len(call.body)),
                    (b"Accept", accept),
                    (b"X-Request-ID", call.request_id.encode("ascii")),
                ],
                stream=httpx.ByteStream(call.body),
                extensions={**self._extensions, "meanwhile": meanwhile, "hold": hold},
            )
        )
        body: Body = response.extensions["body"]
        if response.status_code == 200:
            self._rejected_at = -math.inf
            if _media_type(response) == "text/html":
                body.abort()
                raise misplaced("a web page", str(self._url))
            generation_id = response.headers.get("x-generation-id")
            if call.whole:
                return DocumentSource(body, generation_id)
            if _is_json(response):
                raise await _failure_under_200(body)
            return StreamSource(body, generation_id, raw=call.raw)
        raise await self._rejection(response, self._url)

    async def get(self, path: str) -> bytes:
        """Return the body of one document of the API, such as `/models`.

        :raises EndStream: when upstream refuses or cannot be reached.
        """
        response = await self._send(
            httpx.Request(
                "GET",
                self._base_url + path,
                headers=self._headers,
                extensions=self._extensions,
            )
        )
        body: Body = response.extensions["body"]
        if response.status_code != 200:
            raise await self._rejection(response, self._base_url + path)
        try:
            return await read_document(body)
        finally:
            body.abort()

    async def _rejection(
        self, response: httpx.Response, url: httpx.URL | str
    ) -> EndStream:
        body = await read_error(response.extensions["body"])
        failure = rejection(response.status_code, body, response.headers, url=str(url))
        if failure.problem is not None and failure.problem.error_type == KEY_TYPE:
            self._note_rejected_key()
        return failure

    def _note_rejected_key(self) -> None:
        if not self.rejected_key:
            logger.error(
                "upstream rejected OPENROUTER_API_KEY: wrong, disabled or expired",
                event="upstream_key_rejected",
            )
        self._rejected_at = trio.current_time()

    async def aclose(self) -> None:
        """Close all connections; live streams must have been ended before."""
        await self._transport.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """Send a request; what fails on the way is a stream's end.

        Straight through the transport: what `httpx.AsyncClient` adds (cookies, which
        must not pass from one user's stream to another's, redirects, authentication)
        is of no use here and costs more than the transport itself.
        """
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.HTTPError as exc:
            raise transport_error(exc) from exc
        if self._on_status is not None:
            self._on_status(response.status_code)
        return response


class StreamSource:
    """One streamed answer: bytes in, items out."""

    __slots__ = ("_body", "_decoder", "generation_id")

    def __init__(self, body: Body, generation_id: str | None, *, raw: bool) -> None:
        self._body = body
        self._decoder = Decoder(raw=raw)
        self.generation_id = generation_id

    @property
    def ended(self) -> bool:
        """Whether the body has been read to its end."""
        return self._body.ended

    async def receive(self) -> Sequence[Item] | None:
        """Return all items that have arrived; `None` at the end of the body."""
        try:
            data = await self._body.receive()
            if data:
                return self._decoder.feed(data)
            return self._decoder.end() or None
        except httpx.HTTPError as exc:
            raise EndStream(
                Outcome.UPSTREAM_FAILED, problem=BROKEN, detail=type(exc).__name__
            ) from exc
        except MalformedError as exc:
            raise EndStream(
                Outcome.UPSTREAM_FAILED, problem=MALFORMED, detail=str(exc)
            ) from exc

    async def finish(self) -> None:
        """Read what is left, so that the connection goes back to the pool."""
        await _drain(self._body)

    def abort(self) -> None:
        """Close the connection at once."""
        self._body.abort()


class DocumentSource:
    """One whole answer (`stream: false`) as a single block of items."""

    __slots__ = ("_body", "generation_id")

    def __init__(self, body: Body, generation_id: str | None) -> None:
        self._body = body
        self.generation_id = generation_id

    @property
    def ended(self) -> bool:
        """Whether the document has been read."""
        return self._body.ended

    async def receive(self) -> Sequence[Item] | None:
        """Return what the document says, once all of it is here."""
        try:
            return items_of_document(await read_document(self._body))
        except (ValueError, RecursionError) as exc:
            raise EndStream(
                Outcome.UPSTREAM_FAILED,
                problem=MALFORMED,
                detail="expected one JSON document, got something else",
            ) from exc

    async def finish(self) -> None:
        """Give the connection back; the body has been read to its end."""
        await _drain(self._body)

    def abort(self) -> None:
        """Close the connection at once."""
        self._body.abort()


async def _drain(body: Body) -> None:
    try:
        await body.drain()
    except httpx.HTTPError:
        body.abort()


def _media_type(response: httpx.Response) -> str:
    said: str = response.headers.get("content-type", "")
    return said.partition(";")[0].strip().lower()


def _is_json(response: httpx.Response) -> bool:
    return _media_type(response) == "application/json"


async def _failure_under_200(body: Body) -> EndStream:
    """Read an error that upstream sends as plain JSON under status 200."""
    failure = failure_of_document(await read_error(body))
    return EndStream(
        Outcome.UPSTREAM_REJECTED, problem=failure.problem, detail=failure.detail
    )
