"""What became of a mutant under one way of searching."""

from __future__ import annotations

import msgspec


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`runs` it took, or that were made in vain; `replay` repeats the run that told."""

    mutant: str
    arm: str
    killed: bool
    runs: int
    invariant: str = ""
    found: str = ""
    replay: str = ""
