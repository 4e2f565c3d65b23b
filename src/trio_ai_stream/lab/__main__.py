"""``trio-ai-stream lab``, and ``python -m trio_ai_stream.lab``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
    """Parse the command line and run it; 2 also when the extra is not installed."""
    try:
        from trio_ai_stream.lab.commands import add_parsers, run
    except ModuleNotFoundError as exc:
        print(
            f"lab: expected the package {exc.name}; install the instrument's extra: "
            "pip install 'trio-ai-stream[lab]'",
            file=sys.stderr,
        )
        return 2
    parser = argparse.ArgumentParser(
        prog="trio-ai-stream lab",
        description="Measures what a cancel does, in any chat server.",
    )
    add_parsers(parser.add_subparsers(required=True, metavar="COMMAND"))
    return run(parser.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
