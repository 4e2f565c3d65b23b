"""Kinds of values that settings have, and how each is read from text; pure."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
)
from pydantic import ValidationError as InvalidError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# An entry that starts so is the SHA-256 digest of a key, in hexadecimal digits.
DIGEST_PREFIX: Final = "sha256:"


def split_words(value: object) -> object:
    """Read words that commas separate."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


# What other hosts take for a host's name or address.
PEER_HOST: Final = re.compile(r"[A-Za-z0-9.:_-]{1,253}")


def read_bind(value: object) -> object:
    """Read `8080`, the original Go server's `:8080`, or `host:port`."""
    text = str(value).strip()
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"expected 8080, :8080 or host:8080, got {text!r}")
    return (bare, int(port))


def read_peer(value: object) -> object:
    """Read the `host:port` that other hosts are told; it is listened on as well."""
    bind = read_bind(value)
    assert isinstance(bind, tuple)
    host, port = bind
    everywhere = host in {"", "0.0.0.0", "::"}  # noqa: S104 - refused
    if everywhere or not port or not PEER_HOST.fullmatch(host):
        raise ValueError(
            f"expected an address that other hosts can connect to, with its port, as"
            f" 10.1.2.3:8081, got {value!r}"
        )
    return bind


def check_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that each origin is `*` or has a scheme and a host, and no path."""
    for origin in value:
        scheme, separator, rest = origin.partition("://")
        ok = separator and scheme in {"http", "https"} and rest and "/" not in rest
        if origin != "*" and not ok:
            raise ValueError(f"expected * or scheme://host[:port], got {origin!r}")
    return value


def check_base_url(value: str) -> str:
    """Check the scheme; take a slash off the end."""
    if not value.startswith(("https://", "http://")):
        raise ValueError("expected a URL that starts with https:// or http://")
    return value.rstrip("/")


def check_printable(value: str) -> str:
    """Check that a value can be the value of an HTTP header."""
    if not value.isascii() or not value.isprintable():
        raise ValueError("expected printable ASCII (it becomes an HTTP header)")
    return value


_REDIS_URL: Final = "expected redis://[:password@]host[:port][/db], or rediss://"


def check_redis_url(value: SecretStr) -> SecretStr:
    """Check scheme, host, port and database; the value, a secret, is not shown.

    One server: a list of hosts is for a cluster or sentinels, which are not used.
    """
    try:
        parts = urlsplit(value.get_secret_value())
    except ValueError:
        raise ValueError(f"{_REDIS_URL}, got something else") from None
    if parts.scheme not in {"redis", "rediss"}:
        raise ValueError(f"{_REDIS_URL}, got another scheme")
    place = parts.netloc.rpartition("@")[2]
    if "," in place:
        raise ValueError(f"{_REDIS_URL}, got several hosts; name one server")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{_REDIS_URL}, got a port that is not 1 to 65535") from None
    if not host or not re.fullmatch(r"[A-Za-z0-9._:%-]+", host):
        raise ValueError(f"{_REDIS_URL}, got no host, or one that is no name")
    if port == 0 or place.endswith(":"):
        raise ValueError(f"{_REDIS_URL}, got a port that is not 1 to 65535")
    known = re.fullmatch(r"(/[0-9]{0,5})?", parts.path) and not parts.fragment
    if not known or not re.fullmatch(r"(db=[0-9]{1,5})?", parts.query):
        raise ValueError(f"{_REDIS_URL}, got something else after the port")
    return value


def check_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Check that each key can be sent as a Bearer token, or is a SHA-256 digest."""
    for number, secret in enumerate(keys, 1):
        key = secret.get_secret_value()
        if key.startswith(DIGEST_PREFIX):
            if not re.fullmatch("[0-9a-fA-F]{64}", key.removeprefix(DIGEST_PREFIX)):
                raise ValueError(
                    f"expected 64 hexadecimal digits after {DIGEST_PREFIX},"
                    f" got something else (key {number})"
                )
        elif not re.fullmatch("[!-~]{8,512}", key):
            raise ValueError(
                "expected keys of 8 to 512 printable ASCII characters without spaces,"
                f" got another (key {number})"
            )
    return keys


def read_key_file(value: object) -> object:
    """Read a file of keys, one a line; blank lines and `#` comments do not count."""
    if not isinstance(value, str | Path):
        return value
    path = Path(value)
    try:
        text = check_file(path).read_text("utf-8")
    except UnicodeDecodeError as exc:
        raise ValueError(
            f"expected a text file (UTF-8), got {path}: {exc.reason}"
        ) from exc
    lines = [line.strip() for line in text.splitlines()]
    return tuple(line for line in lines if line and not line.startswith("#"))


def check_file(value: Path) -> Path:
    """Check that a file is there and can be read; what is in it is not looked at."""
    try:
        value.open("rb").close()
    except OSError as exc:
        raise ValueError(
            f"expected a file that can be read, got {value}: {exc.strerror}"
        ) from exc
    return value


def check_ledger(value: Path) -> Path:
    """Check that a file can be made or written there; its journal lies beside it."""
    folder = value.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK) or value.is_dir():
        raise ValueError(
            f"expected a file in a directory that can be written, got {value}"
        )
    return value.absolute()


def read_networks(value: object) -> object:
    """Read addresses and networks that commas separate."""
    words = split_words(value)
    if not isinstance(words, tuple):
        return words
    return tuple(_network(word) if isinstance(word, str) else word for word in words)


def _network(word: str) -> Network:
    try:
        return ipaddress.ip_network(word)
    except ValueError as exc:
        try:
            advice = f"did you mean {ipaddress.ip_network(word, strict=False)}?"
        except ValueError:
            advice = "write an address, names are not looked up"
        raise ValueError(
            "expected addresses or networks, as 10.1.2.3 or 10.0.0.0/8 or fd00::/8,"
            f" comma-separated, got {word!r}; {advice}"
        ) from exc


Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Bytes = Annotated[int, Field(ge=1, le=2**40)]
RedisUrl = Annotated[SecretStr, AfterValidator(check_redis_url)]
Words = Annotated[tuple[str, ...], BeforeValidator(split_words)]
Header = Annotated[str, AfterValidator(check_printable)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(read_networks)]
Keys = Annotated[
    tuple[SecretStr, ...], BeforeValidator(split_words), AfterValidator(check_keys)
]
File = Annotated[Path, AfterValidator(check_file)]
KeyFile = Annotated[
    tuple[SecretStr, ...], BeforeValidator(read_key_file), AfterValidator(check_keys)
]


_Usd = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


def _check_key(key: SecretStr) -> SecretStr:
    return check_keys((key,))[0]


class NamedKey(BaseModel):
    """One `[[key]]` of the file; a limit that is left out is the server's own.

    `end_streams`: live streams end when the budget is spent, not only new ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    key: Annotated[SecretStr, AfterValidator(_check_key)]
    requests_per_second: Annotated[float, Field(gt=0, le=1e6)] | None = None
    streams: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    usd_per_day: _Usd | None = None
    usd_per_month: _Usd | None = None
    end_streams: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def has_budget(self) -> bool:
        """Whether what it spends is limited."""
        return self.usd_per_day is not None or self.usd_per_month is not None


def read_named_keys(value: object) -> object:
    """Read a TOML file of `[[key]]` tables; what is wrong is named by its number."""
    if not isinstance(value, str | Path):
        return value
    path = check_file(Path(value))
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        # The decoder's words quote no value, but for a single character.
        raise ValueError(f"expected TOML in {path}, got {exc}") from exc
    tables = document.get("key")
    if set(document) != {"key"} or not isinstance(tables, list):
        raise ValueError(f"expected [[key]] tables and nothing else in {path}")
    keys = tuple(_named_key(number, table) for number, table in enumerate(tables, 1))
    limits: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(keys, 1):
        own = one.model_dump(exclude={"key"})
        if limits.setdefault(one.name, own) != own:
            raise ValueError(
                f"expected the same limits wherever the name is {one.name}, got others"
                f" (key {number})"
            )
    return keys


def _named_key(number: int, table: object) -> NamedKey:
    try:
        return NamedKey.model_validate(table)
    except InvalidError as exc:
        error = exc.errors()[0]
        field = ".".join(map(str, error["loc"]))
        message = str(error["msg"]).removeprefix("Value error, ")
        raise ValueError(f"key {number}: {field}: {message}") from exc
