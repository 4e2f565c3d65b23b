"""Kinds of values that settings have, and how each is read from text; pure.

A kind is `Annotated[type, reader]`. A reader takes the text and returns the value, or
raises ValueError with what was expected and what came; a secret is not in it.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TextIO,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import urlsplit

Reader = Callable[[str], object]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# An entry that starts so is the SHA-256 digest of a key, in hexadecimal digits.
DIGEST_PREFIX: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that neither `str` nor `repr` shows."""

    value: str = field(repr=False)


def readers(of: type) -> dict[str, Reader]:
    """Return the reader of each field of a dataclass, by its name."""
    hints = get_type_hints(of, include_extras=True)
    return {one.name: _reader(hints[one.name]) for one in dataclasses.fields(of)}


def _reader(kind: Any) -> Reader:
    """Return the reader of a kind, of `kind | None`, or of the words of a Literal."""
    while get_origin(kind) is Annotated:
        for one in kind.__metadata__:
            if callable(one):
                reader: Reader = one
                return reader
        kind = kind.__origin__
    if get_origin(kind) is Literal:
        return one_of(*get_args(kind))
    (kind,) = (one for one in get_args(kind) if one is not type(None))
    return _reader(kind)


def one_of(*words: str) -> Reader:
    """Return a reader of one of these words, in capitals or not."""

    def read(text: str) -> str:
        for word in words:
            if word.lower() == text.strip().lower():
                return word
        raise ValueError(f"expected one of {', '.join(words)}, got {text!r}")

    return read


def whole(least: int, most: int) -> Reader:
    """Return a reader of a whole number between two bounds, with both."""

    def read(text: str) -> int:
        try:
            value = float(text)
            if least <= value <= most and value.is_integer():
                return int(value)
        except ValueError:
            pass
        raise ValueError(
            f"expected a whole number from {least} to {most}, got {text!r}"
        )

    return read


def number(most: float, *, least: float | None = None) -> Reader:
    """Return a reader of a number up to `most`; without `least` it is more than 0."""
    bounds = "more than 0 and" if least is None else f"at least {least:g} and"

    def read(text: str) -> float:
        try:
            value = float(text)
            # What is no number at all compares as false.
            if (value > 0 if least is None else value >= least) and value <= most:
                return value
        except ValueError:
            pass
        raise ValueError(
            f"expected a number that is {bounds} at most {most:.16g}, got {text!r}"
        )

    return read


def matching(pattern: str) -> Reader:
    """Return a reader of a text that a pattern matches as a whole."""

    def read(text: str) -> str:
        if re.fullmatch(pattern, text):
            return text
        raise ValueError(f"expected a text that matches {pattern}, got {text!r}")

    return read


_YES: Final = {"1", "on", "t", "true", "y", "yes"}
_NO: Final = {"0", "off", "f", "false", "n", "no"}


def read_switch(text: str) -> bool:
    """Read 1 or 0, in the usual words."""
    word = text.strip().lower()
    if word not in _YES | _NO:
        raise ValueError(f"expected 1 or 0, got {text!r}")
    return word in _YES


def read_words(text: str) -> tuple[str, ...]:
    """Read words that commas separate."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


# What other hosts take for a host's name or address.
PEER_HOST: Final = re.compile(r"[A-Za-z0-9.:_-]{1,253}")


def read_bind(value: str) -> tuple[str, int]:
    """Read `8080`, the original Go server's `:8080`, or `host:port`."""
    text = value.strip()
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"expected 8080, :8080 or host:8080, got {text!r}")
    return (bare, int(port))


def read_peer(value: str) -> tuple[str, int]:
    """Read the `host:port` that other hosts are told; it is listened on as well."""
    bind = host, port = read_bind(value)
    everywhere = host in {"", "0.0.0.0", "::"}  # noqa: S104 - refused
    if everywhere or not port or not PEER_HOST.fullmatch(host):
        raise ValueError(
            f"expected an address that other hosts can connect to, with its port, as"
            f" 10.1.2.3:8081, got {value!r}"
        )
    return bind


def read_origins(text: str) -> tuple[str, ...]:
    """Read origins, each of them `*` or a scheme and a host without a path."""
    origins = read_words(text)
    for origin in origins:
        scheme, separator, rest = origin.partition("://")
        ok = separator and scheme in {"http", "https"} and rest and "/" not in rest
        if origin != "*" and not ok:
            raise ValueError(f"expected * or scheme://host[:port], got {origin!r}")
    return origins


def read_base_url(value: str) -> str:
    """Read a URL by HTTP to which paths are added; a slash at the end is taken off."""
    if not value.startswith(("https://", "http://")):
        raise ValueError("expected a URL that starts with https:// or http://")
    try:
        parts = urlsplit(value)
        port = parts.port  # reading it checks it
    except ValueError:
        parts, port = None, None
    # Of a larger port the system takes the lower 16 bits: the key would go there.
    if parts is None or not parts.hostname or port == 0:
        raise ValueError("expected a URL with a host and, if any, a port of 1 to 65535")
    # A path would become part of the query, and a login would not be sent at all.
    unfit = set("?# ") & set(value) or not value.isprintable()
    if unfit or parts.username is not None:
        raise ValueError(
            "expected a URL without user, query, fragment and spaces, got one with such"
            " a part"
        )
    return value.rstrip("/")


def read_header(value: str) -> str:
    """Read what can be the value of an HTTP header."""
    if not value.isascii() or not value.isprintable():
        raise ValueError("expected printable ASCII (it becomes an HTTP header)")
    return value


def read_upstream_key(value: str) -> Secret:
    """Read a key that is sent as a Bearer token; the file it was in may end a line."""
    if not re.fullmatch("[!-~]+", key := value.strip()):
        raise ValueError(
            "expected printable ASCII characters without spaces, got others"
        )
    return Secret(key)


_REDIS_URL: Final = "expected redis://[:password@]host[:port][/db], or rediss://"


def read_redis_url(text: str) -> Secret:
    """Read a URL with scheme, host, port and database; it may hold a password.

    One server: a list of hosts is for a cluster or sentinels, which are not used.
    """
    try:
        parts = urlsplit(text)
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
    return Secret(text)


def read_keys(text: str) -> tuple[Secret, ...]:
    """Read keys that commas separate."""
    return _keys(read_words(text))


def _keys(keys: tuple[str, ...]) -> tuple[Secret, ...]:
    """Check that each key can be sent as a Bearer token, or is a SHA-256 digest."""
    for position, key in enumerate(keys, 1):
        if key.startswith(DIGEST_PREFIX):
            if not re.fullmatch("[0-9a-fA-F]{64}", key.removeprefix(DIGEST_PREFIX)):
                raise ValueError(
                    f"expected 64 hexadecimal digits after {DIGEST_PREFIX},"
                    f" got something else (key {position})"
                )
        elif not re.fullmatch("[!-~]{8,512}", key):
            raise ValueError(
                "expected keys of 8 to 512 printable ASCII characters without spaces,"
                f" got another (key {position})"
            )
    return tuple(map(Secret, keys))


def read_key_file(value: str) -> tuple[Secret, ...]:
    """Read a file of keys, one a line; blank lines and `#` comments do not count."""
    lines = [line.strip() for line in _text_of(value).splitlines()]
    return _keys(tuple(line for line in lines if line and not line.startswith("#")))


def read_path(value: str) -> Path:
    """Read the path of a file that need not be there."""
    if "\0" in value:
        raise ValueError("expected the path of a file, got one with a null byte")
    return Path(value)


def read_absolute_path(value: str) -> Path:
    """Read the path of a file, from the root."""
    return read_path(value).absolute()


def read_file(value: str) -> Path:
    """Read the path of a file that can be read; what is in it is not looked at."""
    _opened(value).close()
    return read_path(value)


def _text_of(value: str) -> str:
    """Return what is in a text file; some editors begin one with a byte order mark."""
    try:
        with _opened(value) as file:
            return file.read().removeprefix("\ufeff")
    except UnicodeDecodeError as exc:
        expected = f"expected a text file (UTF-8), got {value}: {exc.reason}"
        raise ValueError(expected) from exc
    except OSError as exc:
        raise ValueError(_unreadable(value, str(exc.strerror))) from exc


def _opened(value: str) -> TextIO:
    """Open a regular file.

    The start would wait for whoever writes into a pipe, and a reload would find it
    empty; a device may have no end.
    """
    path = read_path(value)
    try:
        file = open(path, encoding="utf-8", opener=_not_waiting)  # noqa: SIM115
    except OSError as exc:
        raise ValueError(_unreadable(value, str(exc.strerror))) from exc
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise ValueError(_unreadable(value, "a pipe or a device; name a regular file"))


def _not_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _unreadable(value: str, why: str) -> str:
    return f"expected a file that can be read, got {read_path(value)}: {why}"


def read_ledger(value: str) -> Path:
    """Read the path of a file that can be made or written, and its journal beside."""
    path = read_absolute_path(value)
    try:
        fits = os.access(path.parent, os.W_OK | os.X_OK)
        if path.exists():
            fits = fits and path.is_file() and os.access(path, os.R_OK | os.W_OK)
    except OSError:  # a name too long, for one
        fits = False
    if not fits:
        raise ValueError(
            "expected a file that can be written, in a directory that can be,"
            f" got {value[:200]}"
        )
    return path


def read_networks(value: str) -> tuple[Network, ...]:
    """Read addresses and networks that commas separate."""
    return tuple(map(_network, read_words(value)))


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


Switch = Annotated[bool, read_switch]
Seconds = Annotated[float, number(86_400)]
Count = Annotated[int, whole(1, 10_000_000)]
Bytes = Annotated[int, whole(1, 2**40)]
PathOf = Annotated[Path, read_path]
Address = Annotated[tuple[str, int], read_bind]
RedisUrl = Annotated[Secret, read_redis_url]
Header = Annotated[str, read_header]
Networks = Annotated[tuple[Network, ...], read_networks]
Keys = Annotated[tuple[Secret, ...], read_keys]
File = Annotated[Path, read_file]
KeyFile = Annotated[tuple[Secret, ...], read_key_file]


def _read_key(text: str) -> Secret:
    return _keys((text,))[0]


@dataclass(frozen=True)
class NamedKey:
    """One `[[key]]` of the file; a limit that is left out is the server's own.

    `end_streams`: live streams end when the budget is spent, not only new ones.
    """

    name: Annotated[str, matching("[A-Za-z0-9._-]{1,64}")]
    key: Annotated[Secret, _read_key]
    requests_per_second: Annotated[float, number(1e6)] | None = None
    streams: Count | None = None
    usd_per_day: Annotated[float, number(1e6)] | None = None
    usd_per_month: Annotated[float, number(1e6)] | None = None
    end_streams: Switch = False

    def __str__(self) -> str:
        return self.name

    @property
    def has_budget(self) -> bool:
        """Whether what it spends is limited."""
        return self.usd_per_day is not None or self.usd_per_month is not None


_OF_A_KEY: Final = readers(NamedKey)


def read_named_keys(value: str) -> tuple[NamedKey, ...]:
    """Read a TOML file of `[[key]]` tables; what is wrong is named by its number."""
    path, text = read_path(value), _text_of(value)
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        # The decoder's words quote no value, but for a single character.
        raise ValueError(f"expected TOML in {path}, got {exc}") from exc
    tables = document.get("key")
    if set(document) != {"key"} or not isinstance(tables, list):
        raise ValueError(f"expected [[key]] tables and nothing else in {path}")
    keys = tuple(_named_key(*one) for one in enumerate(tables, 1))
    limits: dict[str, NamedKey] = {}
    for position, one in enumerate(keys, 1):
        own = dataclasses.replace(one, key=Secret(""))
        if limits.setdefault(one.name, own) != own:
            raise ValueError(
                f"expected the same limits wherever the name is {one.name}, got others"
                f" (key {position})"
            )
    return keys


def _named_key(position: int, table: object) -> NamedKey:
    """Read one table; no value of it is in an error, for it may be a secret."""
    if not isinstance(table, dict):
        expected = f"key {position}: expected a [[key]] table, got a value"
        raise ValueError(expected)  # noqa: TRY004 - as all that a reader refuses
    read: dict[str, Any] = {}
    for name, value in table.items():
        if name not in _OF_A_KEY:
            raise ValueError(
                f"key {position}: {name}: expected no more than"
                f" {', '.join(_OF_A_KEY)}, got another name"
            )
        try:
            read[name] = _OF_A_KEY[name](_text(name, value))
        except ValueError as exc:
            expected = str(exc).partition(", got ")[0]
            raise ValueError(f"key {position}: {name}: {expected}") from None
    for name in ("name", "key"):
        if name not in read:
            raise ValueError(f"key {position}: {name}: expected a value, got none")
    return NamedKey(**read)


def _text(name: str, value: object) -> str:
    """Return a value of TOML as the text that its reader expects."""
    if name in {"name", "key"} and not isinstance(value, str):
        raise ValueError("expected a text in quotes")
    if not isinstance(value, bool | int | float | str):
        raise ValueError("expected a number, true or false")  # noqa: TRY004 - as above
    return str(value)
