"""What the cost of resuming is measured against: a server without its lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.resuming import without_resuming


def test_the_server_without_resuming_can_be_made(tmp_path: Path) -> None:
    """Each of its lines is found in the source, and what is left can be imported."""
    copy = without_resuming(tmp_path)
    program = "import trio_ai_stream.app_factory as a; print(a.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == str(copy / "trio_ai_stream" / "app_factory.py")
