"""The sweep finds nothing in the program, repeats itself, and cannot hang."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
import trio

from tests.sweep.coverage import classify
from tests.sweep.invariants import violations
from tests.sweep.plan import QUICK, Plan
from tests.sweep.replay import replay
from tests.sweep.run import Run, quiet, run_once
from tests.sweep.sweep import Findings, Sweep
from tests.sweep.token import Token
from tests.sweep.world import World


@pytest.fixture(scope="module")
def findings() -> Findings:
    """Return what the quick sweep of every scenario comes to."""
    with quiet():
        return Sweep(QUICK).run()


def test_no_invariant_is_violated(findings):
    """A cause at every boundary of every scenario leaves every invariant standing."""
    found = [f"{v.token}: {v.invariant}: {v.found}" for v in findings.violations]
    assert found == []
    assert findings.hung == 0


def test_every_await_of_the_stream_path_is_reached(findings):
    """No await site is left out without a reviewed reason."""
    coverage = classify(findings.suspended, findings.executed)
    missed = [f"{one.path}:{one.line} {one.function}" for one in coverage.missed]
    assert missed == []


def test_cancels_meet_tasks_in_every_state(findings):
    """Tasks were hit waiting, due to run, behind a shield, and outside the cancel."""
    assert set(findings.verdicts) == {"delivered", "deferred", "shielded", "spared"}


# Each was a violation once; the boundary moves with the code, so its neighbours run
# as well, and a mutant of its own holds the mistake itself.
@pytest.mark.parametrize(
    ("scenario", "seed", "k", "cause"),
    [
        ("plain", 0, 13, "disconnect"),  # OPENED after the ending
        ("plain", 0, 16, "cancel"),  # the same, cancelled by id
        ("flood", 0, 112, "disconnect"),  # a read after the ending
        ("slow-heartbeat", 0, 24, "cancel"),  # a heartbeat beside the terminal event
        ("cross-origin", 0, 2, "stall"),  # gone between its body and its admission
        ("flood", 0, 24, "error"),  # a retry of an answer that had begun unseen
        ("document-refused", 1, 16, "disconnect"),  # a closed connection, kept
    ],
)
def test_what_the_sweep_found_stays_mended(scenario, seed, k, cause):
    """Each run that once violated an invariant passes, as do those around it."""
    with quiet():
        for near in range(k - 2, k + 3):
            run = run_once(Token(scenario, seed, ((near, cause),)))
            assert violations(run) == [], str(run.token)


def test_two_causes_leave_the_invariants_standing():
    """A second cause while the first is being dealt with changes nothing but time."""
    plan = Plan("pairs", scenarios=("late-end",), causes=(), pairs=(("drain", "kill"),))
    with quiet():
        found = Sweep(plan).run()
    assert found.depth2 > 10
    assert [str(one.token) for one in found.violations] == []


def test_a_sweep_stops_when_no_state_is_new():
    """Seeds are added until two in a row show nothing new."""
    plan = Plan("few", scenarios=("error-200",), seeds=9, causes=("kill",))
    with quiet():
        found = Sweep(plan).run()
    fresh = [one.fresh for one in found.schedules]
    assert fresh[-2:] == [0, 0]
    assert len(fresh) < 9


def test_two_sweeps_print_the_same_bytes(tmp_path):
    """Neither the process nor Python's hash seed shows in a report or in its rows."""

    def digest(hash_seed: str) -> str:
        rows = tmp_path / f"{hash_seed}.jsonl"
        command = [sys.executable, "-m", "tests.sweep"]
        chosen = ["--scenario", "body-in-pieces", "--scenario", "contention"]
        done = subprocess.run(
            [*command, *chosen, "--jsonl", str(rows)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            timeout=120,
            check=True,
        )
        return hashlib.sha256(done.stdout + rows.read_bytes()).hexdigest()

    assert digest("1") == digest("2")


def test_a_replay_tells_one_run_and_repeats_it():
    """A token's text shows the act where it lands, and comes out the same again."""
    token = Token("plain", 0, ((20, "disconnect"),))
    text, bad = replay(token)
    assert not bad
    assert "---- disconnect in " in text
    assert "client_disconnected" in text
    assert replay(token) == (text, bad)


def test_a_program_that_hangs_is_ended_and_shown(monkeypatch):
    """A task that nobody wakes, behind an unbounded shield, does not hang a sweep."""

    async def stuck(_world: World) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    monkeypatch.setattr(World, "_ask_again", stuck)
    with quiet():
        run: Run = run_once(Token("error-200", 0))
    assert run.injector.hung
    assert "exit bounded" in dict(violations(run))
