"""What is nowhere in the server: shields without an end, other clocks, dead settings.

docs/architecture.md lists these among the invariants.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from typing import Final

from scripts.docs import ROOT
from trio_ai_stream.settings import SETTINGS
from trio_ai_stream.wire.record import Record

SOURCE: Final = ROOT / "src" / "trio_ai_stream"
MODULES: Final = {
    path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))
}
# Who reads another clock than Trio's, and what for.
CLOCKS: Final = {
    "dialects/completions.py": "`created` of an OpenAI chunk",
    "server/http1.py": "the header field Date",
    "server/http_stream.py": "Hypercorn's access log wants it",
    "server/signals.py": "systemd's MONOTONIC_USEC",
    "simulator/ledger.py": "events of several processes are compared",
    "billing/billing.py": "the ledger has Unix time",
    "billing/spending.py": "a budget is a calendar's day's or month's",
    "billing/shared_totals.py": "totals are of a calendar's days",
    "billing/usage_report.py": "it is asked for the last days",
    "billing/usage_ledger.py": "what is kept is counted in days, also over a restart",
    "telemetry/otel.py": "spans have Unix time",
    "telemetry/sampling.py": "a turn takes real time; a process started at Unix time",
    "tracing/process_trace.py": "a trace of a run on a mock clock shows real time",
    "upstream/upstream_errors.py": "Retry-After may be a date",
}
BOUNDED: Final = {"move_on_after", "move_on_at", "fail_after", "fail_at"}
SCOPES: Final = BOUNDED | {"open_nursery", "CancelScope"}


def tree(name: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(MODULES[name].read_text())


def called(node: ast.AST) -> str:
    """The last part of the name of the function that an expression calls."""
    if not isinstance(node, ast.Call):
        return ""
    return ast.unparse(node.func).rpartition(".")[2]


def inner(node: ast.AST) -> Iterator[ast.AST]:
    """All below a node, but not inside functions that are defined there."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from inner(child)


def test_every_shield_has_a_deadline() -> None:
    """A shield without one could hold a shutdown for ever.

    `tracing/` is left out: it makes a shield to prove how Trio's work.
    """
    for name in MODULES:
        if name.startswith("tracing/"):
            continue
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                assert node.attr != "shield", f"{name}:{node.lineno}"
            if any(one.arg == "shield" for one in getattr(node, "keywords", ())):
                assert called(node) in BOUNDED, name


def test_nothing_yields_inside_a_nursery_or_a_scope() -> None:
    """A generator suspended there would move a cancel into its caller (PEP 789)."""
    for name in MODULES:
        for node in ast.walk(tree(name)):
            if not isinstance(node, ast.With | ast.AsyncWith):
                continue
            if SCOPES & {called(item.context_expr) for item in node.items}:
                yields = [n for n in inner(node) if isinstance(n, ast.Yield)]
                assert not yields, f"{name}:{yields[0].lineno}"


def test_every_task_has_a_nursery() -> None:
    """Trio's system tasks and asyncio's tasks, which have none, are not used."""
    for name, path in MODULES.items():
        text = path.read_text()
        assert "spawn_system_task" not in text, name
        assert "create_task(" not in text, name


def test_only_tracing_knows_trios_private_parts() -> None:
    """The server runs on any Trio; the trace alone needs a version that it knows."""
    private = re.compile(
        r"\btrio\._|\._(?:cancel_(?:status|called|reason)|next_send)\b"
    )
    knowing = {
        name for name, path in MODULES.items() if private.search(path.read_text())
    }
    assert knowing == {"tracing/internals.py"}


def test_durations_are_of_trios_clock() -> None:
    """Other clocks are read for the reasons that are listed, no more and no fewer."""
    found = set()
    for name in MODULES:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Import) and any(
                a.name == "time" for a in node.names
            ):
                found.add(name)
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                found.add(name)
    assert found == set(CLOCKS)


def read_names(*, outside: str) -> set[str]:
    """The names of all attributes that modules read, but for one module."""
    return {
        node.attr
        for name in MODULES
        if name != outside
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_every_setting_is_read() -> None:
    """One that is only checked would promise what the server does not do."""
    read = read_names(outside="settings/cross_field.py")
    assert set(SETTINGS) - read == set()


def test_every_field_of_a_streams_record_is_read() -> None:
    """By the log, a metric, a span or the ledger; else it need not be recorded."""
    fields = set(Record.__struct_fields__)
    assert fields - read_names(outside="stream/stream.py") == set()


def test_no_case_of_a_test_holds_the_time_of_its_packing() -> None:
    """What is packed names its test, and two workers collect in different seconds."""
    for path in (*ROOT.glob("tests/**/*.py"), *ROOT.glob("packages/*/tests/**/*.py")):
        text = path.read_text()
        if "gzip.compress(" not in text:
            continue
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "gzip.compress":
                assert "mtime=0" in ast.unparse(call), f"{path}:{call.lineno}"


def test_no_archive_is_in_the_repository() -> None:
    """A copy of the whole tree was committed by mistake once, and nobody saw it."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    archives = (".tar", ".tgz", ".tar.gz", ".tar.xz", ".zip", ".whl")
    assert not [name for name in listed.stdout.split() if name.endswith(archives)]
