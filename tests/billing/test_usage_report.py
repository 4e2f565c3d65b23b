"""Sums out of the ledger: over HTTP, and in the terminal."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.billing.test_usage_ledger import DAY_S, ledger, row
from tests.support.completions import over
from tests.support.world import Visit, World, world
from trio_ai_stream.billing import usage_report
from trio_ai_stream.billing.usage_database import UsageDatabase
from trio_ai_stream.billing.usage_report import UsageQuery, UsageQueryError
from trio_ai_stream.http.auth import key_id
from trio_ai_stream.settings import SettingsError, load_settings
from trio_ai_stream.wire.record import Basis, Bill, Outcome

KEYS = {"API_KEYS": "first-key,second-key", "ADMIN_KEYS": "admin-key"}


def fill(path: Path) -> None:
    """A day of two providers, of which one went on after a client had left."""
    gone = row(Basis.ESTIMATED, outcome=Outcome.CLIENT_DISCONNECTED, user="=ann")
    late = gone.settled(Bill(Basis.RECONCILED, 1, 410, 0, 0, 0.5, "Groq", 400))
    old = row(ended_at=time.time() - 30 * DAY_S)
    database = UsageDatabase(path)
    rows = (row(), row(), late, old)
    database.put(b"".join(msgspec.json.encode(one) + b"\n" for one in rows))
    database.close()


def test_one_command_says_what_departed_clients_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Last week, by provider: how often and how much was billed after our close."""
    path = tmp_path / "ledger.db"
    fill(path)
    words = "--since 7d --outcome client_disconnected --by provider --file"
    assert usage_report.main([*words.split(), str(path)]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["provider", "streams"]
    assert line.split() == ["Groq", "1", "1", "410", "0.500000", "0", "1", "1", "400"]


def test_the_table_has_a_total_and_the_csv_no_formula(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that a caller chose is no formula in a spreadsheet."""
    path = tmp_path / "ledger.db"
    fill(path)
    assert usage_report.main(["--by", "user", "--file", str(path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split()[:2] == ["total", "4"]
    words = ["--by", "user", "--format", "csv", "--file", str(path)]
    assert usage_report.main(words) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[0]["user"] == "'=ann"
    assert float(rows[0]["cost_usd"]) == 0.5


def test_a_bad_question_is_answered_with_what_was_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown groups and times, and a ledger that is not there."""
    with pytest.raises(UsageQueryError, match="by: expected key"):
        UsageQuery.parse({"by": "day,colour"})
    with pytest.raises(UsageQueryError, match="since: expected a date"):
        UsageQuery.parse({"since": "yesterday"})
    assert usage_report.main(["--file", str(tmp_path / "none")]) == 2
    assert "expected a ledger" in capsys.readouterr().err


async def ask(w: World, query: str, key: str) -> Visit:
    """Ask for the usage."""
    visit = Visit(
        w.app,
        "/usage",
        b"",
        method="GET",
        headers={"authorization": f"Bearer {key}"},
        query=query,
    )
    w.nursery.start_soon(visit.task)
    await over(visit)
    return visit


async def test_a_key_sees_its_own_and_an_operator_all(tmp_path: Path) -> None:
    """Whatever it asks for; times and groups are checked."""
    subject = ledger(tmp_path / "ledger.db")
    with trio.fail_after(30):
        async with world(env=KEYS, ledger=subject, bills=True) as w:
            for key, chunks in (("first-key", 3), ("second-key", 4)):
                body: dict[str, Any] = {"prompt": "hello"}
                body["model"] = f"simulator/fast?chunks={chunks}"
                headers = {"authorization": f"Bearer {key}"}
                await over(w.visit(body, headers=headers))
            written = 0
            while written < 2:
                written = (await subject.ask(lambda db: db.sums()))[0]["streams"]
            other = key_id("second-key")
            own = await ask(w, f"by=key&key={other}", "first-key")
            (mine,) = own.json()["rows"]
            assert (mine["key"], mine["completion_tokens"]) == (key_id("first-key"), 3)
            everybody = (await ask(w, "by=key", "admin-key")).json()["rows"]
            assert {r["key"] for r in everybody} == {key_id("first-key"), other}
            table = await ask(w, "by=model&format=csv", "admin-key")
            assert table.headers["content-type"] == "text/csv; charset=utf-8"
            assert len(table.body.splitlines()) == 3
            for query in ("by=colour", "sinc=7d", "by=key&by=day", "format=xml"):
                refused = await ask(w, query, "first-key")
                assert refused.status == 400
                assert "expected" in refused.json()["message"]


async def test_without_a_ledger_there_is_nothing_to_see(tmp_path: Path) -> None:
    """404, and it says what to set."""
    async with world(env=KEYS) as w:
        refused = await ask(w, "", "admin-key")
        assert refused.status == 404
        assert "LEDGER_FILE" in refused.json()["message"]


def test_a_file_that_is_no_ledger_is_closed_again(tmp_path: Path) -> None:
    """The server goes on without it, and must not hold it each time it tries."""
    path = tmp_path / "ledger.db"
    path.write_bytes(b"no database" * 100)
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept = []
    for _ in range(3):
        with pytest.raises(sqlite3.DatabaseError) as caught:
            UsageDatabase(path)
        kept.append(caught)  # its traceback would hold what was left open
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_usage_changes_no_file_and_says_which_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program's database is left as it is; so is an empty file."""
    foreign, empty, text = (tmp_path / name for name in ("a.db", "b.db", "c.db"))
    with closing(sqlite3.connect(foreign)) as database:
        database.execute("CREATE TABLE photos (name)")
    empty.touch()
    text.write_text("no database" * 200)
    before = [path.read_bytes() for path in (foreign, empty, text)]
    for path, said in (
        (foreign, "another program's tables"),
        (empty, "a file without a table"),
        (text, "file is not a database"),
    ):
        assert usage_report.main(["--file", str(path)]) == 2
        error = capsys.readouterr().err
        assert str(path) in error
        assert said in error
    assert before == [path.read_bytes() for path in (foreign, empty, text)]
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(sqlite3.DatabaseError, match="another program's tables"):
        UsageDatabase(foreign)  # the server's
    assert foreign.read_bytes() == before[0]


def test_usage_reads_a_ledger_that_is_written_and_survives_a_damaged_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader waits for no writer; a page of rubbish is a message."""
    path = tmp_path / "led?ger#%41.db"
    with closing(UsageDatabase(path)) as ledger:
        ledger.put(msgspec.json.encode(row()) + b"\n")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert usage_report.main(["--file", str(path)]) == 0
    capsys.readouterr()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    assert usage_report.main(["--file", str(path)]) == 2
    assert "malformed" in capsys.readouterr().err


def test_usage_reads_a_ledger_that_it_may_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy on a read-only disk, or another user's: SQLite would make files there."""
    path = tmp_path / "ledger.db"
    with closing(UsageDatabase(path)) as ledger:
        ledger.put(msgspec.json.encode(row()) + b"\n")
    modes: list[str] = []
    real = sqlite3.connect

    def connect(address: str, **options: Any) -> Any:
        modes.append(address.partition("?mode=")[2])
        return real(address, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may do all
    assert usage_report.main(["--file", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "1"
    path.with_name("ledger.db-wal").touch()  # somebody writes, and has made them
    assert usage_report.main(["--file", str(path)]) == 0
    assert modes == ["ro&immutable=1", "rw"]


def test_usage_reads_a_ledger_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """LEDGER_FILE may be a copy on a disk for reading; the server needs to write."""
    path = tmp_path / "ledger.db"
    UsageDatabase(path).close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEDGER_FILE", str(path))
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    with pytest.raises(SettingsError, match="expected a file that can be written"):
        load_settings()
    assert usage_report.main([]) == 0
    assert capsys.readouterr().out.startswith("day ")


def test_usage_without_a_ledger_says_how_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a mistake in the question is told whether there is a ledger or not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEDGER_FILE", raising=False)
    assert usage_report.main([]) == 2
    assert "expected a ledger, got none; name it with --file" in capsys.readouterr().err
    assert usage_report.main(["--file", "x" * 300]) == 2
    assert "expected a ledger, got File name too long at xxx" in capsys.readouterr().err
    assert usage_report.main(["--by", "colour"]) == 2
    assert "by: expected key, user" in capsys.readouterr().err
