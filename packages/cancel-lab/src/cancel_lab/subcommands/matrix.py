"""``matrix``: every cause, phase and transport, on this server."""

from __future__ import annotations

import argparse
from pathlib import Path

import trio

from cancel_lab import calibration
from cancel_lab.matrix import variants
from cancel_lab.matrix.cells import all_cells
from cancel_lab.matrix.run import matrix
from cancel_lab.session import conduct, new_folder
from cancel_lab.subcommands.shared import (
    Subparsers,
    UsageError,
    finished,
)

FACTORS = ("cause", "phase", "transport", "variant")


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "matrix", help="every cause, phase and transport on this server"
    )
    parser.add_argument("--n", type=int, default=30, help="runs per cell")
    for factor in FACTORS:
        parser.add_argument(
            f"--{factor}", action="append", default=[], help="only this; repeatable"
        )
    parser.add_argument("--out", type=Path, help="a folder of its own for the results")
    parser.set_defaults(run_lab=_matrix)


def _matrix(arguments: argparse.Namespace) -> int:
    wanted = {
        factor: getattr(arguments, factor)
        for factor in FACTORS
        if getattr(arguments, factor)
    }
    cells = [
        cell
        for cell in all_cells()
        if all(getattr(cell, factor) in names for factor, names in wanted.items())
    ]
    if not cells:
        raise UsageError(f"no cell has {wanted}")
    if arguments.n < 1:
        raise UsageError(f"--n: expected at least one run, got {arguments.n}")
    late_ms = trio.run(calibration.lateness_ms)
    if (reason := calibration.too_busy(late_ms)) is not None:
        raise UsageError(reason)
    folder = new_folder("matrix", arguments.out)
    text, bad = conduct(
        folder,
        {
            "n": arguments.n,
            "only": wanted,
            "cells": len(cells),
            "programs": variants.versions(),
            "woken_late_ms_p99": round(late_ms, 3),
        },
        lambda upstream, emit: matrix(cells, upstream, emit, n=arguments.n),
    )
    return finished(text, folder, bad=bad)
