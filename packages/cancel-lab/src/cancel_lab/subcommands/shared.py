"""What the commands share: the servers they name, and how they end."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cancel_lab.adapters.adapter import Adapter
from cancel_lab.adapters.catalogue import ADAPTERS

PATH = "/chat"
Subparsers = Any  # argparse keeps the type of a sub-command list to itself


class UsageError(ValueError):
    """The arguments do not make sense together; the text says what would."""


def seconds(text: str) -> float:
    """Read a duration of the command line, which must be above 0."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)) and value > 0:
            return value
    raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")


def count(text: str) -> int:
    """Read a number of the command line, of which there must be one at least."""
    with contextlib.suppress(ValueError):
        if (value := int(text)) > 0:
            return value
    raise argparse.ArgumentTypeError(f"expected 1 or more, got {text!r}")


def port(text: str) -> int:
    """Read a port of the command line."""
    with contextlib.suppress(ValueError):
        if 0 < (value := int(text)) < 65_536:
            return value
    raise argparse.ArgumentTypeError(f"expected a port of 1 to 65535, got {text!r}")


def words_of(command: str) -> list[str]:
    """Split what `--command` was given, as a shell does."""
    try:
        words = shlex.split(command)
    except ValueError as exc:
        raise UsageError(f"--command: expected quotes in pairs, got {exc}") from exc
    if not words:
        raise UsageError(f"--command: expected a program, got {command!r}")
    return words


def adapters_of(arguments: argparse.Namespace) -> list[Adapter]:
    """Return the servers that the command line asks for."""
    names = list(arguments.adapter)
    if "all" in names:
        names = list(ADAPTERS)
    unknown = [name for name in names if name not in ADAPTERS]
    if unknown:
        known = ", ".join(ADAPTERS)
        raise UsageError(f"--adapter {unknown[0]}: expected one of {known}, or all")
    found = [ADAPTERS[name] for name in names]
    if arguments.command:
        found.append(_custom(arguments))
    if not found:
        raise UsageError("expected --adapter NAME or --command …, got neither")
    return found


def _custom(arguments: argparse.Namespace) -> Adapter:
    try:
        json.loads(arguments.body)
    except ValueError as exc:
        raise UsageError(f"--body: expected JSON, got {exc}") from exc
    headers = {"content-type": "application/json"}
    for header in arguments.header:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            # What came is not repeated: it may hold a key.
            raise UsageError("--header: expected NAME:VALUE, got no name or no colon")
        headers[name.strip().lower()] = value.strip()
    url = urlsplit(arguments.url or PATH)
    return Adapter(
        name=arguments.name,
        title=arguments.name,
        argv=tuple(words_of(arguments.command)),
        env=dict.fromkeys(arguments.upstream_env, "{upstream}"),
        path=url.path + (f"?{url.query}" if url.query else ""),
        body=arguments.body,
        headers=headers,
        port=arguments.port,
    )


def finished(text: str, folder: Path, *, bad: int) -> int:
    """Print the tables and where the rest is; return the exit status."""
    print(f"{text}\n\nresults, plots and report.html are in {folder}")
    if bad:
        print(f"{bad} runs violated an invariant or failed", file=sys.stderr)
    return 1 if bad else 0
