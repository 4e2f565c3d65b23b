"""`python -m trio_ai_stream`, and what the command `trio-ai-stream` runs."""

from __future__ import annotations

import os
import signal
import sys


def run() -> int:
    """Run the command line; return its exit status.

    Ctrl-C while that is only imported ends the process without a traceback. Process 1
    keeps its handler: what it has none for, the kernel drops.
    """
    handler = signal.getsignal(signal.SIGINT)
    waits = handler is signal.default_int_handler and os.getpid() != 1
    if waits:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from trio_ai_stream.cli import main

    try:
        if waits:
            signal.signal(signal.SIGINT, handler)
        return main()
    except KeyboardInterrupt:
        return 130  # as a shell reports SIGINT


if __name__ == "__main__":
    sys.exit(run())
