"""What the whole suite shares: how its processes load their modules and collect."""

from __future__ import annotations

import gc
import os
import sys

import pytest
from hypothesis import settings

# A busy machine may take any time for an example; a test of time says so itself.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")
# The tests start some two hundred Python processes. Where this variable is set, as it
# is in many containers, each of them compiles every module that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Nor does each read what every package that is installed here says of plugins.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each core, and one: most of what tests do is wait for processes."""
    return 2 * (os.cpu_count() or 1) + 1


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let no collection look again at what was loaded: it lives as long as the run."""
    gc.collect()
    gc.freeze()


# Files that take long, and that other files would otherwise wait for at the end.
FIRST = (
    "tests/sweep/test_sweep.py",
    "tests/bench",
    "tests/browser",
    "tests/e2e",
    "tests/admission/test_servers.py",
    "tests/resume/test_processes.py",
    "tests/clients",
    "packages/trio-sweep",
    "packages/cancel-lab",
    "tests/deploy",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files, so that all workers end at about the same time."""

    def rank(item: pytest.Item) -> int:
        places = (n for n, start in enumerate(FIRST) if item.nodeid.startswith(start))
        return next(places, len(FIRST))

    items.sort(key=rank)
