"""``probe``: any server, from outside."""

from __future__ import annotations

import argparse
from pathlib import Path

import trio

from cancel_lab import calibration, network, records
from cancel_lab.adapters.adapter import BODY
from cancel_lab.adapters.catalogue import ADAPTERS
from cancel_lab.clients.acts import Act, Transport, impossible
from cancel_lab.experiments.notice import WATCH_S
from cancel_lab.probe import EXPERIMENTS, IN_A_NETWORK, PHASES, Plan, probe
from cancel_lab.records import Status
from cancel_lab.scenes import SCENES
from cancel_lab.session import RESULTS, conduct, new_folder
from cancel_lab.subcommands.mcp import probe_mcp
from cancel_lab.subcommands.shared import (
    Subparsers,
    UsageError,
    adapters_of,
    finished,
    port,
    seconds,
)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "probe", help="measure from outside what a cancel does in a chat server"
    )
    known = ", ".join(ADAPTERS)
    parser.add_argument(
        "--adapter", action="append", default=[], help=f"{known}, or all; repeatable"
    )
    parser.add_argument("--command", help="start another server; {port} is filled in")
    parser.add_argument(
        "--url", help="path, or URL, of its chat (/chat), or of its MCP endpoint (/mcp)"
    )
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
    parser.add_argument(
        "--port", type=port, help="where --command listens; a free port if not said"
    )
    parser.add_argument("--name", default="command", help="what records call it")
    parser.add_argument(
        "--within",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="the bound of a verdict: by then upstream, or the work, must have stopped",
    )
    parser.add_argument("--n", type=int, default=30, help="runs per cell")
    acts = [act for act in Act if not impossible(act, Transport.H1)]
    parser.add_argument("--act", action="append", default=[], choices=acts)
    parser.add_argument("--phase", action="append", default=[], choices=list(SCENES))
    parser.add_argument(
        "--experiment",
        action="append",
        default=[],
        choices=(*EXPERIMENTS, *IN_A_NETWORK),
    )
    parser.add_argument("--stalled-for", type=seconds, default=20.0, metavar="SECONDS")
    parser.add_argument(
        "--watch",
        type=seconds,
        default=WATCH_S,
        metavar="SECONDS",
        help="how long a run is watched that upstream has not noticed",
    )
    parser.add_argument("--vanished-for", type=seconds, default=40.0, metavar="SECONDS")
    parser.add_argument("--shutdown-for", type=seconds, default=40.0, metavar="SECONDS")
    mcp = parser.add_argument_group("a server of the Model Context Protocol")
    mcp.add_argument(
        "--mcp",
        nargs="?",
        const="",
        metavar="URL",
        help="measure an MCP server: the one at URL, or the one that --command starts",
    )
    mcp.add_argument("--transport", choices=["h1", "h2c"], default="h1")
    mcp.add_argument(
        "--report-port",
        type=port,
        default=0,
        metavar="N",
        help="UDP port for the tool's reports; needed with a URL",
    )
    parser.add_argument("--out", type=Path, help="a folder of its own for the results")
    parser.set_defaults(run_lab=_probe)


def _probe(arguments: argparse.Namespace) -> int:
    if arguments.n < 1:
        raise UsageError(f"--n: expected at least one run, got {arguments.n}")
    if arguments.mcp is not None:
        return probe_mcp(arguments)
    chosen = adapters_of(arguments)
    plan = Plan(
        n=arguments.n,
        acts=tuple(Act(act) for act in arguments.act) or (Act.FIN,),
        phases=tuple(SCENES[name] for name in arguments.phase) or PHASES,
        experiments=tuple(arguments.experiment) or EXPERIMENTS,
        within_s=arguments.within,
        stalled_for_s=arguments.stalled_for,
        shutdown_for_s=arguments.shutdown_for,
        watch_s=arguments.watch,
        vanished_for_s=arguments.vanished_for,
    )
    if set(plan.experiments) & set(IN_A_NETWORK):
        try:
            network.enter()
        except network.NetworkError as exc:
            raise UsageError(str(exc)) from exc
    config = {
        "plan": plan.as_json(),
        "servers": {adapter.name: adapter.version() for adapter in chosen},
        "woken_late_ms_p99": round(trio.run(calibration.lateness_ms), 3),
    }
    folder = new_folder("probe", arguments.out)
    text, _ = conduct(
        folder, config, lambda upstream, emit: probe(chosen, upstream, plan, emit)
    )
    runs = list(records.read([folder / RESULTS]))
    if all(run.status is Status.SKIPPED for run in runs):
        raise UsageError("; ".join(f"{run.sut.name}: {run.reason}" for run in runs))
    return finished(text, folder, bad=0)  # a comparison has findings, not failures
