"""What the whole suite shares: how its processes load their modules and collect."""

from __future__ import annotations

import gc
import os
import sys

import pytest

# The tests start some two hundred Python processes. Where this variable is set, as it
# is in many containers, each of them compiles every module that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let no collection look again at what was loaded: it lives as long as the run."""
    gc.collect()
    gc.freeze()
