"""OpenRouter as a stream's upstream: one HTTP/1.1 connection for each live stream.

HTTP/1.1, because there cancelling means closing the connection, which is what
OpenRouter documents as the way to stop generating and billing
(https://openrouter.ai/docs/api_reference/streaming).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import httpx
import trio
from loguru import logger

from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.stream.protocols import (
    OnAbortable,
    OnSent,
    UpstreamRequest,
    UpstreamResponse,
)
from trio_ai_stream.upstream.bodies import (
    BufferBudget,
    Reservation,
    ResponseBody,
    decoded,
    read_document,
    read_error,
)
from trio_ai_stream.upstream.responses import (
    DocumentResponse,
    StreamedResponse,
    open_unlabelled,
)
from trio_ai_stream.upstream.transport import TransportResponse, UpstreamTransport
from trio_ai_stream.upstream.transport.circuit import CircuitState
from trio_ai_stream.upstream.transport.http1_messages import RequestMessage
from trio_ai_stream.upstream.transport.pool import RequestTimeouts
from trio_ai_stream.upstream.transport.upstream_transport import origin_of
from trio_ai_stream.upstream.upstream_errors import (
    KEY_TYPE,
    MALFORMED,
    misplaced,
    rejection,
    transport_error,
)
from trio_ai_stream.wire.record import Outcome

# A 401 counts this long: whoever is not ready gets no requests, and so would never hear
# that its key is good again.
REJECTED_S: Final = 30.0
_ATTRIBUTION: Final = {b"http-referer", b"x-title", b"x-openrouter-title"}


class OpenRouter:
    """Opens answers at one base URL with one key."""

    def __init__(
        self,
        transport: UpstreamTransport,
        *,
        base_url: str,
        kind: str,
        headers: dict[str, str],
        connect_s: float,
        buffer_bytes: int,
        on_status: Callable[[int], None] | None = None,
    ) -> None:
        self.kind = kind
        self.buffers = BufferBudget(buffer_bytes)
        self._rejected_at = -math.inf
        self._on_status = on_status
        self._transport = transport
        self._base_url = base_url
        url = httpx.URL(base_url)
        self._origin = origin_of(url)
        self._path = url.raw_path.rstrip(b"/")
        common = {
            "Host": url.netloc.decode("ascii"),
            "Accept-Encoding": "identity",
            **headers,
        }
        self._headers = httpx.Headers(common).raw
        self._timeouts = RequestTimeouts(connect_s, math.inf, math.inf)

    @property
    def circuit(self) -> CircuitState:
        """Whether connections are made, or fail again and again."""
        return self._transport.circuit

    @property
    def rejected_key(self) -> bool:
        """Whether upstream has just refused our key, and taken it since from none."""
        return trio.current_time() - self._rejected_at < REJECTED_S

    async def open(
        self, call: UpstreamRequest, on_sent: OnSent, on_abortable: OnAbortable
    ) -> UpstreamResponse:
        """Send the request and wait for upstream's headers, once.

        `on_sent` is awaited before the first wait. Cancelling closes the connection
        at once, and so does what `on_abortable` is given.

        :raises EndStream: when upstream refuses or cannot be reached.
        """
        path = call.dialect.upstream_path
        accept = b"application/json" if call.whole else b"text/event-stream"
        headers = [
            *self._common(call),
            (b"Content-Type", b"application/json"),
            (b"Content-Length", b"%d" % len(call.body)),
            (b"Accept", accept),
            (b"X-Request-ID", call.request_id.encode("ascii")),
            *call.headers,
        ]
        response = await self._send(
            "POST", path, headers, call.body, on_sent, on_abortable
        )
        if response.head.status == 200:
            self._rejected_at = -math.inf
            return await self._answer(response, call, on_abortable)
        on_abortable(response.body.abort)
        try:
            # Not held by this frame: an exception that it holds would hold it.
            raise await self._rejection(response, self._base_url + path)
        finally:
            on_abortable(None)

    async def _answer(
        self,
        response: TransportResponse,
        call: UpstreamRequest,
        on_abortable: OnAbortable,
    ) -> UpstreamResponse:
        """Return the source of an answer under 200, whatever it is labelled.

        :raises EndStream: when it is none, as far as its beginning tells.
        """
        body = _body(response)
        kind = response.field(b"content-type").partition(";")[0].strip().lower()
        if kind == "text/html":
            body.abort()
            raise misplaced("a web page", self._base_url + call.dialect.upstream_path)
        reservation = Reservation(self.buffers)
        generation_id = response.field(b"x-generation-id") or None
        if call.whole:
            return DocumentResponse(body, generation_id, reservation, call.dialect)
        if kind == "text/event-stream":
            return StreamedResponse(body, generation_id, reservation, call.dialect)
        on_abortable(body.abort)
        try:
            return await open_unlabelled(body, generation_id, reservation, call.dialect)
        except BaseException:
            reservation.release()
            body.abort()
            raise
        finally:
            on_abortable(None)

    def _common(self, call: UpstreamRequest) -> list[tuple[bytes, bytes]]:
        """Return the fields of every request, but those that the client overrules.

        Referer and title name one application together.
        """
        if not call.headers:
            return self._headers
        said = {name for name, _ in call.headers}
        if said & _ATTRIBUTION:
            said |= _ATTRIBUTION
        return [field for field in self._headers if field[0].lower() not in said]

    async def get(self, path: str) -> bytes:
        """Return the body of one document of the API, such as `/models`.

        :raises EndStream: when upstream refuses or cannot be reached.
        """
        response = await self._send("GET", path, self._headers)
        if response.head.status != 200:
            raise await self._rejection(response, self._base_url + path)
        body, reservation = _body(response), Reservation(self.buffers)
        try:
            return await read_document(body, reservation)
        finally:
            reservation.release()
            body.abort()

    async def _rejection(self, response: TransportResponse, url: str) -> EndStream:
        body = await read_error(response.body)
        fields = httpx.Headers(response.head.headers)
        failure = rejection(response.head.status, body, fields, url=url)
        if failure.problem is not None and failure.problem.error_type == KEY_TYPE:
            if not self.rejected_key:
                logger.error(
                    "upstream rejected OPENROUTER_API_KEY: wrong, disabled or expired",
                    event="upstream_key_rejected",
                )
            self._rejected_at = trio.current_time()
        return failure

    async def aclose(self) -> None:
        """Close all connections; live streams must have been ended before."""
        await self._transport.aclose()

    async def _send(
        self,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes = b"",
        on_sent: OnSent | None = None,
        on_abortable: OnAbortable = lambda _abort: None,
    ) -> TransportResponse:
        """Send a request; what fails on the way is a stream's end.

        Straight through the transport: what `httpx.AsyncClient` adds (cookies, which
        must not pass from one user's stream to another's, redirects, authentication)
        is of no use here and costs more than the transport itself; and so do httpx's
        objects for a request and its fields.
        """
        try:
            message = RequestMessage(
                method,
                self._path + path.encode("ascii"),
                headers,
                httpx.ByteStream(body),
            )
            response = await self._transport.send(
                self._origin, message, self._timeouts, on_sent, on_abortable
            )
        except httpx.HTTPError as exc:
            raise transport_error(exc) from exc
        if self._on_status is not None:
            self._on_status(response.head.status)
        return response


def _body(response: TransportResponse) -> ResponseBody:
    """Return a response's body, decoded.

    :raises EndStream: when it is compressed in a way that is not known here.
    """
    body = response.body
    try:
        return decoded(body, response.field(b"content-encoding"))
    except LookupError as exc:
        body.abort()
        raise EndStream(
            Outcome.UPSTREAM_FAILED, problem=MALFORMED, detail=str(exc.args[0])
        ) from exc
