"""The ledger: one row a stream, whatever happens to processes, disks and databases."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.logs import logged
from tests.support.records import ended
from tests.support.world import world
from trio_ai_stream.billing import usage_ledger
from trio_ai_stream.billing.usage_database import LedgerRow, UsageDatabase, row_of
from trio_ai_stream.billing.usage_ledger import Journal, UsageLedger
from trio_ai_stream.billing.usage_report import UsageQuery
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.wire.record import Basis, Bill

DAY_S = 86_400


def ledger(path: Path, metrics: Metrics | None = None) -> UsageLedger:
    """A ledger of a process of its own."""
    metrics = metrics or Metrics(version="test", upstream="simulator")
    return UsageLedger(path, metrics, retention_s=90 * DAY_S)


def row(
    basis: Basis = Basis.EXACT, *, ended_at: float | None = None, **fields: Any
) -> LedgerRow:
    """The row of a stream of ten tokens."""
    bill = Bill(basis, 1, 10, 0, 0, 0.000_153, "Simulator")
    return row_of(
        ended(bill=bill, generation_id="gen-1", **fields),
        key="somebody",
        worker="gone",
        ended_at=time.time() if ended_at is None else ended_at,
    )


def journals(folder: Path) -> list[Path]:
    """The journals that are there."""
    return list(folder.glob("*.journal"))


def held(path: Path) -> list[Path]:
    """Which of a database's files this process holds open."""
    files = [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]
    opened = [one.resolve() for one in Path("/proc/self/fd").iterdir()]
    return [file for file in files if file in opened]


def lost(text: str) -> int:
    """How many rows the metrics call lost."""
    name = "\ntrio_ai_stream_ledger_rows_lost_total "
    return int(float(text.split(name)[1].split()[0]))


async def write(subject: UsageLedger, *rows: LedgerRow) -> list[LedgerRow]:
    """Start a ledger, put rows in and shut it down; return what was open before."""
    opened: list[LedgerRow] = []
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(subject.run, opened.append)
            for one in rows:
                subject.put(one)
            nursery.cancel_scope.cancel(reason="test")
    return opened


def total(path: Path, **options: Any) -> dict[str, Any]:
    """The sums over all rows."""
    database = UsageDatabase(path)
    (sums,) = database.sums(**options)
    database.close()
    return sums


async def test_what_was_put_in_is_there_after_the_shutdown(tmp_path: Path) -> None:
    """All of it, and no journal is left."""
    path = tmp_path / "ledger.db"
    await write(ledger(path), *[row(request_id=f"r-{n}") for n in range(2000)])
    sums = total(path)
    assert (sums["streams"], sums["completion_tokens"]) == (2000, 20_000)
    assert sums["cost_nusd"] == 2000 * 153_000
    assert not journals(tmp_path)


async def test_no_row_holds_prompt_content_or_key(tmp_path: Path) -> None:
    """The columns are ids, names, times, tokens and cost."""
    path = tmp_path / "ledger.db"
    await write(ledger(path), row())
    with closing(sqlite3.connect(path)) as db:
        names = [r[1] for r in db.execute("PRAGMA table_info(streams)")]
    assert names == list(LedgerRow.__struct_fields__)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.billing.test_usage_ledger import row
from trio_ai_stream.billing.usage_ledger import Journal
import msgspec
journal = Journal(Path(sys.argv[1]), "killed")
for number in range(500):
    journal.append(msgspec.json.encode(row(request_id=f"r-{number}")) + b"\\n")
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_killed_process_loses_no_row_and_doubles_none(tmp_path: Path) -> None:
    """The next start takes the journal over; a second time changes nothing."""
    path = tmp_path / "ledger.db"
    done = await trio.run_process(
        [sys.executable, "-c", KILLED, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = journals(tmp_path)
    copy = left.read_bytes()
    await write(ledger(path))
    assert total(path)["streams"] == 500
    left.write_bytes(copy + b'{"cut off')  # as if it had died before the removal
    await write(ledger(path), row())
    assert total(path)["streams"] == 501
    assert not journals(tmp_path)


async def test_a_live_process_keeps_its_journal(tmp_path: Path) -> None:
    """Another that starts takes only what the dead have left."""
    path = tmp_path / "ledger.db"
    theirs = Journal(path, "alive")
    theirs.append(b"{}\n")
    await write(ledger(path), row())
    assert [p.name for p in journals(tmp_path)] == ["ledger.db.alive.0.journal"]
    theirs.close()


async def test_open_bills_are_handed_to_the_next_start(tmp_path: Path) -> None:
    """Until they are settled, which nothing takes back."""
    path = tmp_path / "ledger.db"
    opened = row(Basis.ESTIMATED)
    assert await write(ledger(path), opened) == []
    (found,) = await write(ledger(path))
    assert (found.uid, found.bill) == (opened.uid, opened.bill)
    settled = found.settled(Bill(Basis.RECONCILED, 1, 12, 0, 0, 0.01, "Novita", 2))
    assert await write(ledger(path), settled, opened)
    assert await write(ledger(path)) == []
    sums = total(path)
    assert (sums["streams"], sums["reconciled"], sums["cost_nusd"]) == (1, 1, 10**7)


async def test_what_the_dead_left_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that cannot put it into the database does so later, by itself."""
    monkeypatch.setattr(usage_ledger, "BATCH_S", 0.01)
    path = tmp_path / "ledger.db"
    path.mkdir()  # nobody can open that
    theirs, left = Journal(path, "dead"), row(Basis.ESTIMATED)
    theirs.append(msgspec.json.encode(left) + b"\n")
    theirs.close()
    opened: list[LedgerRow] = []
    found = trio.Event()

    def on_open(one: LedgerRow) -> None:
        opened.append(one)
        found.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger(path).run, on_open)
            assert not opened
            path.rmdir()
            await found.wait()
            nursery.cancel_scope.cancel(reason="test")
    assert [one.uid for one in opened] == [left.uid]
    assert total(path)["streams"] == 1
    assert not journals(tmp_path)


def test_a_workers_own_open_bills_are_not_taken_over(tmp_path: Path) -> None:
    """It looks them up already; those of the dead it gets once."""
    database = UsageDatabase(tmp_path / "ledger.db")
    own = msgspec.structs.replace(row(Basis.ESTIMATED), worker="me")
    left = row(Basis.ESTIMATED)
    lines = [msgspec.json.encode(one) + b"\n" for one in (own, left)]
    database.put(b"".join(lines))
    assert [one.uid for one in database.take_open("me", {"other"})] == [left.uid]
    assert database.take_open("me", {"other"}) == []
    database.close()


def test_sums_are_by_whatever_is_asked(tmp_path: Path) -> None:
    """Grouped, filtered, and between two times; the dearest first; the old are gone."""
    database = UsageDatabase(tmp_path / "ledger.db")
    rows = [row(model=f"m/{n % 2}", ended_at=DAY_S * n) for n in range(1, 6)]
    database.put(b"".join(msgspec.json.encode(one) + b"\n" for one in rows))
    by_model = database.sums(["model"])
    assert [(r["model"], r["streams"]) for r in by_model] == [("m/1", 3), ("m/0", 2)]
    days = database.sums(["day"], since=DAY_S * 4, equal={"model": "m/0"})
    assert [(r["day"], r["streams"]) for r in days] == [("1970-01-05", 1)]
    assert database.spent(DAY_S * 3, DAY_S * 4) == {"somebody": 153_000}
    assert database.forget(DAY_S * 3, at_most=2)
    assert not database.forget(DAY_S * 3, at_most=2)
    assert [r["streams"] for r in database.sums()] == [3]
    database.close()


async def test_old_rows_are_deleted_however_many_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """All in one hour, but none in an hour in which the clock is set."""
    subject = ledger(tmp_path / "ledger.db")
    ahead_s = 400.0 * DAY_S  # until the first NTP answer
    real = time.time()
    monkeypatch.setattr(
        time, "time", lambda: real + ahead_s + mock_clock.current_time()
    )

    async def streams_after(seconds: float) -> int:
        mock_clock.jump(seconds)
        await wait_all_tasks_blocked()  # what is deleted then is before the question
        (sums,) = await subject.ask(UsageDatabase.sums)
        return int(sums["streams"])

    async with trio.open_nursery() as nursery:
        await nursery.start(subject.run, lambda _: None)
        for n in range(20_001):
            subject.put(row(ended_at=real - 91 * DAY_S + n / 1000))
        subject.put(row(ended_at=real))
        assert await subject.flush()
        ahead_s = 0.0
        assert await streams_after(3601) == 20_002
        assert await streams_after(3601) == 10_002
        assert await streams_after(2) == 2
        assert await streams_after(2) == 1
        nursery.cancel_scope.cancel(reason="test")


async def test_two_processes_write_one_file(tmp_path: Path) -> None:
    """Each waits for the other's transaction."""
    path = tmp_path / "ledger.db"
    first, second = ledger(path), ledger(path)
    async with trio.open_nursery() as nursery:
        for subject in (first, second):
            nursery.start_soon(write, subject, *[row() for _ in range(500)])
    assert total(path)["streams"] == 1000


def test_a_long_journal_goes_on_in_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the database is deleted file by file; past the last one it is full."""
    monkeypatch.setattr(usage_ledger, "FILE_BYTES", 100)
    monkeypatch.setattr(usage_ledger, "FILES", 3)
    subject = Journal(tmp_path / "ledger.db", "w")
    lines = [b"%050d\n" % number for number in range(6)]
    for line in lines:
        subject.append(line)
    with pytest.raises(OSError, match="as long as it may be"):
        subject.append(b"one more\n")
    assert len(journals(tmp_path)) == 3
    read = b""
    while not subject.empty:
        block = subject.read()
        read += block
        subject.moved(len(block))
    assert read == b"".join(lines)
    assert len(journals(tmp_path)) == 1
    subject.close()


async def test_a_bill_is_kept_before_the_client_is_told(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Whoever has seen `done` finds its stream in the ledger, also after a kill."""
    async with world(ledger=ledger(tmp_path / "ledger.db")) as w:
        visit = w.chat("simulator/fast?chunks=3&delay_ms=500")
        await trio.sleep(1.2)
        assert visit.types == ["connected", *["content"] * 3]
        visit.reading = trio.Event()  # it takes nothing more, so is not told
        await trio.sleep(1)
        (kept,) = journals(tmp_path)
        assert kept.read_bytes().count(b"completed") == 1
        assert not visit.ended.is_set()
        visit.reading.set()
        await visit.over.wait()
        assert kept.read_bytes().count(b"completed") == 1


async def test_a_lost_disk_costs_no_stream_and_is_said_once(tmp_path: Path) -> None:
    """Rows are counted as lost; when the place is back, so is the ledger."""
    folder = tmp_path / "gone"
    path = folder / "ledger.db"
    metrics = Metrics(version="test", upstream="simulator")
    subject = ledger(path, metrics)
    with logged() as records, trio.fail_after(30):
        async with world(ledger=subject, bills=True) as w:
            for _ in range(3):
                visit = w.chat("simulator/fast?chunks=3")
                await visit.over.wait()
                assert visit.types[-1] == "done"
            folder.mkdir()
            assert await subject.ask(lambda database: database.sums())
            visit = w.chat("simulator/fast?chunks=3")
            await visit.over.wait()
    said = [one["event"] for one in records if "ledger" in str(one["event"])]
    assert said[0] == "ledger_failed"
    assert said.count("ledger_failed") == 1
    assert lost(metrics.render()[1].decode()) >= 2


def move(folder: Path, to: Path | None) -> None:
    """Move all files of a ledger, or remove them."""
    for file in folder.glob("ledger.db*"):
        if to is None:
            file.unlink()
        else:
            file.rename(to / file.name)


@pytest.mark.parametrize("back", [True, False])
async def test_a_ledger_that_is_taken_away_costs_no_row(
    tmp_path: Path, back: bool
) -> None:
    """It is said; rows wait for the file, or for the next start, which makes one."""
    path, aside = tmp_path / "ledger.db", tmp_path / "aside"
    subject = ledger(path)
    with logged() as records, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(subject.run, lambda _: None)
            subject.put(row())
            assert await subject.flush()
            aside.mkdir()
            move(tmp_path, aside if back else None)
            for _ in range(3):
                subject.put(row())
            assert not await subject.flush()
            assert not held(path)
            if back:
                move(aside, tmp_path)
                assert await subject.flush()
            nursery.cancel_scope.cancel(reason="test")
    said = [one["event"] for one in records if "ledger" in str(one["event"])]
    assert said == ["ledger_failed", *["ledger_back"] * back]
    assert "removed or replaced while it was in use" in records[0]["cause"]
    await write(ledger(path))
    assert total(path)["streams"] == (4 if back else 3)


async def test_a_newer_servers_ledger_is_refused_to_the_end(tmp_path: Path) -> None:
    """It says so once, and does not call the ledger well when it is shut down."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 2")
    with logged() as records, trio.fail_after(30):
        await write(ledger(path), row())
    said = [one["event"] for one in records if "ledger" in str(one["event"])]
    assert said == ["ledger_failed"]
    assert "a newer server wrote it" in records[0]["cause"]


FULL = """
import resource, sys
from pathlib import Path
import trio
from tests.billing.test_usage_ledger import ledger, row, write
from trio_ai_stream.telemetry.metrics import Metrics
metrics = Metrics(version="test", upstream="simulator")
path = Path(sys.argv[1])
trio.run(write, ledger(path), row())
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
trio.run(write, ledger(path, metrics), *[row() for _ in range(60)])
print(metrics.render()[1].decode())
"""


def test_a_full_disk_costs_whole_rows_only(tmp_path: Path) -> None:
    """What fits is kept and comes in later, what does not is counted."""
    path = tmp_path / "ledger.db"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        check=True,
        capture_output=True,
        text=True,
    )
    assert 0 < lost(done.stdout) < 60
    trio.run(write, ledger(path))
    assert total(path)["streams"] == 61 - lost(done.stdout)


async def test_a_database_that_hangs_holds_no_shutdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are in the journal, the next start moves them, once; none stays open."""
    monkeypatch.setattr(usage_ledger, "LAST_WRITE_S", 0.1)
    path = tmp_path / "ledger.db"
    subject = ledger(path)
    with trio.fail_after(10), closing(sqlite3.connect(path)) as other:
        async with trio.open_nursery() as nursery:
            await nursery.start(subject.run, print)
            other.execute("BEGIN IMMEDIATE")  # it waits for this for a second
            for number in range(5):
                subject.put(row(request_id=f"r-{number}"))
            began = trio.current_time()
            nursery.cancel_scope.cancel(reason="test")
        assert trio.current_time() - began < 0.6
        assert journals(tmp_path)
        other.rollback()
        await write(ledger(path))
        async with subject._limiter:  # when the thread that nobody waited for is done
            pass
    assert not held(path)
    assert total(path)["streams"] == 5


async def test_a_row_that_comes_after_the_end_is_there_at_the_next_start(
    tmp_path: Path,
) -> None:
    """It was written to a descriptor that was another file's by then, or was lost."""
    path = tmp_path / "ledger.db"
    subject = ledger(path)
    await write(subject, row())
    others = [(tmp_path / str(number)).open("w+b") for number in range(20)]
    subject.put(row())
    assert subject._journal is not None
    subject._journal.close()  # as the end of the process does
    for other in others:
        assert other.read() == b""
        other.close()
    await write(ledger(path))
    assert total(path)["streams"] == 2
    assert not journals(tmp_path)


async def test_who_asks_after_the_end_leaves_nothing_open(tmp_path: Path) -> None:
    """A request may ask while a server ends, when the ledger's task is gone already."""
    path = tmp_path / "ledger.db"
    subject = ledger(path)
    await write(subject, row())
    (sums,) = await subject.ask(lambda database: database.sums())
    assert sums["streams"] == 1
    assert not held(path)


def test_days_are_those_of_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the server stands, and also when its clocks are put forward."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        database = UsageDatabase(tmp_path / "ledger.db")
        forward = datetime(2026, 3, 8, tzinfo=UTC)  # the clocks' day there
        for hours in (-1, 0, 7, 23, 24):
            ended_at = (forward + timedelta(hours=hours)).timestamp()
            database.put(msgspec.json.encode(row(ended_at=ended_at)) + b"\n")
        days = {one["day"]: one["streams"] for one in database.sums(["day"])}
        assert days == {"2026-03-07": 1, "2026-03-08": 3, "2026-03-09": 1}
        query = UsageQuery.parse({"since": "2026-03-08", "until": "2026-03-09"})
        assert [one["streams"] for one in query.rows(database)] == [3]
        database.close()
    finally:
        monkeypatch.undo()
        time.tzset()
