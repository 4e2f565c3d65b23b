"""What the commands share: the servers they name, and how they end."""

from __future__ import annotations

import argparse
import json
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
        name, _, value = header.partition(":")
        headers[name.strip().lower()] = value.strip()
    url = urlsplit(arguments.url or PATH)
    return Adapter(
        name=arguments.name,
        title=arguments.name,
        argv=tuple(shlex.split(arguments.command)),
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
