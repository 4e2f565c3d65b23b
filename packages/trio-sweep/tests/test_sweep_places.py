"""Places and labels lead to the program, not to the library that it waits in."""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from trio_sweep import MemoryListener, Program, Report, sweep
from trio_sweep.engine import Sweep
from trio_sweep.plan import Plan
from trio_sweep.replay import replay

HERE = "test_sweep_places.py"


async def ignore(_: object) -> None:
    """Serve nothing."""


def labels(report: Report) -> set[str]:
    """Return the labels of the scopes inside that were cancelled."""
    scopes = {name.removeprefix("scope@") for name in report.landed} - {"cancel"}
    return {label.rpartition("/")[2] for label in scopes}


def test_an_anyio_program_is_named_by_its_own_lines() -> None:
    """Two places of one program are two findings, though both wait in AnyIO."""
    anyio = pytest.importorskip("anyio")

    async def swallows_twice() -> None:
        with contextlib.suppress(BaseException):
            await anyio.sleep(1)
        with contextlib.suppress(BaseException), anyio.fail_after(2):
            await anyio.sleep(1)

    report = sweep(swallows_twice, scopes=False)
    line = swallows_twice.__code__.co_firstlineno
    texts = sorted(found.text for found in report.findings)
    assert len(texts) == 2
    assert f"{HERE}:{line + 2} in " in texts[0]
    assert f"{HERE}:{line + 4} in " in texts[1]


def test_a_scope_of_an_anyio_program_is_called_after_who_opened_it() -> None:
    """Neither after AnyIO's own function, nor after a task's own scope."""
    anyio = pytest.importorskip("anyio")

    async def opens() -> None:
        with anyio.move_on_after(5), anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 1)
                await anyio.sleep(1)

    mine = f"{HERE}:{opens.__qualname__}"
    assert labels(sweep(opens)) == {f"{mine}:{number}" for number in range(3)}


def test_a_scope_of_a_library_is_not_called_after_who_sweeps() -> None:
    """Else a token would be another one under pytest, the command and a debugger."""

    async def serves() -> None:
        async with trio.open_nursery() as nursery:
            serve = functools.partial(trio.serve_listeners, ignore, [MemoryListener()])
            nursery.start_soon(serve, name="serving")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

    found = labels(sweep(serves))
    assert "serving:0" in found
    assert all(one.startswith(("serving:", HERE)) for one in found), found


def test_a_task_that_a_library_runs_alone_is_somewhere() -> None:
    """The place is that of the library's function, not of Trio's innermost one."""

    async def waits() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.Event().wait)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

    text, holds = replay(Sweep(Program(waits), Plan(), "waits"), "0")
    assert holds
    assert re.search(r"wait at trio/_sync\.py:\d+ in Event\.wait\n", text)


def test_code_without_a_file_is_swept_in_a_folder_of_a_package(tmp_path: Path) -> None:
    """Such as what attrs makes; its name is taken as it is."""
    (tmp_path / "__init__.py").touch()
    (tmp_path / "program.py").write_text(
        "names = {}\n"
        "exec('async def body():\\n import trio\\n await trio.sleep(1)', names)\n"
        "body = names['body']\n"
        "async def fails():\n"
        "    await body()\n"
        "    exec('1 / 0')\n"
    )
    command = [sys.executable, "-m", "trio_sweep", "--jobs", "1"]
    for name, says in (
        ("body", "no invariant was violated"),
        ("fails", "raised at <string>:1"),
    ):
        done = subprocess.run(
            [*command, f"program.py:{name}"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        assert says in done.stdout
