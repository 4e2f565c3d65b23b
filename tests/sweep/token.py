"""Replay tokens: `scenario:seed:k:cause`, or `scenario:seed:k:j:cause+cause`.

`k` and `j` are boundaries, counted from 0; without a cause the token is the undisturbed
run, `scenario:seed`. A label of a scope contains colons, so the causes stand last.
"""

from __future__ import annotations

from dataclasses import dataclass


class TokenError(ValueError):
    """A text that is no replay token."""


@dataclass(frozen=True, slots=True)
class Token:
    """Which run: `acts` are (boundary, cause) pairs, in order, two at most."""

    scenario: str
    seed: int
    acts: tuple[tuple[int, str], ...] = ()

    def __str__(self) -> str:
        points = "".join(f":{k}" for k, _ in self.acts)
        causes = "+".join(name for _, name in self.acts)
        return f"{self.scenario}:{self.seed}{points}" + (f":{causes}" if causes else "")

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token.

        :raises TokenError: saying what a token looks like.
        """
        scenario, _, rest = text.partition(":")
        numbers: list[int] = []
        while rest:
            head, _, tail = rest.partition(":")
            if not head.isdigit():
                break
            numbers.append(int(head))
            rest = tail
        causes = rest.split("+") if rest else []
        if not scenario or not numbers or len(numbers) != 1 + len(causes):
            raise TokenError(
                "expected scenario:seed, scenario:seed:k:cause or"
                f" scenario:seed:k:j:cause+cause, got {text!r}"
            )
        return cls(scenario, numbers[0], tuple(zip(numbers[1:], causes, strict=True)))
