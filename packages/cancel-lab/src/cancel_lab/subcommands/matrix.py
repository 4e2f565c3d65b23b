"""``matrix``: every cause, phase and transport, on this server."""

from __future__ import annotations

import argparse
from pathlib import Path

from cancel_lab.matrix.cells import all_cells
from cancel_lab.matrix.run import matrix
from cancel_lab.session import conduct, new_folder
from cancel_lab.subcommands.shared import (
    Subparsers,
    UsageError,
    finished,
)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "matrix", help="every cause, phase and transport on this server"
    )
    parser.add_argument("--n", type=int, default=30, help="runs per cell")
    for factor in ("cause", "phase", "transport"):
        parser.add_argument(
            f"--{factor}", action="append", default=[], help="only this; repeatable"
        )
    parser.add_argument("--out", type=Path, help="a folder of its own for the results")
    parser.set_defaults(run_lab=_matrix)


def _matrix(arguments: argparse.Namespace) -> int:
    wanted = {
        factor: getattr(arguments, factor)
        for factor in ("cause", "phase", "transport")
        if getattr(arguments, factor)
    }
    cells = [
        cell
        for cell in all_cells()
        if all(getattr(cell, factor) in names for factor, names in wanted.items())
    ]
    if not cells:
        raise UsageError(f"no cell has {wanted}")
    folder = new_folder("matrix", arguments.out)
    text, bad = conduct(
        folder,
        {"n": arguments.n, "only": wanted, "cells": len(cells)},
        lambda upstream, emit: matrix(cells, upstream, emit, n=arguments.n),
    )
    return finished(text, folder, bad=bad)
