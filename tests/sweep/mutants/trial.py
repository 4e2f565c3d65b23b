"""Mutants against arms: a process for each pair, and the table of who found what."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from tests.sweep.mutants.arms import Verdict

# A mutant may run in circles where no instrument gets a turn; that is found too.
PATIENCE_S: Final = 1800.0
_decode = msgspec.json.Decoder(Verdict).decode


class TrialError(RuntimeError):
    """A child process did not judge its mutant."""


def trial(
    mutant: str, arm: str, budget: int, patience_s: float = PATIENCE_S
) -> Verdict:
    """Run one arm against one mutant, `none` being the program as it is.

    :raises TrialError: with the child's last words, if it failed.
    """
    command = [sys.executable, "-m", "tests.sweep.mutants.child"]
    try:
        done = subprocess.run(
            [*command, mutant, arm, str(budget)],
            capture_output=True,
            timeout=patience_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Verdict(
            mutant=mutant, arm=arm, killed=True, runs=0, invariant="ends at all"
        )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise TrialError(f"{mutant}, {arm}: {words[-1] if words else 'no words'}")
    return _decode(done.stdout)


def kill_table(verdicts: Sequence[Verdict], mistakes: dict[str, str]) -> str:
    """Return the kill table as Markdown: runs until found, by mutant and arm."""
    arms = list(dict.fromkeys(one.arm for one in verdicts))
    cells = {(one.mutant, one.arm): one for one in verdicts}
    names = list(dict.fromkeys(one.mutant for one in verdicts))
    lines = [
        "| mutant | the mistake | " + " | ".join(arms) + " | found by |",
        "|---|---|" + "---|" * (len(arms) + 1),
    ]
    for name in names:
        row = [_cell(cells.get((name, arm))) for arm in arms]
        first = next((cells[name, arm] for arm in arms if (name, arm) in cells), None)
        by = first.invariant if first is not None else ""
        mistake = mistakes.get(name, "the program as it is")
        lines.append(f"| `{name}` | {mistake} | {' | '.join(row)} | {by} |")
    totals = []
    for arm in arms:
        mine = [cells[name, arm] for name in names if (name, arm) in cells]
        broken = [one for one in mine if one.mutant != "none"]
        totals.append(f"{sum(one.killed for one in broken)} of {len(broken)}")
    lines.append(f"| | found | {' | '.join(totals)} | |")
    return "\n".join(lines)


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    if not verdict.killed:
        return f"not in {verdict.runs}"
    return f"run {verdict.runs}" if verdict.runs else "hung"
