"""One frozen `Settings` from the environment and `.env`.

Each field is declared once, with its name in the environment, its default, its bounds
and its line of documentation; `.env.example` and the README's table are made from here
(`python -m scripts.docs`), and a test holds the three together.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(ValueError):
    """Some settings are bad; `problems` has one line for each, by name."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("bad settings:\n" + "\n".join(f"  {p}" for p in problems))
        self.problems = problems


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _bind(value: object) -> object:
    """Read `8080`, the seed's `:8080`, or `host:port`."""
    text = str(value).strip()
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"expected 8080, :8080 or host:8080, got {text!r}")
    return (bare, int(port))


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        scheme, separator, rest = origin.partition("://")
        ok = separator and scheme in {"http", "https"} and rest and "/" not in rest
        if origin != "*" and not ok:
            raise ValueError(f"expected * or scheme://host[:port], got {origin!r}")
    return value


def _base_url(value: str) -> str:
    if not value.startswith(("https://", "http://")):
        raise ValueError("expected a URL that starts with https:// or http://")
    return value.rstrip("/")


def _printable(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError("expected printable ASCII (it becomes an HTTP header)")
    return value


Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Header = Annotated[str, AfterValidator(_printable)]


class Settings(BaseModel):
    """The effective settings of one process; frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Upstream
    OPENROUTER_API_KEY: SecretStr | None = Field(
        None,
        description="Key for OpenRouter. Without one the embedded simulator answers.",
    )
    OPENROUTER_BASE_URL: Annotated[str, AfterValidator(_base_url)] = Field(
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
    PORT: Annotated[tuple[str, int], BeforeValidator(_bind)] = Field(
        ("", 8080),
        description="`8080`, `:8080` (the seed's form) or `host:port`, whose"
        " host wins.",
    )
    WORKERS: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Worker processes of `serve`."
    )
    TLS_CERT_FILE: Path | None = Field(
        None, description="Certificate (PEM) of `serve`; turns on TLS and h2 by ALPN."
    )
    TLS_KEY_FILE: Path | None = Field(
        None, description="Private key (PEM) of TLS_CERT_FILE."
    )
    # Limits
    RATE_LIMIT: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = Field(
        10, description="Requests a second and client (token bucket, burst the same)."
    )
    MAX_PROMPT_LENGTH: Count = Field(
        4000, description="Characters over all contents of one request."
    )
    MAX_BODY_BYTES: Count = Field(
        1_048_576, description="Bytes of one request body; reading stops there."
    )
    MAX_CONCURRENT_STREAMS: Count = Field(
        2000, description="Streams at a time; one more gets 503 at once."
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
    STREAM_DEADLINE_SECS: Seconds = Field(1800, description="A whole stream.")
    HEARTBEAT_SECS: Seconds = Field(
        15, description="A comment goes to the client after this much silence."
    )
    DRAIN_TIMEOUT_SECS: Annotated[float, Field(ge=0, le=86_400)] = Field(
        25,
        description="Live streams may go on for this long after SIGTERM "
        "(Kubernetes kills at 30 s by default).",
    )
    # Trust
    CORS_ALLOW_ORIGINS: Annotated[Words, AfterValidator(_origins)] = Field(
        (), description="Origins allowed by CORS, comma-separated, or `*`."
    )
    TRUSTED_PROXIES: Annotated[tuple[Network, ...], BeforeValidator(_split)] = Field(
        (),
        description="Addresses or networks whose `X-Forwarded-For` is believed.",
    )
    # Telemetry
    LOG_LEVEL: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"],
        BeforeValidator(lambda value: str(value).upper()),
    ] = Field("INFO", description="Least level that is logged.")
    LOG_FORMAT: Literal["auto", "text", "json"] = Field(
        "auto", description="`auto` is coloured text on a terminal, else JSON lines."
    )

    @property
    def upstream_kind(self) -> Literal["openrouter", "simulator"]:
        """Which upstream answers: the one asked for, or what `auto` comes to."""
        if self.UPSTREAM == "auto":
            return "openrouter" if self.OPENROUTER_API_KEY else "simulator"
        return self.UPSTREAM

    @property
    def bind(self) -> tuple[str, int]:
        """Host and port of `serve`; a host in PORT wins over HOST."""
        host, port = self.PORT
        return (host or self.HOST, port)

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if self.UPSTREAM == "openrouter" and self.OPENROUTER_API_KEY is None:
            raise ValueError(
                "OPENROUTER_API_KEY: expected a key because UPSTREAM=openrouter,"
                " got none; set it, or UPSTREAM=simulator"
            )
        if (self.TLS_CERT_FILE is None) != (self.TLS_KEY_FILE is None):
            raise ValueError(
                "TLS_CERT_FILE: expected together with TLS_KEY_FILE, got only one"
            )
        return self


def load_settings(
    environ: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")
) -> Settings:
    """Read the settings; the environment wins over the file, empty means unset.

    :raises SettingsError: naming every bad value at once.
    """
    environ = os.environ if environ is None else environ
    names = Settings.model_fields
    problems: list[str] = []
    values: dict[str, str] = {}
    if env_file is not None and env_file.is_file():
        for name, value in dotenv_values(env_file).items():
            if name in names:
                values[name] = value or ""
            elif near := difflib.get_close_matches(name, names, n=1, cutoff=0.8):
                problems.append(
                    f"{name}: no such setting in {env_file.name};"
                    f" did you mean {near[0]}?"
                )
    values.update({name: environ[name] for name in names if name in environ})
    try:
        settings = Settings.model_validate(
            {k: v for k, v in values.items() if v.strip()}
        )
    except ValidationError as exc:
        problems += [_problem(dict(error), values) for error in exc.errors()]
        raise SettingsError(problems) from exc
    if problems:
        raise SettingsError(problems)
    return settings


def _problem(error: dict[str, Any], values: Mapping[str, str]) -> str:
    """Say what was expected and what came; a secret's value is never shown."""
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    if message.startswith("expected"):
        return f"{name}: {message}"
    shown = "(hidden)" if "KEY" in name else repr(values.get(name, ""))
    expected = message.replace("Input should be", "expected").replace(
        "unable to parse string as a number", "as a number"
    )
    return f"{name}: {expected}, got {shown}"


def describe(settings: Settings) -> dict[str, str]:
    """Return the effective values as text, by name, with secrets masked."""
    return {name: _shown(getattr(settings, name)) for name in Settings.model_fields}


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case SecretStr():
            return "(set)"
        case (str(host), int(port)):
            return f"{host}:{port}" if host else str(port)
        case tuple():
            return ",".join(str(part) for part in value)
        case float() if value == int(value):
            return str(int(value))
        case _:
            return str(value)
