"""One frozen `Settings`.

Each field is declared once, with its name in the environment, its default, its bounds
and its line of documentation; `.env.example` and docs/settings.md are made from here
(`python -m scripts.docs`), and a test holds the three together.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
)

from trio_ai_stream.settings.values import (
    DIGEST_PREFIX,
    Bytes,
    Count,
    File,
    Header,
    KeyFile,
    Keys,
    NamedKey,
    Networks,
    RedisUrl,
    Seconds,
    Words,
    check_base_url,
    check_ledger,
    check_origins,
    read_bind,
    read_named_keys,
    read_peer,
)


class Settings(BaseModel):
    """The effective settings of one process; frozen.

    What several of them must be together is in `cross_field`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Upstream
    OPENROUTER_API_KEY: SecretStr | None = Field(
        None,
        description="Key for OpenRouter. Without one the embedded simulator answers.",
    )
    OPENROUTER_BASE_URL: Annotated[str, AfterValidator(check_base_url)] = Field(
        "https://openrouter.ai/api/v1", description="Base URL of the OpenRouter API."
    )
    OPENROUTER_MODEL: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        "~anthropic/claude-sonnet-latest",
        description="Model of a request that names none.",
    )
    OPENROUTER_REFERER: Header = Field(
        "", description="`HTTP-Referer` sent upstream, for app attribution."
    )
    OPENROUTER_TITLE: Header = Field(
        "", description="`X-OpenRouter-Title` sent upstream, for app attribution."
    )
    UPSTREAM: Literal["auto", "openrouter", "simulator"] = Field(
        "auto",
        description="`auto` takes OpenRouter when there is a key, else the simulator.",
    )
    # Listening
    HOST: Annotated[str, Field(min_length=1)] = Field(
        "127.0.0.1", description="Address that `serve` binds to."
    )
    PORT: Annotated[tuple[str, int], BeforeValidator(read_bind)] = Field(
        ("", 8080),
        description="`8080`, `:8080` (the original Go server's form) or `host:port`,"
        " whose host wins.",
    )
    WORKERS: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Worker processes of `serve`."
    )
    TLS_CERT_FILE: File | None = Field(
        None, description="Certificate (PEM) of `serve`; turns on TLS and h2 by ALPN."
    )
    TLS_KEY_FILE: File | None = Field(
        None, description="Private key (PEM) of TLS_CERT_FILE."
    )
    # Trust
    API_KEYS: Keys = Field(
        (),
        description="Keys that clients send as Bearer, comma-separated; a key or"
        " `sha256:` and its digest in hexadecimal.",
    )
    API_KEYS_FILE: KeyFile = Field(
        (), description="File with more API_KEYS, one a line; `#` starts a comment."
    )
    ADMIN_KEYS: Keys = Field(
        (),
        description="Keys that may do what API_KEYS may, see and cancel every"
        " client's streams, and read `/metrics`.",
    )
    ADMIN_KEYS_FILE: KeyFile = Field(
        (), description="File with more ADMIN_KEYS, as API_KEYS_FILE."
    )
    KEYS_FILE: Annotated[tuple[NamedKey, ...], BeforeValidator(read_named_keys)] = (
        Field(
            (),
            description="TOML file with more client keys, each with a name and limits"
            " of its own ([how](billing.md#keys-with-names-and-limits)).",
        )
    )
    ALLOW_ANONYMOUS: bool = Field(
        False,
        description="Serve clients without a key on any address. Without keys and"
        " without this, only loopback is served.",
    )
    CORS_ALLOW_ORIGINS: Annotated[Words, AfterValidator(check_origins)] = Field(
        (), description="Origins allowed by CORS, comma-separated, or `*`."
    )
    TRUSTED_PROXIES: Networks = Field(
        (), description="Addresses or networks whose `X-Forwarded-For` is believed."
    )
    # Telemetry
    LOG_LEVEL: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"],
        BeforeValidator(lambda value: str(value).upper()),
    ] = Field("INFO", description="Least level that is logged.")
    LOG_FORMAT: Literal["auto", "text", "json"] = Field(
        "auto", description="`auto` is coloured text on a terminal, else JSON lines."
    )
    LOG_CLIENTS: Literal["full", "network", "none"] = Field(
        "full",
        description="How the log names clients: the hash of the key, else the address;"
        " `network` cuts addresses to /24 (IPv6 /48).",
    )
    METRICS_PORT: Annotated[tuple[str, int] | None, BeforeValidator(read_bind)] = Field(
        None,
        description="Second port: `/metrics`, `/health` and `/ready` without a key,"
        " until the process exits; on loopback, or `host:port`.",
    )
    TRACE: bool = Field(False, description="Write a trace of every task, for Perfetto.")
    TRACE_FILE: Path = Field(
        Path("trace.json"), description="Its file; each process adds its own number."
    )
    # The bounds: how much, how many, how long. Whoever waits, waits for one of these.
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
        " arrival to the first content of the answer; past it 503.",
    )
    UPSTREAM_BUFFER_BYTES: Bytes = Field(
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
    # Bills
    RECONCILE_SECS: Annotated[float, Field(ge=0, le=86_400)] = Field(
        300,
        description="How long upstream is asked what a cut stream was billed; 0: not.",
    )
    LEDGER_FILE: Annotated[Path, AfterValidator(check_ledger)] | None = Field(
        None,
        description="SQLite file with a row for each stream, shared by all workers of"
        " the host; its directory must be one that the server may write.",
    )
    LEDGER_RETENTION_DAYS: Annotated[float, Field(gt=0, le=36_500)] = Field(
        90, description="Rows of the ledger are deleted after this."
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
    PEER_ADDRESS: Annotated[tuple[str, int] | None, BeforeValidator(read_peer)] = Field(
        None,
        description="`host:port` of this host that the others with the same REDIS_URL"
        " reach, on a private network: there a reader that came to another host is"
        " handed its stream.",
    )
    RATE_LIMIT_FALLBACK: Literal["local", "open", "closed"] = Field(
        "local",
        description="Without it each process counts alone, or admits or refuses all.",
    )
    # Time
    READ_TIMEOUT_SECS: Seconds = Field(
        15,
        description="Reading one request, head and body; each 8 KiB of a body that came"
        " put the end off by a second.",
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
        180, description="From the request to the first content, retries included."
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
        15, description="A sign of life goes to the client after this much silence."
    )
    HEARTBEAT_EVENTS: bool = Field(
        default=False,
        description="It is an event, not a comment, for clients that count events only:"
        " an empty chunk on `/v1/chat/completions`, and `keepalive` also before"
        " `response.created` on `/v1/responses`.",
    )
    UPSTREAM_ALIVE_SECS: Seconds = Field(
        45,
        description="None goes out once upstream has been silent for longer than this.",
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
    # Resuming
    GRACE_MAX_SECS: Annotated[float, Field(ge=0, le=3600)] = Field(
        120,
        description="The longest `X-Stream-Grace` that a client gets: how long its"
        " stream goes on without a connection. 0 switches that off.",
    )
    GRACE_STREAM_BYTES: Bytes = Field(
        1_048_576,
        description="Bytes of the last events that are kept for the reader of one such"
        " stream; while it is away, upstream is read no further than this.",
    )
    GRACE_TOTAL_BYTES: Bytes = Field(
        268_435_456,
        description="The same for all streams of a process; past it no new stream gets"
        " a grace.",
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

    @property
    def upstream_kind(self) -> Literal["openrouter", "simulator"]:
        """Which upstream answers: the one asked for, or what `auto` comes to."""
        if self.UPSTREAM == "auto":
            return "openrouter" if self.OPENROUTER_API_KEY else "simulator"
        return self.UPSTREAM

    @property
    def api_keys(self) -> tuple[str, ...]:
        """The keys of clients, from both places; some are digests."""
        return _plain(self.API_KEYS + self.API_KEYS_FILE)

    @property
    def admin_keys(self) -> tuple[str, ...]:
        """The keys of operators, from both places; some are digests."""
        return _plain(self.ADMIN_KEYS + self.ADMIN_KEYS_FILE)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log record may contain; a digest is no secret."""
        named = (one.key.get_secret_value() for one in self.KEYS_FILE)
        keys = (*self.api_keys, *self.admin_keys, *named)
        if self.OPENROUTER_API_KEY is not None:
            keys += (self.OPENROUTER_API_KEY.get_secret_value(),)
        return tuple(key for key in keys if not key.startswith(DIGEST_PREFIX))

    @cached_property
    def keys_required(self) -> bool:
        """Whether a request needs a key."""
        keys = self.api_keys or self.admin_keys or self.KEYS_FILE
        return bool(keys) and not self.ALLOW_ANONYMOUS

    @cached_property
    def named_keys(self) -> dict[str, NamedKey]:
        """The limits of KEYS_FILE by name."""
        return {one.name: one for one in self.KEYS_FILE}

    @cached_property
    def loopback_only(self) -> bool:
        """Whether only clients on this machine are served: nobody has a key."""
        return not self.keys_required and not self.ALLOW_ANONYMOUS

    @property
    def bind(self) -> tuple[str, int]:
        """Host and port of `serve`; a host in PORT wins over HOST."""
        host, port = self.PORT
        return (host or self.HOST, port)

    @property
    def management_bind(self) -> tuple[str, int] | None:
        """Host and port for probes and scrapers; loopback unless a host is given."""
        if self.METRICS_PORT is None:
            return None
        host, port = self.METRICS_PORT
        return (host or "127.0.0.1", port)


def _plain(keys: tuple[SecretStr, ...]) -> tuple[str, ...]:
    return tuple(key.get_secret_value() for key in keys)
