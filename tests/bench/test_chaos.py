"""Two hosts, a Valkey, faults and clients of all tempers: it adds up, or is told."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from bench.chaos.clients import Sight
from bench.chaos.faults import KINDS, Fault, plan
from bench.chaos.hosts import Host, Place, Valkey
from bench.chaos.verdict import Quiet, complaints
from tests.support.network import own_network
from tests.support.server.servers import ROOT

GOOD = Quiet(
    0, 0, [], ['trio_ai_stream_streams_total{outcome="completed"} 1.0'], ["done"]
)
SIGHT = Sight("a", 0, "normal", began=10.0, status=200, end="done", over=11.0)
RECORD = {"event": "stream_ended", "request_id": "a", "outcome": "completed"}


def judged(
    sight: Sight = SIGHT,
    records: tuple[dict[str, Any], ...] = (RECORD,),
    faults: tuple[Fault, ...] = (),
    quiet: Quiet = GOOD,
) -> list[str]:
    """Judge a run of one host and one request."""
    host = Host(Place("", "127.0.0.1", "127.0.0.1"), Valkey(), folder="")
    host.records = list(records)
    return complaints([host], [sight], list(faults), quiet)


def test_what_adds_up_is_not_complained_of() -> None:
    """One request, one record, one count."""
    assert judged() == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"quiet": replace(GOOD, streams=1)}, "Valkey counts 1 streams"),
        ({"quiet": replace(GOOD, listed=["x"])}, "x is still listed"),
        ({"quiet": replace(GOOD, works=["503"])}, "answers a new stream with '503'"),
        ({"quiet": replace(GOOD, metrics=[""])}, "0 streams counted, 1 logged"),
        ({"records": ()}, "a (normal) has no record"),
        ({"records": (RECORD, RECORD)}, "a has 2 records"),
        ({"records": ({**RECORD, "outcome": "shutdown"},)}, "a saw 'done', recorded"),
        ({"sight": replace(SIGHT, status=503)}, "a got 503 and has a record"),
        ({"sight": replace(SIGHT, status=500)}, "a got 500"),
        ({"sight": replace(SIGHT, end="cancelled")}, "a was told cancelled, recorded"),
        ({"sight": replace(SIGHT, end="")}, "a (normal) got 200, '', and no fault"),
    ],
)
def test_what_does_not_add_up_is_told(changed: dict[str, Any], expected: str) -> None:
    """Each thing that could be wrong is found."""
    found = judged(**changed)
    assert any(expected in text for text in found), found


def test_a_killed_process_is_excused_its_record() -> None:
    """Nobody can know what a killed process would have logged; others must log."""
    killed = Fault(10.5, "kill-worker", 0, 1.0, 0.0)
    lost = replace(SIGHT, end="", broken=True)
    quiet = replace(GOOD, metrics=[""])
    assert judged(lost, (), (killed,), quiet) == []
    late = replace(killed, at_s=20.0)
    assert judged(lost, (), (late,), quiet) != []


def test_a_seed_is_a_plan() -> None:
    """The same seed gives the same faults, of all kinds, none beyond the end."""
    faults = plan(7, 300, 2)
    assert faults == plan(7, 300, 2)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert all(fault.at_s < 300 for fault in faults)
    assert plan(8, 300, 2) != faults


def test_seconds_of_chaos_add_up() -> None:
    """A short run with real processes leaves nothing and tells the truth."""
    command = [sys.executable, "-m", "bench.chaos", "--minutes", "0.1", "--seed", "274"]
    with own_network():
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 274" in done.stdout
    assert "0 wrong" in done.stdout
