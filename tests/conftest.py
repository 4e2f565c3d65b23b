"""What the whole suite shares: how its processes load their modules and collect."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

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


# A shell gives commands in the background an ignored SIGINT, and so would all servers
# that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HANDLED = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Put signals' handlers back: a server ignores them at its end, for good.

    What is ignored here is ignored in each process that a later test starts: Hypercorn
    could not end its workers, seconds after this process had run a server.
    """
    kept = [(signum, signal.getsignal(signum)) for signum in HANDLED]
    yield
    for signum, handler in kept:
        signal.signal(signum, handler)


# Files that take long, and that other files would otherwise wait for at the end.
FIRST = (
    "tests/sweep/test_sweep.py",
    "tests/clients",
    "tests/browser",
    "tests/bench",
    "tests/e2e",
    "tests/admission/test_servers.py",
    "tests/resume/test_processes.py",
    "packages/trio-sweep",
    "packages/cancel-lab",
    "tests/deploy",
)
# Files that one worker runs, as each of them would otherwise spend a second or more of
# a core on the same: importing SDKs, starting a server and a browser, resampling.
TOGETHER = {
    "SDKs": re.compile(
        r"tests/clients/test_(?!node|llm|schemathesis)|tests/simulator/test_block_enc"
    ),
    "programs that are clients": re.compile("tests/clients/"),
    "browser, first half": re.compile("tests/browser/test_[a-c]"),
    "browser, second half": re.compile("tests/browser/test_[d-z]"),
    "published tables": re.compile(
        "tests/test_docs.py|packages/cancel-lab/tests/test_(published|report)"
    ),
}


class FilesTogether(LoadFileScheduling):  # type: ignore[misc]
    """Gives a file to one worker, and some files to the same."""

    def _split_scope(self, nodeid: str) -> str:
        groups = (name for name, files in TOGETHER.items() if files.match(nodeid))
        return next(groups, super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(
    config: pytest.Config, log: Producer
) -> LoadFileScheduling:
    """Schedule files, not tests: servers are started once for each file."""
    return FilesTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files, so that all workers end at about the same time."""

    def rank(item: pytest.Item) -> int:
        places = (n for n, start in enumerate(FIRST) if item.nodeid.startswith(start))
        return next(places, len(FIRST))

    items.sort(key=rank)
