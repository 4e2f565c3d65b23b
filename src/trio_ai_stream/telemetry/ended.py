"""What telemetry needs to know of a stream that has ended."""

from __future__ import annotations

from typing import Protocol


class EndedStream(Protocol):
    """The stream's own record, as its room made it; durations in seconds.

    `first_content_s` is None if no content was written; `cancel_latency_s`, from the
    cause to the upstream's close, unless something ended the stream early.
    """

    @property
    def request_id(self) -> str:
        """The request's id."""

    @property
    def endpoint(self) -> str:
        """The path that the request came in by."""

    @property
    def model(self) -> str:
        """The model that was asked for."""

    @property
    def streamed(self) -> bool:
        """Whether upstream was asked for a stream; not for one whole document."""

    @property
    def outcome(self) -> str:
        """One of the closed set of outcomes."""

    @property
    def fault(self) -> str | None:
        """Whose doing the end was: caller, upstream, server; None of a whole answer."""

    @property
    def duration_s(self) -> float:
        """The whole stream."""

    @property
    def first_content_s(self) -> float | None:
        """From the start to the first content written."""

    @property
    def cancel_latency_s(self) -> float | None:
        """From the cause of an early end to the upstream's close."""

    @property
    def attempts(self) -> int:
        """Requests to upstream, the first and the retries."""

    @property
    def events(self) -> int:
        """Events written to the client."""

    @property
    def blocks(self) -> int:
        """Writes that carried them."""

    @property
    def bytes_out(self) -> int:
        """Bytes written to the client."""

    @property
    def finish_reason(self) -> str | None:
        """Why upstream finished, if it did."""

    @property
    def generation_id(self) -> str | None:
        """Upstream's name for its answer."""

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens in, as upstream reported them."""

    @property
    def completion_tokens(self) -> int | None:
        """Tokens out, as upstream reported them."""
