"""``burst``: many clients gone at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from cancel_lab.adapters.catalogue import OURS
from cancel_lab.bursts import SIZES, bursts
from cancel_lab.session import conduct, new_folder
from cancel_lab.subcommands.shared import (
    Subparsers,
    adapters_of,
    count,
    finished,
)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "burst", help="cancel many streams at once, for rising numbers of them"
    )
    parser.add_argument("--adapter", action="append", default=[], help="as for probe")
    parser.add_argument(
        "--streams", type=count, action="append", default=[], help="repeatable"
    )
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--out", type=Path, help="a folder of its own for the results")
    parser.set_defaults(run_lab=_burst, command=None)


def _burst(arguments: argparse.Namespace) -> int:
    arguments.adapter = arguments.adapter or [OURS.name]
    chosen = adapters_of(arguments)
    sizes, repeats = sorted(arguments.streams) or SIZES, arguments.repeats
    config = {
        "servers": {adapter.name: adapter.version() for adapter in chosen},
        "sizes": sizes,
        "repeats": repeats,
    }
    folder = new_folder("burst", arguments.out)
    text, _ = conduct(
        folder,
        config,
        lambda upstream, emit: bursts(
            chosen, upstream, emit, sizes=sizes, repeats=repeats
        ),
    )
    return finished(text, folder, bad=0)
