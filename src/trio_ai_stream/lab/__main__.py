"""``python -m trio_ai_stream.lab``: the instrument without the rest of the program."""

from __future__ import annotations

import argparse
import sys

from trio_ai_stream.lab.commands import add_parsers, run


def main() -> int:
    """Parse the command line and run it."""
    parser = argparse.ArgumentParser(
        prog="python -m trio_ai_stream.lab",
        description="Measures what a cancel does, in any chat server.",
    )
    add_parsers(parser.add_subparsers(dest="lab_command", required=True))
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
