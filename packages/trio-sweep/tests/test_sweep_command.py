"""The command's verdicts, its exit codes, and what it refuses to claim."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trio_sweep.command import main

PROGRAM = """
import contextlib, os, signal, time, trio
from trio_sweep import Cause, Program

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it

async def whole():
    print("many lines")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1)
        with trio.move_on_after(2) as patience:
            await trio.sleep(1)

async def broken():
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        pass

async def stubborn():
    while True:
        try:
            await trio.sleep(1)
            return
        except BaseException:
            pass

async def never_waits():
    pass

async def takes_two(one, two):
    await trio.sleep(1)

def not_async():
    pass

async def interrupts():
    count.append(1)
    if len(count) == 6:
        raise KeyboardInterrupt
    await trio.sleep(1)

count = []

async def swallows_until_ctrl_c():
    count.append(1)
    if len(count) == 6:
        raise KeyboardInterrupt
    with contextlib.suppress(BaseException):
        await trio.sleep(1)

async def waits_for_ctrl_c():
    for _ in range(50):
        await trio.sleep(1)
    count.append(1)
    if len(count) == 6:
        os.kill(os.getpid(), signal.SIGINT)
    await trio.sleep(1)

async def kills_itself():
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        os._exit(4)

async def interrupts_itself():
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        raise KeyboardInterrupt

async def writes():
    os.write(1, b"from a process of the program")
    await trio.sleep(1)

async def reads_the_clock():
    end = time.monotonic() + 0.02
    while time.monotonic() < end:
        await trio.sleep(0.01)

@contextlib.asynccontextmanager
async def world():
    yield []

async def in_world(env):
    await trio.sleep(1)

idle = [Cause("nothing", lambda env: False)]
real = [Cause("bang", lambda env: env.append(1))]
fails = [Cause("bang", lambda env: 1 / 0)]
cannot_tell = [Cause("bang", lambda env: None, applies=lambda env: 1 / 0)]
no_causes = ["bang"]
one_cause = real[0]
twins = [Cause("bang", print), Cause("bang", print)]
program = Program(in_world, world)

async def async_check(env):
    pass

def asserts(env):
    assert env == [0], "not so"
"""


def run(
    folder: Path, *arguments: str, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder with the program above."""
    return run_on(subprocess.PIPE, folder, *arguments, **options)


def run_on(
    stderr: int, folder: Path, *arguments: str, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run it with its errors and its progress there."""
    (folder / "program.py").write_text(PROGRAM)
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-m", "trio_sweep", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=120,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    return done


def test_a_whole_program_is_exit_0(tmp_path: Path) -> None:
    """The report counts; what the program prints is not in it."""
    done = run(tmp_path, "program.py:whole", "--pairs")
    assert done.returncode == 0, done.stderr
    assert "no invariant was violated" in done.stdout
    assert "many lines" not in done.stdout
    assert " 0 with two acts" not in done.stdout


def test_a_broken_program_is_exit_1_and_replays(tmp_path: Path) -> None:
    """The report names a command that shows the run step by step, also as a trace."""
    done = run(tmp_path, "program.py:broken")
    assert done.returncode == 1
    assert "trio-sweep program.py:broken --replay '0:0:cancel'" in done.stdout
    again = run(
        tmp_path, "program:broken", "--replay", "0:0:cancel", "--trace", "t.json"
    )
    assert again.returncode == 1
    assert "---- cancel" in again.stdout
    assert "VIOLATED not-swallowed" in again.stdout
    events = json.loads((tmp_path / "t.json").read_text())
    names = {event["name"] for event in events}
    assert {"cancel", "Cancelled: trio-sweep 0:0:cancel", "last step"} <= names
    arrows = {phase: [e for e in events if e["ph"] == phase] for phase in "sf"}
    assert len(arrows["s"]) == len(arrows["f"]) > 0


def test_what_cannot_be_ended_is_ended_and_found(tmp_path: Path) -> None:
    """A program that swallows everything in a loop is a finding, not a hang."""
    done = run(tmp_path, "program.py:stubborn")
    assert done.returncode == 1
    assert "it was ended by force" in done.stdout


IN_WORLD = ["program.py:in_world", "--world", "world"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["program.py:whole", "--seeds", "0"], "at least one seed"),
        (["program.py:whole", "--jobs", "0"], "at least one job"),
        (["program.py:never_waits"], "never waits"),
        (["program.py:takes_two"], "no argument"),
        (["program.py:not_async"], "async function"),
        (["program.py:gone"], "no such name"),
        (["gone.py:whole"], "expected a file"),
        (["gone_module:whole"], "expected a module"),
        (["program.py"], "FILE.py:NAME"),
        (["program.py:whole", "--replay", ""], "SEED:K:CAUSE"),
        (["program.py:whole", "--replay", "x"], "SEED:K:CAUSE"),
        (["program.py:whole", "--replay", "0:"], "SEED:K:CAUSE"),
        (["program.py:whole", "--replay", "0:999:cancel"], "has only"),
        (["program.py:whole", "--replay", "0:0:cancel+999:scope@x"], "had ended"),
        (["program.py:whole", "--replay", "0:0:scope@gone"], "met nothing"),
        (["program.py:whole", "--replay", "0:0:gone"], "expected a cause"),
        (["program.py:whole", "--replay", "0:2:cancel+1:cancel"], "in the order"),
        (
            ["program.py:whole", "--replay", "0:0:cancel+1:cancel+2:cancel"],
            "at most 2",
        ),
        (["program.py:whole", "--trace", "t.json"], "together with --replay"),
        (["program.py:whole", "--allow", "logged"], "expected a reason"),
        (["program.py:whole", "--allow", "nothing=reason"], "expected an invariant"),
        (["program.py:whole", "--package", "gone_module"], "not found"),
        (
            ["program.py:in_world", "--world", "world", "--causes", "idle"],
            "never met anything: nothing",
        ),
        (
            [*IN_WORLD, "--causes", "no_causes"],
            "Cause in causes; got 'bang'",
        ),
        ([*IN_WORLD, "--causes", "one_cause"], "a list of trio_sweep.Cause"),
        ([*IN_WORLD, "--causes", "twins"], "two are 'bang'"),
        (
            [*IN_WORLD, "--causes", "fails", "--jobs", "1"],
            "trio-sweep: run 0:0:bang: a cause of the program raised ZeroDivisionError",
        ),
        (
            [*IN_WORLD, "--causes", "fails", "--jobs", "2"],
            "trio-sweep: run 0:0:bang: a cause of the program raised ZeroDivisionError",
        ),
        (
            [*IN_WORLD, "--causes", "cannot_tell"],
            "trio-sweep: run 0: a cause of the program raised ZeroDivisionError",
        ),
        ([*IN_WORLD, "--check", "async_check"], "check to be a plain function"),
        (["program.py:whole", "--settle", "-1"], "settle_s of 0 or more"),
        (["program.py:whole", "--settle", "nan"], "settle_s of 0 or more"),
        (["program.py:whole", "--json", "--replay", "0"], "--json without --replay"),
        (
            ["program.py:program", "--world", "world", "--check", "asserts"],
            "--world and --check inside of program.py:program",
        ),
        (
            ["program.py:kills_itself", "--jobs", "2"],
            "run 0:0:cancel to end; its process ended itself with status 4",
        ),
        (
            ["program.py:interrupts_itself", "--jobs", "2"],
            "run 0:0:cancel could not be made: KeyboardInterrupt()",
        ),
    ],
)
def test_what_would_prove_nothing_is_exit_2(
    tmp_path: Path,
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A sentence says what was expected; nothing is claimed."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])  # the program's folder goes first
    monkeypatch.setattr("sys.modules", {**sys.modules})
    try:
        status: object = main(arguments)
    except SystemExit as exc:  # argparse's
        status = exc.code
    said = capfd.readouterr()
    assert status == 2, said.out
    assert says in said.err
    assert "no invariant" not in said.out


def test_a_cause_that_lands_is_no_misuse(tmp_path: Path) -> None:
    """Causes of the surroundings are given as a list of a name of the file."""
    named = ["program.py:in_world", "--world", "world", "--causes", "real"]
    done = run(tmp_path, *named)
    assert done.returncode == 0, done.stderr
    again = run(tmp_path, *named, "--replay", "0:0:bang+0:cancel")
    assert again.stdout.index("---- bang") < again.stdout.index("---- cancel")


def test_the_json_says_what_the_text_says(tmp_path: Path) -> None:
    """Findings, counts and coverage are in the document."""
    arguments = ["program.py:broken", "--json", "--package", "program.py"]
    document = json.loads(run(tmp_path, *arguments).stdout)
    assert document["schema"] == 1
    assert [one["token"] for one in document["findings"]] == ["0:0:cancel"]
    (covered,) = document["coverage"]["covered"]
    assert covered.startswith("program.py:")
    assert covered.endswith(" in broken")


def test_two_sweeps_and_any_number_of_jobs_give_the_same_bytes(tmp_path: Path) -> None:
    """Neither hash seed, nor process, nor the number of cores shows in a report."""
    base = ["program.py:whole", "--pairs", "--json"]
    texts = {
        run(
            tmp_path,
            *base,
            "--jobs",
            jobs,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for jobs, hash_seed in (("1", "1"), ("2", "2"), ("3", "3"))
    }
    assert len(texts) == 1
    assert json.loads(texts.pop())["with_two_acts"] > 0


@pytest.mark.parametrize("name", ["interrupts", "waits_for_ctrl_c"])
def test_ctrl_c_stops_at_once_and_claims_nothing(tmp_path: Path, name: str) -> None:
    """The report says how many runs were made, and is not clean."""
    done = run(tmp_path, f"program.py:{name}", "--jobs", "1")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "INTERRUPTED after" in done.stdout
    assert "no invariant" not in done.stdout
    assert "VIOLATED" not in done.stdout


def test_ctrl_c_keeps_what_was_found(tmp_path: Path) -> None:
    """A violation before it is reported, with status 1."""
    done = run(tmp_path, "program.py:swallows_until_ctrl_c", "--jobs", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "INTERRUPTED after" in done.stdout
    assert "VIOLATED not-swallowed" in done.stdout


def test_progress_is_shown_on_a_terminal_with_an_estimate(tmp_path: Path) -> None:
    """It says how far the sweep is and how long it may take, and goes away at last."""
    ours, theirs = pty.openpty()
    done = run_on(theirs, tmp_path, "program.py:whole", "--seeds", "1", "--jobs", "1")
    os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        shown = terminal.read1(65_536).decode()
    assert done.returncode == 0
    assert re.match(r"\rseed 0: 1 of \d+ points, about \d+ s left ", shown)
    assert re.search(r"\r +\r$", shown)


def test_ctrl_c_ends_the_processes_too(tmp_path: Path) -> None:
    """Of a sweep over two cores nothing is left."""
    (tmp_path / "long.py").write_text(
        "import os, signal, trio\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "parent = os.getpid()\n"
        "async def body():\n"
        "    if os.getpid() != parent:\n"
        "        os.write(2, b'in a process of its own\\n')  # whole, from each\n"
        "    for _ in range(100):\n"
        "        await trio.sleep(1)\n"
    )
    command = [sys.executable, "-m", "trio_sweep", "long.py:body", "--jobs", "2"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "in a process of its own\n"
        os.killpg(process.pid, signal.SIGINT)
        text, _ = process.communicate(timeout=60)
    assert process.returncode == 2, text
    assert "INTERRUPTED after" in text
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = = 1", "SyntaxError: invalid syntax"),
        ("import gone_module", "No module named 'gone_module', raised at failing.py:1"),
        ("raise OSError('no file')", "OSError: no file, raised at failing.py:1"),
        ("raise SystemExit('bye')", "SystemExit: bye, raised at failing.py:1"),
    ],
)
def test_a_file_that_cannot_be_imported_is_no_finding(
    tmp_path: Path, source: str, says: str
) -> None:
    """Status 1 would say that the sweep has found something."""
    (tmp_path / "failing.py").write_text(f"{source}\n")
    for target in ("failing.py:body", "failing:body"):
        done = run(tmp_path, target)
        assert done.returncode == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_a_file_of_a_package_is_imported_as_such(tmp_path: Path) -> None:
    """It may import its neighbours by relative names."""
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    (tmp_path / "outer" / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "one.py").write_text("from ..two import body\n")
    two = tmp_path / "outer" / "two.py"
    two.write_text("import trio\nasync def body():\n    await trio.sleep(1)\n")
    done = run(tmp_path, "outer/inner/one.py:body")
    assert done.returncode == 0, done.stderr


def test_nothing_but_the_report_is_printed(tmp_path: Path) -> None:
    """Neither what an import prints, nor what is written past Python's stream."""
    (tmp_path / "loud.py").write_text(
        "print('at import')\nfrom program import writes\n"
    )
    document = json.loads(run(tmp_path, "loud.py:writes", "--json").stdout)
    assert document["findings"] == []


def test_a_program_that_no_token_repeats_is_found_by_its_token(tmp_path: Path) -> None:
    """The replay compares its run with another one, as the sweep has done."""
    done = run(tmp_path, "program.py:reads_the_clock", "--replay", "0")
    assert done.returncode == 1
    assert "VIOLATED deterministic" in done.stdout


def test_a_replay_allows_what_the_sweep_allowed(tmp_path: Path) -> None:
    """Otherwise no mend of another finding could be seen to work."""
    allowed = ["--allow", "not-swallowed=a reason"]
    report = run(tmp_path, "program.py:broken", *allowed, "--check", "asserts").stdout
    assert "--check asserts --allow 'not-swallowed=a reason' --replay" in report
    again = run(tmp_path, "program.py:broken", *allowed, "--replay", "0:0:cancel")
    assert again.returncode == 0
    assert "allowed not-swallowed: it returned" in again.stdout


def test_a_check_may_assert(tmp_path: Path) -> None:
    """What it raises is a complaint about the state, not about the surroundings."""
    done = run(tmp_path, *IN_WORLD, "--check", "asserts")
    assert "VIOLATED state (9 runs): check itself raised AssertionError: not so" in (
        done.stdout
    )
    assert "not-escaped" not in done.stdout
