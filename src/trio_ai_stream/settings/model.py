"""One frozen `Settings`.

Each field is declared once, with its name in the environment, its default, its bounds
and its line of documentation; `.env.example` and docs/settings.md are made from here
(`python -m scripts.docs`), and a test holds the three together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, get_type_hints

from trio_ai_stream.settings.values import (
    DIGEST_PREFIX,
    Address,
    Bytes,
    Count,
    File,
    Header,
    KeyFile,
    Keys,
    NamedKey,
    Networks,
    PathOf,
    Reader,
    RedisUrl,
    Seconds,
    Secret,
    Switch,
    matching,
    number,
    read_base_url,
    read_ledger,
    read_named_keys,
    read_origins,
    read_peer,
    read_upstream_key,
    readers,
    whole,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The effective settings of one process; frozen.

    What several of them must be together is in `cross_field`.
    """

    # Upstream
    OPENROUTER_API_KEY: Annotated[
        Annotated[Secret, read_upstream_key] | None,
        "Key for OpenRouter. Without one the embedded simulator answers.",
    ] = None
    OPENROUTER_BASE_URL: Annotated[
        str, read_base_url, "Base URL of the OpenRouter API."
    ] = "https://openrouter.ai/api/v1"
    OPENROUTER_MODEL: Annotated[
        str, matching(".{1,200}"), "Model of a request that names none."
    ] = "~anthropic/claude-sonnet-latest"
    OPENROUTER_REFERER: Annotated[
        Header, "`HTTP-Referer` sent upstream, for app attribution."
    ] = ""
    OPENROUTER_TITLE: Annotated[
        Header, "`X-OpenRouter-Title` sent upstream, for app attribution."
    ] = ""
    UPSTREAM: Annotated[
        Literal["auto", "openrouter", "simulator"],
        "`auto` takes OpenRouter when there is a key, else the simulator.",
    ] = "auto"
    # Listening
    HOST: Annotated[str, matching(".+"), "Address that `serve` binds to."] = "127.0.0.1"
    PORT: Annotated[
        Address,
        "`8080`, `:8080` (the original Go server's form) or `host:port`,"
        " whose host wins.",
    ] = ("", 8080)
    WORKERS: Annotated[int, whole(1, 256), "Worker processes of `serve`."] = 1
    TLS_CERT_FILE: Annotated[
        File | None, "Certificate (PEM) of `serve`; turns on TLS and h2 by ALPN."
    ] = None
    TLS_KEY_FILE: Annotated[File | None, "Private key (PEM) of TLS_CERT_FILE."] = None
    # Trust
    API_KEYS: Annotated[
        Keys,
        "Keys that clients send as Bearer, comma-separated; a key or"
        " `sha256:` and its digest in hexadecimal.",
    ] = ()
    API_KEYS_FILE: Annotated[
        KeyFile, "File with more API_KEYS, one a line; `#` starts a comment."
    ] = ()
    ADMIN_KEYS: Annotated[
        Keys,
        "Keys that may do what API_KEYS may, see and cancel every"
        " client's streams, and read `/metrics`.",
    ] = ()
    ADMIN_KEYS_FILE: Annotated[
        KeyFile, "File with more ADMIN_KEYS, as API_KEYS_FILE."
    ] = ()
    KEYS_FILE: Annotated[
        tuple[NamedKey, ...],
        read_named_keys,
        "TOML file with more client keys, each with a name and limits"
        " of its own ([how](billing.md#keys-with-names-and-limits)).",
    ] = ()
    ALLOW_ANONYMOUS: Annotated[
        Switch,
        "Serve clients without a key on any address. Without keys and"
        " without this, only loopback is served.",
    ] = False
    CORS_ALLOW_ORIGINS: Annotated[
        tuple[str, ...],
        read_origins,
        "Origins allowed by CORS, comma-separated, or `*`.",
    ] = ()
    TRUSTED_PROXIES: Annotated[
        Networks, "Addresses or networks whose `X-Forwarded-For` is believed."
    ] = ()
    # Telemetry
    LOG_LEVEL: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"],
        "Least level that is logged.",
    ] = "INFO"
    LOG_FORMAT: Annotated[
        Literal["auto", "text", "json"],
        "`auto` is coloured text on a terminal, else JSON lines.",
    ] = "auto"
    LOG_CLIENTS: Annotated[
        Literal["full", "network", "none"],
        "How the log names clients: the hash of the key, else the address;"
        " `network` cuts addresses to /24 (IPv6 /48).",
    ] = "full"
    METRICS_PORT: Annotated[
        Address | None,
        "Second port: `/metrics`, `/health` and `/ready` without a key,"
        " until the process exits; on loopback, or `host:port`.",
    ] = None
    TRACE: Annotated[Switch, "Write a trace of every task, for Perfetto."] = False
    TRACE_FILE: Annotated[PathOf, "Its file; each process adds its own number."] = Path(
        "trace.json"
    )
    # The bounds: how much, how many, how long. Whoever waits, waits for one of these.
    # Limits
    RATE_LIMIT: Annotated[
        float,
        number(1e6),
        "Requests a second and client (token bucket, burst the same).",
    ] = 10
    MAX_PROMPT_LENGTH: Annotated[
        Count, "Characters of the `prompt` of `POST /chat`."
    ] = 4000
    MAX_MESSAGES_LENGTH: Annotated[
        Count, "Characters over all texts of one request's `messages`."
    ] = 1_000_000
    MAX_BODY_BYTES: Annotated[
        Bytes, "Bytes of one request body; reading stops there."
    ] = 33_554_432
    MAX_BODIES_BYTES: Annotated[
        Bytes,
        "Bytes of all request bodies of one process together, from their"
        " arrival to the first content of the answer; past it 503.",
    ] = 268_435_456
    UPSTREAM_BUFFER_BYTES: Annotated[
        Bytes,
        "Bytes of large events and documents (beyond 64 KiB) that all"
        " streams of a worker may hold; past it a stream ends with an error.",
    ] = 268_435_456
    MAX_CONCURRENT_STREAMS: Annotated[
        Count, "Streams at a time; one more gets 503 at once."
    ] = 2000
    MAX_STREAMS_PER_CLIENT: Annotated[
        Count | None, "Streams of one client at a time; one more gets 429."
    ] = None
    # Bills
    RECONCILE_SECS: Annotated[
        float,
        number(86_400, least=0),
        "How long upstream is asked what a cut stream was billed; 0: not.",
    ] = 300
    LEDGER_FILE: Annotated[
        Annotated[Path, read_ledger] | None,
        "SQLite file with a row for each stream, shared by all workers of"
        " the host; its directory must be one that the server may write.",
    ] = None
    LEDGER_RETENTION_DAYS: Annotated[
        float, number(36_500), "Rows of the ledger are deleted after this."
    ] = 90
    # Sharing
    REDIS_URL: Annotated[
        RedisUrl | None,
        "Valkey or Redis that shares limits and streams between workers and"
        " hosts, `redis://` or `rediss://` (TLS); needs the extra `redis`.",
    ] = None
    REDIS_PREFIX: Annotated[
        str, matching(r"[A-Za-z0-9._:-]{1,64}"), "What all keys there begin with."
    ] = "trio-ai-stream"
    REDIS_TIMEOUT_SECS: Annotated[
        Seconds, "A decision waits for it no longer than this."
    ] = 0.25
    REDIS_LEASE_SECS: Annotated[
        float,
        number(3600, least=1),
        "A process that vanished gives its permits back after this.",
    ] = 15
    PEER_ADDRESS: Annotated[
        Annotated[tuple[str, int], read_peer] | None,
        "`host:port` of this host that the others with the same REDIS_URL"
        " reach, on a private network: there a reader that came to another host is"
        " handed its stream.",
    ] = None
    RATE_LIMIT_FALLBACK: Annotated[
        Literal["local", "open", "closed"],
        "Without it each process counts alone, or admits all, or refuses all that"
        " may begin a stream.",
    ] = "local"
    # Time
    READ_TIMEOUT_SECS: Annotated[
        Seconds,
        "Reading one request, head and body; each 8 KiB of a body that came"
        " put the end off by a second.",
    ] = 15
    WRITE_TIMEOUT_SECS: Annotated[
        Seconds, "One write without progress; then the connection is aborted."
    ] = 15
    IDLE_TIMEOUT_SECS: Annotated[
        Seconds, "An idle keep-alive connection is closed after this."
    ] = 60
    CONNECT_TIMEOUT_SECS: Annotated[
        Seconds, "Connecting to upstream: name, TCP and TLS."
    ] = 10
    FIRST_TOKEN_TIMEOUT_SECS: Annotated[
        Seconds, "From the request to the first content, retries included."
    ] = 180
    STREAM_IDLE_TIMEOUT_SECS: Annotated[
        Seconds, "Silence of upstream between two chunks."
    ] = 60
    DONE_GRACE_SECS: Annotated[
        float,
        number(60, least=0),
        "A whole answer waits this long for upstream's usage and `[DONE]`.",
    ] = 2
    STREAM_DEADLINE_SECS: Annotated[Seconds, "A whole stream."] = 1800
    HEARTBEAT_SECS: Annotated[
        Seconds, "A sign of life goes to the client after this much silence."
    ] = 15
    HEARTBEAT_EVENTS: Annotated[
        Switch,
        "It is an event, not a comment, for clients that count events only:"
        " an empty chunk on `/v1/chat/completions`, and `keepalive` also before"
        " `response.created` on `/v1/responses`.",
    ] = False
    UPSTREAM_ALIVE_SECS: Annotated[
        Seconds, "None goes out once upstream has been silent for longer than this."
    ] = 45
    DRAIN_TIMEOUT_SECS: Annotated[
        float,
        number(86_400, least=0),
        "Live streams may go on for this long after SIGTERM "
        "(Kubernetes kills at 30 s by default).",
    ] = 25
    WATCHDOG_TIMEOUT_SECS: Annotated[
        Seconds,
        "A worker whose loop has not turned for this long is killed and"
        " replaced (`serve` with several).",
    ] = 15
    # Resuming
    GRACE_MAX_SECS: Annotated[
        float,
        number(3600, least=0),
        "The longest `X-Stream-Grace` that a client gets: how long its"
        " stream goes on without a connection. 0 switches that off.",
    ] = 120
    GRACE_STREAM_BYTES: Annotated[
        Bytes,
        "Bytes of the last events that are kept for the reader of one such"
        " stream; while it is away, upstream is read no further than this.",
    ] = 1_048_576
    GRACE_TOTAL_BYTES: Annotated[
        Bytes,
        "The same for all streams of a process; past it no new stream gets a grace.",
    ] = 268_435_456
    # Retries
    RETRY_BUDGET_PERCENT: Annotated[
        float,
        number(100, least=0),
        "Retries upstream, as a share of the requests of one worker.",
    ] = 10
    RETRY_BUDGET_FLOOR: Annotated[
        int,
        whole(0, 100_000),
        "Retries that one worker may make besides in ten seconds.",
    ] = 10
    # Connections
    MAX_CONNECTIONS: Annotated[
        Count, "Open connections of one worker; one more gets 503."
    ] = 8192
    MAX_REQUESTS_PER_CONNECTION: Annotated[
        Count,
        "Then the connection is closed, so that clients spread over"
        " workers and replicas again.",
    ] = 1000
    MAX_HEADER_BYTES: Annotated[Count, "Request line and headers; past it 431."] = (
        16_384
    )
    MAX_READ_AHEAD_BYTES: Annotated[
        Count, "Pipelined bytes that are read during a response."
    ] = 65_536
    H2_MAX_STREAMS: Annotated[
        int, whole(1, 10_000), "Streams at a time on one HTTP/2 connection."
    ] = 128
    H2_MAX_RESETS: Annotated[
        Count,
        "Streams of one HTTP/2 connection reset in ten seconds, by either"
        " side (rapid reset); past it the connection is closed.",
    ] = 500
    H2_MAX_CONTROL_FRAMES: Annotated[
        Count,
        "HTTP/2 frames in ten seconds that carry neither request, data"
        " nor credit; past it the connection is closed.",
    ] = 5000
    H2_MAX_BUFFERED_BYTES: Annotated[
        Count, "What one HTTP/2 stream may hold for a client whose window is closed."
    ] = 262_144
    TLS_HANDSHAKE_TIMEOUT_SECS: Annotated[Seconds, "Accepting one TLS connection."] = 10

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
        named = (one.key.value for one in self.KEYS_FILE)
        keys = (*self.api_keys, *self.admin_keys, *named)
        if self.OPENROUTER_API_KEY is not None:
            keys += (self.OPENROUTER_API_KEY.value,)
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


def _plain(keys: tuple[Secret, ...]) -> tuple[str, ...]:
    return tuple(key.value for key in keys)


class Setting(NamedTuple):
    """What is known of one setting besides its value."""

    description: str
    read: Reader


def _settings() -> Iterator[tuple[str, Setting]]:
    hints = get_type_hints(Settings, include_extras=True)
    reader = readers(Settings)
    for one in fields(Settings):
        *_, description = hints[one.name].__metadata__
        yield one.name, Setting(description, reader[one.name])


SETTINGS: Final = dict(_settings())
"""All settings by their names, in the order in which they are shown."""
