"""Reading the settings from the environment and `.env`, once or again; showing them."""

from __future__ import annotations

import difflib
import io
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from trio_ai_stream.settings.cross_field import broken_rules
from trio_ai_stream.settings.model import SETTINGS, Settings
from trio_ai_stream.settings.values import (
    Reader,
    Secret,
    read_absolute_path,
    read_path,
)

KEYS: Final = frozenset(
    {"ADMIN_KEYS", "ADMIN_KEYS_FILE", "API_KEYS", "API_KEYS_FILE", "KEYS_FILE"}
)
RELOADED: Final = KEYS | {
    "H2_MAX_BUFFERED_BYTES",
    "H2_MAX_CONTROL_FRAMES",
    "H2_MAX_RESETS",
    "H2_MAX_STREAMS",
    "MAX_BODIES_BYTES",
    "MAX_BODY_BYTES",
    "MAX_CONCURRENT_STREAMS",
    "MAX_CONNECTIONS",
    "MAX_HEADER_BYTES",
    "MAX_MESSAGES_LENGTH",
    "MAX_PROMPT_LENGTH",
    "MAX_READ_AHEAD_BYTES",
    "MAX_REQUESTS_PER_CONNECTION",
    "MAX_STREAMS_PER_CLIENT",
    "RATE_LIMIT",
    "TRUSTED_PROXIES",
}
"""The settings that SIGHUP reads again; the others need a restart."""


CERTIFICATE: Final = {"TLS_CERT_FILE", "TLS_KEY_FILE"}
# Files that are opened where they are used, by what only reads their paths.
_OPENED_ONCE: Final[dict[str, Reader]] = {
    **dict.fromkeys(CERTIFICATE, read_path),
    "LEDGER_FILE": read_absolute_path,
}


def reloaded(old: Settings, new: Settings) -> tuple[Settings, set[str], set[str]]:
    """Return the settings from now on, and the names of what changed in them.

    `new` was loaded again. The last are the names of those that changed and keep their
    old value until a restart.

    :raises SettingsError: with those old values the new ones cannot be.
    """
    changed = {name for name in SETTINGS if getattr(old, name) != getattr(new, name)}
    fixed = changed - RELOADED
    if old.keys_required != new.keys_required:
        fixed |= changed & KEYS  # the page and the documents were made for the other
    changed -= fixed
    settings = replace(old, **{name: getattr(new, name) for name in changed})
    # The certificate is read by itself: what is wrong with it does not hold up keys.
    if broken := broken_rules(settings, unknown=CERTIFICATE):
        kept = f"a restart is needed for {', '.join(sorted(fixed))}"
        raise SettingsError([*broken, kept] if fixed else broken)
    return settings, changed, fixed


class SettingsError(ValueError):
    """Some settings are bad; `problems` has one line for each, by name."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("bad settings:\n" + "\n".join(f"  {p}" for p in problems))
        self.problems = problems


def load_settings(
    environ: Mapping[str, str] | None = None,
    env_file: Path | None = Path(".env"),
    *,
    unopened: bool = False,
) -> Settings:
    """Read the settings; the environment wins over the file, empty means unset.

    :param unopened: leave the files of `_OPENED_ONCE` alone: what has become of a
        certificate or a disk holds up neither a reload of keys nor a look at the bills.
    :raises SettingsError: naming every bad value at once.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    values: dict[str, str] = {}
    if env_file is not None:
        found, wrong = _read_env_file(env_file)
        problems += wrong
        for name, value in found.items():
            if name in SETTINGS:
                values[name] = value or ""
            elif near := difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.8):
                problems.append(
                    f"{name}: no such setting in {env_file.name};"
                    f" did you mean {near[0]}?"
                )
    values.update({name: environ[name] for name in SETTINGS if name in environ})
    settings, bad = _validate(
        {k: v for k, v in values.items() if v.strip()},
        _OPENED_ONCE if unopened else {},
    )
    if settings is None or problems:
        raise SettingsError(problems + bad)
    return settings


def foreign_names(env_file: Path = Path(".env")) -> list[str]:
    """Return the names in the file that are no settings of this server.

    Another program may read the file too, so they are no mistake; one that was a
    setting of another version is.
    """
    return [name for name in _read_env_file(env_file)[0] if name not in SETTINGS]


def _read_env_file(path: Path) -> tuple[dict[str, str | None], list[str]]:
    """Return the file's values, and what is wrong with it; a line is never shown.

    There need not be one.
    """
    try:
        if path.is_fifo():  # a start would wait for its writer, and each reload, too
            return {}, [f"{path}: expected a regular file, got a pipe"]
        if not path.is_file():
            return {}, []
        data = path.read_bytes()
    except OSError as exc:
        return {}, [f"{path}: expected a file that can be read: {exc.strerror}"]
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        came = f"byte {data[exc.start]:#04x} in line {line}"
        return {}, [f"{path}: expected text in UTF-8, got {came}"]
    wrong, right = [], []
    for binding in parse_stream(io.StringIO(text)):
        lines = binding.original.string
        # A name alone is for other readers of the file; ours need a value.
        alone = binding.value is None and binding.key in SETTINGS
        if binding.error or alone:
            blank = len(lines) - len(lines.lstrip())
            line = binding.original.line + lines.count("\n", 0, blank)
            wrong.append(
                f"{path}: line {line}: expected NAME=value, got something else"
            )
        else:
            right.append(lines)
    return dotenv_values(stream=io.StringIO("".join(right))), wrong


def _validate(
    values: Mapping[str, str], unopened: Mapping[str, Reader]
) -> tuple[Settings | None, list[str]]:
    """Return the settings, or what is wrong with them.

    Values that are wrong by themselves are taken out, and what several settings must be
    together is looked at without them. `unopened` has other readers.
    """
    read: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        if name in values:
            try:
                read[name] = unopened.get(name, setting.read)(values[name])
            except ValueError as exc:
                wrong[name] = f"{name}: {exc}"
    settings = Settings(**read)
    unknown = wrong.keys() | (unopened.keys() & CERTIFICATE)
    found = [*wrong.values(), *broken_rules(settings, unknown=unknown)]
    return (None if found else settings), found


def refuse_exposure(settings: Settings, handed: Sequence[str] | None = None) -> None:
    """Refuse to listen where strangers can connect, if anybody would be served.

    :param handed: the addresses of sockets that were handed over, instead of HOST.
    :raises SettingsError: neither API_KEYS nor ALLOW_ANONYMOUS is set, and the address
        to listen on is not this machine's loopback.
    """
    name = "HOST" if handed is None else "LISTEN_FDS"
    hosts = [settings.bind[0]] if handed is None else handed
    for host in hosts:
        if not settings.loopback_only or _is_loopback(host):
            continue
        raise SettingsError(
            [
                f"{name}: expected 127.0.0.1, ::1 or localhost because there are no"
                f" API_KEYS, got {host}; set API_KEYS, or ALLOW_ANONYMOUS=1 to serve"
                " anybody who can connect"
            ]
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def describe(settings: Settings) -> dict[str, str]:
    """Return the effective values as text, by name, with secrets masked."""
    return {name: _shown(getattr(settings, name)) for name in SETTINGS}


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case Secret():
            return "(set)"
        case (str(host), int(port)):
            return f"{host}:{port}" if host else str(port)
        case (Secret(), *_):
            return f"({len(value)} set)"
        case tuple():
            return ",".join(str(part) for part in value)
        case float() if value == int(value):
            return str(int(value))
        case _:
            return str(value)
