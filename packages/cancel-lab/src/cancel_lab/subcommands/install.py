"""``install``: the servers of the comparison that need an environment of their own."""

from __future__ import annotations

import argparse
import sys

from cancel_lab.adapters.adapter import Adapter
from cancel_lab.adapters.catalogue import ADAPTERS
from cancel_lab.adapters.install import Install, InstallError
from cancel_lab.subcommands.shared import Subparsers, UsageError


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    known = [name for name, adapter in ADAPTERS.items() if _own(adapter)]
    parser = subparsers.add_parser(
        "install", help="install servers that are compared, below LAB_SERVERS"
    )
    parser.add_argument("names", nargs="+", help=f"{', '.join(known)}, or all")
    parser.set_defaults(run_lab=_install)


def _own(adapter: Adapter) -> Install | None:
    return None if adapter.home_of else adapter.install


def _install(arguments: argparse.Namespace) -> int:
    """Install each; 1 if some could not be, and why is said."""
    installs = {name: _own(adapter) for name, adapter in ADAPTERS.items()}
    names = [name for name in arguments.names if name != "all"]
    if "all" in arguments.names:
        names = [name for name, install in installs.items() if install]
    failed = 0
    for name in names:
        install = installs.get(name)
        if install is None:
            raise UsageError(f"expected a server with an install, got {name}")
        try:
            folder = install.run(name)
        except InstallError as exc:
            print(f"{name}: {exc}", file=sys.stderr)
            failed += 1
            continue
        print(f"{name} {install.installed_version(name)} in {folder}")
    return 1 if failed else 0
