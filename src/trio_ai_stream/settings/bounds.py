"""The bounds: how much, how many, how long. Whoever waits, waits for one of these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from trio_ai_stream.settings.values import Bytes, Count, RedisUrl, Seconds


class Bounds(BaseModel):
    """The part of the settings that limits clients, upstream and ourselves."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Limits
    RATE_LIMIT: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = Field(
        10, description="Requests a second and client (token bucket, burst the same)."
    )
    MAX_PROMPT_LENGTH: Count = Field(
        4000, description="Characters of the `prompt` of `POST /chat`."
    )
    MAX_MESSAGES_LENGTH: Count = Field(
        1_000_000,
        description="Characters over all texts of one request's `messages`.",
    )
    MAX_BODY_BYTES: Bytes = Field(
        33_554_432, description="Bytes of one request body; reading stops there."
    )
    MAX_BODIES_BYTES: Bytes = Field(
        268_435_456,
        description="Bytes of all request bodies of one process together, from their"
        " arrival to the end of the request; past it 503.",
    )
    UPSTREAM_BUFFER_BYTES: Count = Field(
        268_435_456,
        description="Bytes of large events and documents (beyond 64 KiB) that all"
        " streams of a worker may hold; past it a stream ends with an error.",
    )
    MAX_CONCURRENT_STREAMS: Count = Field(
        2000, description="Streams at a time; one more gets 503 at once."
    )
    MAX_STREAMS_PER_CLIENT: Count | None = Field(
        None, description="Streams of one client at a time; one more gets 429."
    )
    # Sharing
    REDIS_URL: RedisUrl | None = Field(
        None,
        description="Valkey or Redis that shares limits and streams between workers and"
        " hosts, `redis://` or `rediss://` (TLS); needs the extra `redis`.",
    )
    REDIS_PREFIX: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] = Field(
        "trio-ai-stream", description="What all keys there begin with."
    )
    REDIS_TIMEOUT_SECS: Seconds = Field(
        0.25, description="A decision waits for it no longer than this."
    )
    REDIS_LEASE_SECS: Annotated[float, Field(ge=1, le=3600)] = Field(
        15, description="A process that vanished gives its permits back after this."
    )
    RATE_LIMIT_FALLBACK: Literal["local", "open", "closed"] = Field(
        "local",
        description="Without it each process counts alone, or admits or refuses all.",
    )
    # Time
    READ_TIMEOUT_SECS: Seconds = Field(
        15, description="Reading one request, head and body."
    )
    WRITE_TIMEOUT_SECS: Seconds = Field(
        15, description="One write without progress; then the connection is aborted."
    )
    IDLE_TIMEOUT_SECS: Seconds = Field(
        60, description="An idle keep-alive connection is closed after this."
    )
    CONNECT_TIMEOUT_SECS: Seconds = Field(
        10, description="Connecting to upstream: name, TCP and TLS."
    )
    FIRST_TOKEN_TIMEOUT_SECS: Seconds = Field(
        120, description="From the request to the first content, retries included."
    )
    STREAM_IDLE_TIMEOUT_SECS: Seconds = Field(
        60, description="Silence of upstream between two chunks."
    )
    DONE_GRACE_SECS: Annotated[float, Field(ge=0, le=60)] = Field(
        2,
        description="A whole answer waits this long for upstream's usage and `[DONE]`.",
    )
    STREAM_DEADLINE_SECS: Seconds = Field(1800, description="A whole stream.")
    HEARTBEAT_SECS: Seconds = Field(
        15, description="A comment goes to the client after this much silence."
    )
    DRAIN_TIMEOUT_SECS: Annotated[float, Field(ge=0, le=86_400)] = Field(
        25,
        description="Live streams may go on for this long after SIGTERM "
        "(Kubernetes kills at 30 s by default).",
    )
    WATCHDOG_TIMEOUT_SECS: Seconds = Field(
        15,
        description="A worker whose loop has not turned for this long is killed and"
        " replaced (`serve` with several).",
    )
    # Retries
    RETRY_BUDGET_PERCENT: Annotated[float, Field(ge=0, le=100)] = Field(
        10, description="Retries upstream, as a share of the requests of one worker."
    )
    RETRY_BUDGET_FLOOR: Annotated[int, Field(ge=0, le=100_000)] = Field(
        10, description="Retries that one worker may make besides in ten seconds."
    )
    # Connections
    MAX_CONNECTIONS: Count = Field(
        8192, description="Open connections of one worker; one more gets 503."
    )
    MAX_REQUESTS_PER_CONNECTION: Count = Field(
        1000,
        description="Then the connection is closed, so that clients spread over"
        " workers and replicas again.",
    )
    MAX_HEADER_BYTES: Count = Field(
        16_384, description="Request line and headers; past it 431."
    )
    MAX_READ_AHEAD_BYTES: Count = Field(
        65_536, description="Pipelined bytes that are read during a response."
    )
    H2_MAX_STREAMS: Annotated[int, Field(ge=1, le=10_000)] = Field(
        128, description="Streams at a time on one HTTP/2 connection."
    )
    H2_MAX_RESETS: Count = Field(
        500,
        description="Streams of one HTTP/2 connection reset in ten seconds, by either"
        " side (rapid reset); past it the connection is closed.",
    )
    H2_MAX_CONTROL_FRAMES: Count = Field(
        5000,
        description="HTTP/2 frames in ten seconds that carry neither request, data"
        " nor credit; past it the connection is closed.",
    )
    H2_MAX_BUFFERED_BYTES: Count = Field(
        262_144,
        description="What one HTTP/2 stream may hold for a client whose window is"
        " closed.",
    )
    TLS_HANDSHAKE_TIMEOUT_SECS: Seconds = Field(
        10, description="Accepting one TLS connection."
    )
