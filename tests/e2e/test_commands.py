"""Every command in the README and in docs/ runs as it is written.

Each group of commands runs in a network namespace of its own, so that the ports which
the documents name are free, and in an empty folder. What stands before this project
there, `pip` and `uv run`, is on the machine already: both are replaced by scripts that
run the rest of the line.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.docs import ROOT

READY = (
    "curl -sk --retry 60 --retry-connrefused --retry-delay 1 -o /dev/null"
    " {scheme}://localhost:8080/ready"
)
COMMENT = re.compile(r"\s{2,}#.*")


TUTORIAL = ROOT / "docs" / "tutorial.md"


def blocks_of(document: Path) -> list[str]:
    """Return the blocks of commands in a document, in order."""
    found = []
    blocks = re.findall(
        r"```(bash|sh|console)\n(.*?)```", document.read_text(), re.DOTALL
    )
    for kind, block in blocks:
        if kind == "console":  # the commands among what they print
            lines = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
            block = "\n".join(lines)
        found.append("\n".join(COMMENT.sub("", line) for line in block.splitlines()))
    return found


def documented() -> dict[str, str]:
    """Return each block of commands by the first words of it, but for the tutorial's.

    What needs other people's programs is a block of text, not of commands.
    """
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    documents.remove(TUTORIAL)
    blocks = [block for document in documents for block in blocks_of(document)]
    return {" ".join(block.split()[:5]): block for block in blocks}


BLOCKS = documented()
SERVE = "pip install uv && uv"
ASK = "curl -N localhost:8080/chat -H 'content-type:"
HYPERCORN = "uv run hypercorn -c hypercorn.toml"
TLS = "uv run trio-ai-stream dev-cert >>"
SHARED = "export REDIS_URL=redis://localhost:6379 MAX_CONCURRENT_STREAMS=1 PORT=8081 uv"
USAGE = "trio-ai-stream usage --since 7d --outcome"
CLIENT = 'trio-ai-stream chat --url https://chat.example.com "Why'
RESUME = "curl -sN -D head.txt -H"


def test_no_command_is_left_out() -> None:
    """A new block of commands is run by a test: of this module, or of tests/resume."""
    here = [SERVE, ASK, HYPERCORN, TLS, SHARED, USAGE, CLIENT]
    assert sorted(BLOCKS) == sorted([*here, RESUME])


def possible() -> bool:
    """Whether this machine lets us have a network namespace."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    command = ["unshare", "-rn", "ip", "link", "set", "lo", "up"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `uv` and `pip` that run what is here, and hypercorn.toml."""
    if not possible() or shutil.which("curl") is None:
        pytest.skip("needs curl and network namespaces (unshare, iproute2)")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    scripts = {
        "uv": '[ "$1" = run ] && shift; [ "$1" = --extra ] && shift 2; exec "$@"',
        "pip": "exit 0",
    }
    for name, text in scripts.items():
        script = binaries / name
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    shutil.copy(ROOT / "hypercorn.toml", tmp_path)
    return tmp_path


def run(folder: Path, script: str, *, fails: bool = False) -> str:
    """Run a script as a person would; whatever it started ends with it."""
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["unshare", "-rn", "--pid", "--fork", "--kill-child", "bash", "-c",
         f"ip link set lo up\nset -e\n{script}"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def in_background(line: str, scheme: str = "http") -> str:
    """A server's line as it runs in another shell, and the wait until it is ready."""
    return f"( {line} ) 2>/dev/null &\n{READY.format(scheme=scheme)}"


def test_the_first_commands(folder: Path) -> None:
    """A server, and the first question to it."""
    serve, tests = BLOCKS[SERVE].splitlines()
    assert tests == "pip install uv && uv run pytest"  # this run
    shown = run(folder, f"{in_background(serve)}\n{BLOCKS[ASK]}")
    assert shown.count('"type":"content"') == 3
    assert '"type":"done"' in shown


def test_plain_hypercorn(folder: Path) -> None:
    """It answers at the address that hypercorn.toml names."""
    shown = run(folder, f"{in_background(BLOCKS[HYPERCORN])}\n{BLOCKS[ASK]}")
    assert '"type":"done"' in shown


def test_a_certificate_for_this_machine(folder: Path) -> None:
    """Written, used by the server, and trusted by curl."""
    certificate, serve, ask = BLOCKS[TLS].splitlines()
    shown = run(folder, f"{certificate}\n{in_background(serve, 'https')}\n{ask}")
    assert '"status":"ok"' in shown


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_more_than_one_machine(folder: Path) -> None:
    """The second server refuses, and then cancels the first one's stream."""
    redis = "redis-server --port 6379 --save '' --daemonize yes >/dev/null"
    shown = run(folder, f"{redis}\n{BLOCKS[SHARED]}")
    assert '"error_type":"too_many_streams"' in shown
    assert '{"id":"mine","outcome":"cancelled","state":"streaming"' in shown


def test_the_terminal_client(folder: Path) -> None:
    """The example's host is nobody's; the other command asks a server of ours."""
    elsewhere, piped = BLOCKS[CLIENT].splitlines()
    assert "https://chat.example.com" in run(folder, elsewhere, fails=True)
    start = in_background(BLOCKS[SERVE].splitlines()[0])
    diff = "git init -q .; echo one > a; git add a; echo two > a"
    assert "completed" in run(folder, f"{start}\n{diff}\n{piped}")


def test_what_departed_clients_cost(folder: Path) -> None:
    """A client leaves a server that keeps a ledger; the table has its stream."""
    start = in_background(BLOCKS[SERVE].splitlines()[0])
    leave = (
        "curl -sN -m 1 localhost:8080/chat -H 'content-type: application/json'"
        """ -d '{"prompt":"x","model":"simulator/endless"}' | wc -c"""
    )
    asked = f"until {BLOCKS[USAGE]} | tee shown | grep -w 1; do sleep 0.2; done"
    shown = run(folder, f"export LEDGER_FILE=$PWD/ledger\n{start}\n{leave}\n{asked}")
    assert "Traceback" not in shown


def test_the_tutorial(folder: Path) -> None:
    """Its commands, in their order; Ctrl-C is pressed where it says so."""
    serve, ask, chat, begin, cancel, settings, again, keys, last = blocks_of(TUTORIAL)
    assert serve == again
    server = "SERVER=$!"
    started = f"{in_background(serve)}\n{server}\n{ask}\n{chat}\n{begin}\n{cancel}"
    shown = run(folder, f"{started}\nkill $SERVER")
    assert shown.count('"type":"done"') == 1
    assert "[completed: " in shown
    assert "scope deadline" in shown
    assert '"outcome":"cancelled"' in shown
    assert '"error_type":"cancelled"' in shown
    assert "\n0 live streams\n" in shown
    started = f"{settings}\n{in_background(serve)}\n{server}\n{keys}"
    last = last.replace("chunks=20", "chunks=3")  # less time to press Ctrl-C
    begun = "until grep -q connected answer.txt; do sleep 0.1; done"
    # The file is emptied first: an answer of before has begun as well.
    asked = f": > answer.txt\n( {last} ) > answer.txt &\n{begun}"
    ending = f"{asked}\nkill $SERVER\nwait\ncat answer.txt"
    shown = run(folder, f"{started}\n{ending}")
    assert "API_KEYS=(1 set)" in shown
    assert '"code":401' in shown
    assert '"status":"ready"' in shown
    assert (
        shown.rstrip().splitlines()[-1].startswith('data: {"content":"","request_id"')
    )
    assert shown.count('"type":"done"') == 2
