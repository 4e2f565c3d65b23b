"""One frozen `Settings`.

Each field is declared once, with its name in the environment, its default, its bounds
and its line of documentation; `.env.example` and the README's table are made from here
(`python -m scripts.docs`), and a test holds the three together.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    model_validator,
)

from trio_ai_stream.settings.bounds import Bounds
from trio_ai_stream.settings.together import broken_rules
from trio_ai_stream.settings.values import (
    DIGEST_PREFIX,
    File,
    Header,
    KeyFile,
    Keys,
    Networks,
    Words,
    check_base_url,
    check_origins,
    read_bind,
)


class Settings(Bounds):
    """The effective settings of one process; frozen."""

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
        description="`8080`, `:8080` (the seed's form) or `host:port`, whose"
        " host wins.",
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
        keys = (*self.api_keys, *self.admin_keys)
        if self.OPENROUTER_API_KEY is not None:
            keys += (self.OPENROUTER_API_KEY.get_secret_value(),)
        return tuple(key for key in keys if not key.startswith(DIGEST_PREFIX))

    @cached_property
    def keys_required(self) -> bool:
        """Whether a request needs a key."""
        return bool(self.api_keys or self.admin_keys) and not self.ALLOW_ANONYMOUS

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

    @model_validator(mode="after")
    def _together(self, info: ValidationInfo) -> Settings:
        unknown = (info.context or {}).get("unknown", ())
        if problems := broken_rules(self, unknown=unknown):
            raise ValueError("\n".join(problems))
        return self


def _plain(keys: tuple[SecretStr, ...]) -> tuple[str, ...]:
    return tuple(key.get_secret_value() for key in keys)
