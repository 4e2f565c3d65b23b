"""``python -m trio_ai_stream.lab``: the instrument without the rest of the program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from trio_ai_stream.lab.commands import add_parsers, run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run it."""
    parser = argparse.ArgumentParser(
        prog="trio-ai-stream lab",
        description="Measures what a cancel does, in any chat server.",
    )
    add_parsers(parser.add_subparsers(dest="lab_command", required=True))
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
