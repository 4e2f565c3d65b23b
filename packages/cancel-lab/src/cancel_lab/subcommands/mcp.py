"""``probe --mcp``: a server of the Model Context Protocol, from outside."""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio

from cancel_lab import manifest
from cancel_lab.clients.acts import Transport
from cancel_lab.mcp import verdicts
from cancel_lab.mcp.client import MCPClient
from cancel_lab.mcp.experiment import MCPExperiment, MCPPlan
from cancel_lab.mcp.life import VARIABLE, LifeReports, listening
from cancel_lab.mcp.messages import Address
from cancel_lab.process import ServerError, free_port, serving
from cancel_lab.records import RunRecord, Writer
from cancel_lab.report.table import columns
from cancel_lab.report.write import write_report
from cancel_lab.session import MANIFEST, RESULTS, heeding_sigterm, new_folder
from cancel_lab.subcommands.shared import UsageError, words_of
from cancel_lab.trial import TrialError

PATH = "/mcp"
NEGOTIATE_S = 10.0
LOOPBACK = ("127.0.0.1", "localhost")


def probe_mcp(arguments: argparse.Namespace) -> int:
    """Measure one server; 0 if nothing that was judged failed, 1 otherwise.

    :raises UsageError: the server cannot be measured: why, and what to do.
    """
    if not arguments.mcp and not arguments.command:
        raise UsageError(
            "--mcp: expected its URL, or --command to start it; got neither"
        )
    if arguments.mcp and not arguments.report_port:
        raise UsageError(
            "--mcp URL: expected --report-port N as well: start the server with"
            f" {VARIABLE}=127.0.0.1:N, so that its tool can report its life there"
        )
    plan = MCPPlan(
        name=arguments.name,
        n=arguments.n,
        within_s=arguments.within,
        transport=Transport(arguments.transport),
    )
    folder = new_folder("mcp", arguments.out)
    started = time.monotonic_ns()
    records: list[RunRecord] = []
    try:
        with Writer(folder / RESULTS) as writer:

            def emit(record: RunRecord) -> None:
                records.append(record)
                writer.write(record)

            measure = partial(_measure, arguments, plan, emit)
            server = trio.run(heeding_sigterm, measure)
    except (ServerError, TrialError) as exc:
        raise UsageError(str(exc)) from exc
    finally:
        config = {"plan": vars(plan), "command": arguments.command or arguments.mcp}
        made = manifest.manifest(config, started_ns=started)
        manifest.write(folder / MANIFEST, made)
    write_report([folder / RESULTS], folder, manifest=made)
    print("\n".join(verdicts.notes(records, plan, server)))
    for title, rows in verdicts.tables(records):
        print(f"\n{title}\n{columns(rows)}")
    print(f"\nrecords and report.html are in {folder}")
    return 0 if verdicts.conforms(records) else 1


async def _measure(
    arguments: argparse.Namespace, plan: MCPPlan, emit: Callable[[RunRecord], None]
) -> str:
    """Make all runs, and return what the server calls itself."""
    async with (
        listening(arguments.report_port) as reports,
        _server(arguments, reports) as address,
    ):
        client = MCPClient(address, plan.transport)
        with trio.move_on_after(NEGOTIATE_S) as negotiating:
            await client.negotiate()
        if negotiating.cancelled_caught:
            raise TrialError(
                f"expected an answer of an MCP server on {address.path} within"
                f" {NEGOTIATE_S:g} s, got none"
            )
        await MCPExperiment(client, reports, plan).run(emit)
        return client.server


@asynccontextmanager
async def _server(
    arguments: argparse.Namespace, reports: LifeReports
) -> AsyncIterator[Address]:
    """Have a server: one that runs already, or one started here."""
    if arguments.mcp:
        yield _place(arguments.mcp)
        return
    port = arguments.port or free_port()
    words = words_of(arguments.command)
    argv = [word.replace("{port}", str(port)) for word in words]
    env = {VARIABLE: reports.address, "PORT": str(port)}
    async with serving(argv, env, port=port):
        yield Address(port, arguments.url or PATH)


def _place(url: str) -> Address:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in LOOPBACK:
        raise UsageError(f"--mcp: expected http://127.0.0.1:PORT/PATH, got {url}")
    return Address(parts.port or 80, parts.path or "/")
