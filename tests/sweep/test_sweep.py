"""The sweep finds nothing in the program, repeats itself, and never lies."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import msgspec
import pytest
import trio

from tests.sweep import tables
from tests.sweep.__main__ import main, replay_token
from tests.sweep.causes import SCOPE_KINDS, scope_kind
from tests.sweep.mutants.verdict import Verdict
from tests.sweep.programs import program, quiet
from tests.sweep.recorded import Recorded
from tests.sweep.scenarios import SCENARIOS
from tests.sweep.sweeping import (
    ALLOWED,
    Findings,
    drained_and_killed,
    plans,
    sweep_all,
)
from tests.sweep.world import World
from trio_sweep.invariants import violations
from trio_sweep.run import run_once
from trio_sweep.token import Token


@pytest.fixture(scope="module")
def findings() -> Findings:
    """Return what a quick sweep of every scenario comes to.

    In this process: the cores are busy with other tests, and forks would cost more.
    """
    return sweep_all(plans(SCENARIOS))


def test_no_invariant_is_violated(findings):
    """A cause in every state of each scenario leaves every one standing."""
    assert findings.violations() == []


def test_no_waiver_is_kept_that_is_not_needed(findings):
    """What is allowed happened; each scope is of a known kind, and each kind is met."""
    assert set(findings.waived) == set(ALLOWED)
    kinds = {scope_kind(label) for label in findings.labels}
    assert kinds == set(SCOPE_KINDS)


def test_an_act_lands_at_every_await_of_the_stream_path(findings):
    """No await site is left out without a reviewed reason, and no reason is stale."""
    coverage = findings.coverage()
    assert [str(one) for one in coverage.missed] == []
    assert coverage.stale == []
    assert len(coverage.covered) > 100


def test_a_cause_meets_what_other_tasks_do_where_a_scenario_says_so(findings):
    """A cancel is tried more often there than the request has states."""
    for name, cause in ("shared", "cancel"), ("document-refused", "disconnect"):
        report = findings.reports[name]
        assert report.landed[cause] > report.states


def test_cancels_meet_tasks_in_every_state(findings):
    """Tasks were hit waiting, due to run, behind a shield, and outside the cancel."""
    assert {"delivered", "deferred", "shielded", "spared"} <= set(findings.fates)


# Each was a violation once; the boundary moves with the code, so its neighbours run
# as well, and a mutant of its own holds the mistake itself.
@pytest.mark.parametrize(
    ("scenario", "seed", "k", "cause"),
    [
        ("plain", 0, 13, "disconnect"),  # OPENED after the ending
        ("plain", 0, 16, "stop"),  # the same, cancelled by id
        ("flood", 0, 112, "disconnect"),  # a read after the ending
        ("slow-heartbeat", 0, 24, "stop"),  # a heartbeat beside the terminal event
        ("cross-origin", 0, 2, "stall"),  # gone between its body and its admission
        ("flood", 0, 24, "error"),  # a retry of an answer that had begun unseen
        ("document-refused", 1, 16, "disconnect"),  # a closed connection, kept
        ("document", 0, 26, "cancel"),  # all but the last byte, which the end takes
        ("document", 0, 23, "drain"),  # leaves an answer that goes out as it is
    ],
)
def test_what_the_sweep_found_stays_mended(scenario, seed, k, cause):
    """Each run that once violated an invariant passes, as do those around it."""
    swept = program(SCENARIOS[scenario])
    with quiet():
        for near in range(k - 2, k + 3):
            run = run_once(swept, Token(seed, ((near, cause),)))
            assert violations(run, swept) == [], str(run.token)


def test_two_causes_leave_the_invariants_standing():
    """A second cause while the first is being dealt with changes nothing but time."""
    found = sweep_all({"late-end": drained_and_killed()})
    assert found.reports["late-end"].with_two_acts > 10
    assert found.violations() == []


def test_a_record_is_whole_after_each_scenario_and_is_continued(tmp_path, capsys):
    """What is in it is not swept again; one of another kind is refused."""
    path = tmp_path / "quick.json"
    chosen = ["--record", str(path), "--jobs", "1", "--scenario"]
    assert main([*chosen, "unanswered"]) == 0
    first = Recorded.read(path)
    assert list(first.scenarios) == ["unanswered"]
    assert len(first.scenarios) < first.known == len(SCENARIOS)
    assert first.coverage["stream"][0] > 5
    assert main([*chosen, "unanswered", "--scenario", "error-200"]) == 0
    assert capsys.readouterr().out.count("unanswered ") == 1
    both = Recorded.read(path)
    assert both.scenarios["unanswered"] == first.scenarios["unanswered"]
    assert both.total("runs") > first.total("runs") > 10
    assert set(both.met) > set(first.met)
    both.kind = "full"
    path.write_bytes(msgspec.json.encode(both))
    assert main([*chosen, "models"]) == 2
    assert "take another file" in capsys.readouterr().err


def test_a_table_is_made_of_what_is_recorded(tmp_path, monkeypatch):
    """Every table of the page, from records of a sweep that was just made."""
    quick, full = tmp_path / "quick.json", tmp_path / "full.json"
    assert main(["--record", str(quick), "--scenario", "error-200"]) == 0
    full.write_bytes(quick.read_bytes())
    found = Verdict(mutant="long-shield", arm="sweep", killed=True, runs=7)
    (tmp_path / "mutants.json").write_bytes(msgspec.json.encode([found]))
    resume = ["--resume", "300", "--record", str(tmp_path / "resume.json")]
    assert main(resume) == 0
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    made = {name: getattr(tables, name)() for name in tables.TABLES}
    assert f"| quick | 1 of {len(SCENARIOS)} |" in made["results"]
    assert "| `disconnect` |" in made["acts"]
    assert "| `relay:nursery` | `cancel` |" in made["scopes"]
    assert all(f"| `{key}` |" in made["waivers"] for key in ALLOWED)
    assert "| `stream/` |" in made["coverage"]
    assert "| `long-shield` |" in made["mutants"]
    assert "| `/chat`, plain | 300 | " in made["resuming"]
    assert "| reader_bug | " in made["resuming_causes"]


def test_two_sweeps_print_the_same_bytes():
    """Neither the process, nor its number, nor Python's hash seed shows in a report."""

    chosen = ["--scenario", "body-in-pieces", "--scenario", "contention"]

    def digest(hash_seed: str, jobs: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.sweep", "--jobs", jobs, *chosen],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            timeout=120,
            check=True,
        )
        return hashlib.sha256(done.stdout).hexdigest()

    assert digest("1", "1") == digest("2", "2")


def test_a_replay_tells_one_run_and_repeats_it():
    """A token's text shows the act where it lands, and comes out the same again."""
    text, holds = replay_token("plain:0:20:disconnect")
    assert holds
    assert "---- disconnect" in text
    assert replay_token("plain:0:20:disconnect") == (text, holds)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seeds", "0"], "at least one seed"),
        (["--jobs", "0"], "at least one job"),
        (["--replay", ""], "expected SCENARIO:SEED"),
        (["--replay", "plain"], "expected SCENARIO:SEED"),
        (["--replay", "nothing:0"], "expected SCENARIO:SEED"),
        (["--replay", "plain:0:5000:kill"], "has only"),
        (["--replay", "plain:0:1:no-such-cause"], "expected a cause"),
        (["--replay", "plain:0:0:idle"], "met nothing"),
        (["--replay", "plain:0:9:kill+3:stop"], "in the order"),
        (["--trace", "t.json"], "with --replay"),
    ],
)
def test_what_would_prove_nothing_is_refused(arguments, says, capsys):
    """Misuse ends with status 2 and a sentence, never with `nothing was found`."""
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_a_program_that_hangs_is_ended_and_shown(monkeypatch):
    """A task that nobody wakes, behind an unbounded shield, does not hang a sweep."""

    async def stuck(_world: World) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    monkeypatch.setattr(World, "serve_target", stuck)
    swept = program(SCENARIOS["error-200"])
    with quiet():  # its timers go on; no whole run of it has so many steps
        run = run_once(swept, Token(0), most_steps=2_000)
    assert "ends" in {one.invariant for one in violations(run, swept)}
