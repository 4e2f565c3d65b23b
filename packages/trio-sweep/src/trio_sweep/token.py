"""Replay tokens: which seed, and what is done at which boundary.

`0` is the undisturbed run of seed 0; `0:13:cancel` cancels the body at boundary 13;
`0:13:scope@LABEL` a scope inside; `0:13:reset+17:cancel` does two things, in
this order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from trio_sweep.errors import TokenError

MOST_ACTS: Final = 2
_ACT: Final = re.compile(r"(\d+):(.+)", re.DOTALL)
_FORMS: Final = "expected SEED, SEED:K:CAUSE or SEED:K:CAUSE+K:CAUSE"


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """One run of a program; `acts` are (boundary, cause)."""

    seed: int
    acts: tuple[tuple[int, str], ...] = ()

    def __str__(self) -> str:
        acts = "+".join(f"{k}:{cause}" for k, cause in self.acts)
        return f"{self.seed}:{acts}" if acts else str(self.seed)

    @property
    def size(self) -> tuple[int, int, tuple[tuple[int, str], ...]]:
        """What orders tokens by how little they ask: acts, seed, boundaries."""
        return len(self.acts), self.seed, self.acts

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token.

        :raises TokenError: saying what a token looks like, or what is wrong with it.
        """
        seed, colon, rest = text.partition(":")
        if not re.fullmatch(r"\d+", seed, re.ASCII) or (colon and not rest):
            raise TokenError(f"{_FORMS}; got {text!r}")
        acts = []
        for part in re.split(r"\+(?=\d+:)", rest) if rest else []:
            found = _ACT.fullmatch(part)
            if found is None:
                raise TokenError(f"{_FORMS}; got {text!r}")
            acts.append((int(found[1]), found[2]))
        if len(acts) > MOST_ACTS:
            raise TokenError(
                f"expected at most {MOST_ACTS} acts; {text!r} has {len(acts)}"
            )
        if acts != sorted(acts, key=lambda act: act[0]):
            raise TokenError(
                f"expected acts in the order of their boundaries: {text!r}"
            )
        return cls(int(seed), tuple(acts))
