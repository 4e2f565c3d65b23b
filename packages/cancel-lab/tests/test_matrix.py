"""The matrix: its cells are complete, its judge is strict, its runs are real."""

from __future__ import annotations

import itertools
import json
import socket

import pytest
import trio

from cancel_lab.clients.acts import Act, Transport
from cancel_lab.clients.sse import Seen
from cancel_lab.matrix.cells import CLIENT_SCENES, Cell, Site, all_cells
from cancel_lab.matrix.judge import Run, violations
from cancel_lab.matrix.logs import Log
from cancel_lab.matrix.run import matrix
from cancel_lab.matrix.sites import ENVIRONMENTS, black_hole
from cancel_lab.matrix.variants import PROGRAMS, Variant, missing
from cancel_lab.process import Server
from cancel_lab.records import RunRecord, Status
from cancel_lab.upstream import Entry, simulating
from trio_ai_stream.settings import SETTINGS
from trio_ai_stream.wire.record import Outcome

MS = 1_000_000
CELLS = all_cells()
CANCEL = next(cell for cell in CELLS if cell.cause == "cancel_by_id")


def test_no_combination_is_dropped_in_silence() -> None:
    """Each act in each phase over each transport is a cell, possible or not."""
    keys = {(c.cause, c.phase, c.transport, c.variant) for c in CELLS}
    assert len(keys) == len(CELLS)
    names = {(c.cause, c.phase, c.transport) for c in CELLS if not c.variant}
    for act, scene, transport in itertools.product(Act, CLIENT_SCENES, Transport):
        assert (act.value, scene.name, transport) in names


def test_a_cell_expects_something_or_says_why_not() -> None:
    """An impossible cell has a reason; any other an outcome that the server knows."""
    for cell in CELLS:
        assert (cell.impossible is None) == bool(cell.scene) or cell.impossible
        if cell.impossible is None:
            assert cell.outcome in set(Outcome)
    reached = {cell.outcome for cell in CELLS if cell.impossible is None}
    assert set(Outcome) - reached == {Outcome.INTERNAL_ERROR}


def test_every_site_sets_settings_that_exist() -> None:
    """A misspelt name would leave the default in force and the cell meaningless."""
    for site in Site:
        assert set(ENVIRONMENTS[site]) <= set(SETTINGS)


def seen(*terminals: str, after: int = 0) -> Seen:
    """Return a complete answer with these terminal events."""
    return Seen(
        terminals=list(terminals), events_after_terminal=after, complete=True
    )  # fmt: skip


def entry(gone_ms: float | None) -> Entry:
    """Return upstream's entry of a stream that ended so long after the cause."""
    return Entry(
        number=1, phase="ended", outcome="client_gone", events_sent=0, tokens_sent=0,
        bytes_sent=0, recent_sends=[],
        client_gone_ns=None if gone_ms is None else int(gone_ms * MS),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "gone_ms", "records", "outcome", "broken"),
    [
        (seen("error:cancelled"), 1.0, 1, "cancelled", []),
        (seen("error:cancelled"), None, 1, "cancelled", ["I1"]),
        (seen("error:cancelled"), 51.0, 1, "cancelled", ["I1"]),
        (seen("error:cancelled"), 1.0, 2, "cancelled", ["I3"]),
        (seen("error:cancelled"), 1.0, 1, "shutdown", ["I6"]),
        (seen(), 1.0, 1, "cancelled", ["I3"]),
        (seen("done"), 1.0, 1, "cancelled", ["I3"]),
        (seen("error:cancelled", "done"), 1.0, 1, "cancelled", ["I3"]),
        (seen("error:cancelled", after=1), 1.0, 1, "cancelled", ["I3"]),
    ],
)
def test_the_judge_names_the_invariant_that_broke(
    answer: Seen,
    gone_ms: float | None,
    records: int,
    outcome: str,
    broken: list[str],
) -> None:
    """Late or unseen notice, wrong count, wrong cause, wrong ending: each is told."""
    run = Run(
        tag=1, cause_ns=0, watched_until_ns=9, seen=answer, entry=entry(gone_ms),
        ended=(5, {"outcome": outcome}), records=records,
    )  # fmt: skip
    assert [text.split()[0] for text in violations(CANCEL, run)] == broken


class Silent:
    """A process that only has a number."""

    pid = 0


async def test_the_log_gives_each_streams_records_and_its_errors() -> None:
    """Lines that are no JSON are passed over; a stream ended twice is found twice."""
    server = Server(Silent(), 1)  # type: ignore[arg-type]
    log = Log(server)
    ended = {"event": "stream_ended", "request_id": "a", "outcome": "completed"}
    error = {"level": "ERROR", "message": "stream failed"}
    for line in ("booting", json.dumps(ended), json.dumps(error), json.dumps(ended)):
        server.lines.append((3, line.encode()))
    with trio.fail_after(30):
        assert await log.ended("a") == (3, ended)
    assert len(log.records("a")) == 2
    assert log.records("b") == []
    assert log.errors == ["stream failed"]


def test_a_black_hole_takes_no_connection() -> None:
    """Connecting neither succeeds nor fails, as towards a host that is gone."""
    with black_hole() as port, socket.socket() as client:
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.connect(("127.0.0.1", port))


async def test_this_server_passes_a_cell_of_each_kind() -> None:
    """One run each: a client that goes, over both protocols, and a finished answer."""
    wanted = {("client_rst", "stream"), ("upstream_finishes", "stream")}
    here = (Transport.H1, Transport.H2C)
    cells: list[Cell] = [
        cell
        for cell in CELLS
        if (cell.cause, cell.phase) in wanted
        and cell.transport in here
        and not cell.variant
    ]
    records: list[RunRecord] = []
    with trio.fail_after(25):
        async with simulating() as upstream:
            await matrix(cells, upstream, records.append, n=1)
    assert [record.status for record in records] == [Status.PASS] * 5, records
    assert records[-1].experiment == "leaks"
    outcomes = [record.cause_recorded for record in records[:-1]]
    assert outcomes == ["client_disconnected"] * 2 + ["completed"] * 2


async def test_a_cancel_goes_through_what_stands_around_a_stream() -> None:
    """A tunnel to upstream's TLS; a stream that is cancelled while it is detached."""
    wanted = {
        ("client_fin", "headers", Variant.UPSTREAM_PROXY),
        ("cancel_by_id_detached", "stream", Variant.RESUMABLE),
    }
    cells = [c for c in CELLS if (c.cause, c.phase, c.variant) in wanted]
    records: list[RunRecord] = []
    with trio.fail_after(25):
        async with simulating() as upstream:
            await matrix(cells, upstream, records.append, n=1)
    assert [record.status for record in records] == [Status.PASS] * 4, records
    assert {record.variant for record in records} == {c.variant for c in cells}


def test_a_variant_whose_program_is_absent_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is skipped, with the reason; one that needs no program never is."""
    monkeypatch.setitem(PROGRAMS, Variant.NGINX, "no-such-program")
    assert missing(Variant.NGINX) == "not installed: no-such-program"
    assert missing(Variant.UPSTREAM_TLS) is None
