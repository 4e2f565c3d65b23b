"""A program that is `trio-ai-stream serve` with the server tests' application."""

from __future__ import annotations

import gc
import logging
import sys

from trio_ai_stream.cli import serve_under
from trio_ai_stream.settings import load_settings

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    code = serve_under(
        load_settings(env_file=None),
        application="tests.support.server.process:app",
        command=(sys.executable, "-m", "tests.support.server.supervised"),
    )
    sys.stderr.write(f"left for the exit to collect: {len(gc.get_objects())}\n")
    sys.exit(code)
