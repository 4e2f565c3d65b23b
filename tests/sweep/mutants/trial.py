"""Mutants against arms: a process for each pair, and the table of who found what."""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import msgspec

from tests.sweep.mutants.catalogue import MUTANTS
from tests.sweep.mutants.mutant import install
from tests.sweep.mutants.verdict import Verdict

# A mutant may run in circles where no instrument gets a turn; that is found too.
PATIENCE_S: Final = 1800.0
# What takes long to import and holds nothing of the program.
_OTHERS: Final = (
    "coredis.pool",
    "httpx",
    "hypercorn.trio",
    "markdown_it",
    "prometheus_client",
    "quart_cors",
    "quart_trio",
    "trio.testing",
    "trustme",
)
_decode = msgspec.json.Decoder(Verdict | str).decode


class TrialError(RuntimeError):
    """A child process did not judge its mutant."""


def trial(
    mutant: str, arm: str, budget: int, patience_s: float = PATIENCE_S
) -> Verdict:
    """Run one arm against one mutant, `none` being the program as it is.

    For a process that has not imported the program. Its children, one for each pair,
    import it when the mutant is installed; what else they need, they find imported.

    :raises TrialError: with the child's last words, if it failed.
    """
    for module in _OTHERS:
        importlib.import_module(module)
    ours, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        _judge(mutant, arm, budget, theirs)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        ended = bool(select.select([pipe], [], [], patience_s)[0])
        if not ended:
            os.kill(process, signal.SIGKILL)
        said = pipe.read()
    os.waitpid(process, 0)
    if not ended:
        return Verdict(
            mutant=mutant, arm=arm, killed=True, runs=0, invariant="ends at all"
        )
    verdict: Verdict | str = _decode(said) if said else "no words"
    if isinstance(verdict, str):
        raise TrialError(f"{mutant}, {arm}: {verdict}")
    return verdict


def _judge(mutant: str, arm: str, budget: int, results: int) -> NoReturn:
    """Judge a mutant in this process, and end it, whatever happens."""
    try:
        if mutant != "none":
            install(MUTANTS[mutant])
        from tests.sweep.mutants.arms import judge

        said: Verdict | str = judge(mutant, arm, budget)
    except BaseException as exc:  # noqa: ASYNC103  # this process ends
        said = f"{type(exc).__name__}: {exc}"
    os.write(results, msgspec.json.encode(said))
    sys.stderr.flush()
    os._exit(0)


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
