"""The command line of the instrument: ``trio-ai-stream lab COMMAND``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trio_ai_stream.lab.adapters.adapter import BODY, Adapter
from trio_ai_stream.lab.adapters.catalogue import ADAPTERS, OURS
from trio_ai_stream.lab.bursts import SIZES, bursts
from trio_ai_stream.lab.clients.acts import Act
from trio_ai_stream.lab.matrix.cells import all_cells
from trio_ai_stream.lab.matrix.run import matrix
from trio_ai_stream.lab.probe import EXPERIMENTS, PHASES, Plan, probe
from trio_ai_stream.lab.records import RecordError
from trio_ai_stream.lab.report.write import write_report
from trio_ai_stream.lab.scenes import SCENES
from trio_ai_stream.lab.session import (
    MANIFEST,
    FolderTakenError,
    conduct,
    new_folder,
)

Subparsers = Any  # argparse keeps the type of a sub-command list to itself


def add_parsers(subparsers: Subparsers) -> None:
    """Add the instrument's commands; each sets ``run_lab``, which ``run`` calls."""
    _add_probe(subparsers)
    _add_matrix(subparsers)
    _add_burst(subparsers)
    _add_report(subparsers)


def run(arguments: argparse.Namespace) -> int:
    """Run the command that was parsed; 0 is well, 1 violations, 2 bad usage."""
    try:
        status: int = arguments.run_lab(arguments)
    except (FolderTakenError, RecordError, UsageError, OSError) as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 2
    return status


class UsageError(ValueError):
    """The arguments do not make sense together; the text says what would."""


def _add_probe(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "probe", help="measure from outside what a cancel does in a chat server"
    )
    known = ", ".join(ADAPTERS)
    parser.add_argument(
        "--adapter", action="append", default=[], help=f"{known}, or all; repeatable"
    )
    parser.add_argument("--command", help="start another server; {port} is filled in")
    parser.add_argument("--url", default="/chat", help="path, or URL, of its chat")
    parser.add_argument(
        "--body", default=BODY, help="JSON; must hand {model} on to upstream"
    )
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME:VALUE", help="repeatable"
    )
    parser.add_argument(
        "--upstream-env",
        action="append",
        default=[],
        metavar="NAME",
        help="variable that gets the simulator's base URL (…/api/v1)",
    )
    parser.add_argument("--name", default="command", help="what records call it")
    parser.add_argument("--n", type=int, default=30, help="runs per cell")
    parser.add_argument("--act", action="append", default=[], choices=list(Act))
    parser.add_argument("--phase", action="append", default=[], choices=list(SCENES))
    parser.add_argument(
        "--experiment", action="append", default=[], choices=EXPERIMENTS
    )
    parser.add_argument("--stalled-for", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--shutdown-for", type=float, default=40.0, metavar="SECONDS")
    parser.add_argument("--out", type=Path, help="a folder of its own for the results")
    parser.set_defaults(run_lab=_probe)


def _probe(arguments: argparse.Namespace) -> int:
    chosen = adapters_of(arguments)
    plan = Plan(
        n=arguments.n,
        acts=tuple(Act(act) for act in arguments.act) or (Act.FIN,),
        phases=tuple(SCENES[name] for name in arguments.phase) or PHASES,
        experiments=tuple(arguments.experiment) or EXPERIMENTS,
        stalled_for_s=arguments.stalled_for,
        shutdown_for_s=arguments.shutdown_for,
    )
    config = {"plan": repr(plan), "servers": [adapter.name for adapter in chosen]}
    folder = new_folder("probe", arguments.out)
    text, _ = conduct(
        folder, config, lambda upstream, emit: probe(chosen, upstream, plan, emit)
    )
    return finished(text, folder, bad=0)  # a comparison has findings, not failures


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
    url = urlsplit(arguments.url)
    return Adapter(
        name=arguments.name,
        title=arguments.name,
        argv=tuple(shlex.split(arguments.command)),
        env=dict.fromkeys(arguments.upstream_env, "{upstream}"),
        path=url.path + (f"?{url.query}" if url.query else ""),
        body=arguments.body,
        headers=headers,
    )


def _add_matrix(subparsers: Subparsers) -> None:
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


def _add_burst(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "burst", help="cancel many streams at once, for rising numbers of them"
    )
    parser.add_argument("--adapter", action="append", default=[], help="as for probe")
    parser.add_argument(
        "--streams", type=int, action="append", default=[], help="repeatable"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a folder of its own for the results")
    parser.set_defaults(run_lab=_burst, command=None)


def _burst(arguments: argparse.Namespace) -> int:
    arguments.adapter = arguments.adapter or [OURS.name]
    chosen = adapters_of(arguments)
    sizes, repeats = sorted(arguments.streams) or SIZES, arguments.repeats
    config = {
        "servers": [adapter.name for adapter in chosen],
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


def _add_report(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "report", help="tables, plots, HTML and traces from results files"
    )
    parser.add_argument("results", nargs="+", type=Path, help="results.jsonl files")
    parser.add_argument("--trace", action="append", default=[], type=Path)
    parser.add_argument("--out", type=Path, default=Path("lab-results/report"))
    parser.set_defaults(run_lab=_report)


def _report(arguments: argparse.Namespace) -> int:
    beside = arguments.results[0].parent / MANIFEST
    content = json.loads(beside.read_text()) if beside.exists() else None
    text = write_report(
        arguments.results, arguments.out, traces=arguments.trace, manifest=content
    )
    return finished(text, arguments.out, bad=0)


def finished(text: str, folder: Path, *, bad: int) -> int:
    """Print the tables and where the rest is; return the exit status."""
    print(f"{text}\n\nresults, plots and report.html are in {folder}")
    if bad:
        print(f"{bad} runs violated an invariant or failed", file=sys.stderr)
    return 1 if bad else 0
