"""One arm against one mutant, in a process of its own: prints one JSON line.

`python -m tests.sweep.mutants.child MUTANT ARM BUDGET`; the program is imported
only after the mutant is installed. The mutant `none` is the program as it is.
"""

from __future__ import annotations

import sys

import msgspec

from tests.sweep.mutants.catalogue import MUTANTS
from tests.sweep.mutants.mutant import install


def main() -> None:
    """Judge the mutant that the command line names."""
    name, arm, budget = sys.argv[1:4]
    if name != "none":
        install(MUTANTS[name])
    from tests.sweep.mutants.arms import judge

    verdict = judge(name, arm, int(budget))
    sys.stdout.buffer.write(msgspec.json.encode(verdict) + b"\n")


if __name__ == "__main__":
    main()
