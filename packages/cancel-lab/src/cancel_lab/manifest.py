"""The manifest: with what, on what and how a set of results was made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cancel_lab.placement import PLACEMENT

PACKAGES = (
    "trio", "hypercorn", "quart", "quart-trio", "httpx", "httpcore", "h11", "h2",
    "fastapi", "starlette", "uvicorn", "sse-starlette",
)  # fmt: skip


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def versions() -> dict[str, str | None]:
    """Return the installed version of each package that a result may depend on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, str | bool | None]:
    """Return the commit of the source tree this module stands in, and if it is dirty.

    An installed wheel has no commit; then both are ``None``.
    """
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command, no shell
                ["git", *arguments],  # noqa: S607 - git is where PATH says
                cwd=here, capture_output=True, text=True, timeout=5, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    sha = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--", str(here.parent))
    return {"sha": sha, "dirty": None if changes is None else bool(changes)}


def machine() -> dict[str, str | int | None]:
    """Return what of the machine bears on a latency; nothing that names it."""
    cpu0 = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    clock = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "placement": None if PLACEMENT is None else str(PLACEMENT),
        "governor": _first_line(cpu0),
        "clock_source": _first_line(clock),
        "load_average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _portable(word: str) -> str:
    """Return a word of the command line without the folders of this machine."""
    return Path(word).name if word.startswith("/") else word


def manifest(
    config: Mapping[str, object], *, seeds: Sequence[int] = (), started_ns: int
) -> dict[str, object]:
    """Return the manifest of a run that began at ``started_ns`` and ends now.

    ``config`` is what the run was asked to do; its hash tells equal set-ups apart from
    similar ones. ``started_ns`` is of ``time.monotonic_ns``.
    """
    text = json.dumps(config, sort_keys=True, default=str)
    return {
        "versions": versions(),
        "git": git_state(),
        "machine": machine(),
        "seeds": list(seeds),
        "config": json.loads(text),
        "config_hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        "command": [_portable(word) for word in sys.argv],
        "wall_time_s": round((time.monotonic_ns() - started_ns) / 1e9, 3),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def write(path: Path, content: Mapping[str, object]) -> None:
    """Write a manifest as indented JSON; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
