"""The tables of docs/cancellation-sweep.md, made from what sweeps have recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from tests.resume.pairs import CAUSES, read_tried
from tests.sweep.causes import SCOPE_KINDS, scope_kind
from tests.sweep.mutants.catalogue import MUTANTS
from tests.sweep.mutants.trial import kill_table
from tests.sweep.mutants.verdict import Verdict
from tests.sweep.recorded import FOLDER, Recorded
from tests.sweep.sweeping import ALLOWED
from trio_sweep.program import SCOPE

_KINDS: Final = ("quick", "full")


TABLES: Final = (
    *("results", "acts", "scopes", "waivers", "coverage", "mutants"),
    *("resuming", "resuming_causes"),
)


def _recorded() -> list[Recorded]:
    return [Recorded.read(FOLDER / f"{kind}.json") for kind in _KINDS]


def results() -> str:
    """Return what each sweep came to, in one row."""
    rows = []
    for one in _recorded():
        commits = Counter(row.commit for row in one.scenarios.values())
        found = sum(len(row.findings) for row in one.scenarios.values())
        numbers = [one.total(what) for what in ("boundaries", "runs", "with_two_acts")]
        rows.append(
            [
                one.kind,
                f"{len(one.scenarios)} of {one.known}",
                str(one.total("seeds")),
                *map(_spaced, [*numbers, one.total("states")]),
                str(found),
                f"{one.total('cpu_s') / 60:.1f}",
                ", ".join(f"`{name}` ({n})" for name, n in commits.items()),
            ]
        )
    head = "sweep|scenarios|seeds|boundaries|runs|with two causes|states|violations"
    return _table(f"{head}|CPU minutes|at commit (scenarios)".split("|"), rows)


def acts() -> str:
    """Return how often each cause landed, and what that did to tasks."""
    quick, full = (one.counts("landed") for one in _recorded())
    names = sorted({*quick, *full})
    rows = [[f"`{x}`", _spaced(quick[x]), _spaced(full[x])] for x in names]
    quick, full = (one.counts("fates") for one in _recorded())
    rows += [[x, _spaced(quick[x]), _spaced(full[x])] for x in sorted({*quick, *full})]
    return _table(["a cause, or what it did to a task", *_KINDS], rows)


def scopes() -> str:
    """Return which scopes were cancelled, like what, and how often."""
    counts: list[Counter[str]] = []
    for one in _recorded():
        found: Counter[str] = Counter()
        for row in one.scenarios.values():
            for name, count in row.landed.items():
                if name.startswith(SCOPE):
                    found[_kind(name.removeprefix(SCOPE))] += count
        counts.append(found)
    rows = []
    for kind in dict.fromkeys([*SCOPE_KINDS, *counts[0], *counts[1]]):
        cause = SCOPE_KINDS.get(kind)
        like = "not swept" if cause is None else f"`{cause.name}`"
        label = kind.removeprefix("trio_ai_stream/").strip(":")
        rows.append([f"`{label}`", like, *(_spaced(one[kind]) for one in counts)])
    return _table(["scope", "its cancel is like", *_KINDS], rows)


def _kind(label: str) -> str:
    try:
        return scope_kind(label)
    except LookupError:
        return label  # the source had it when it was swept


def waivers() -> str:
    """Return which violations are allowed, and in how many runs that was needed."""
    quick, full = (one.counts("waived") for one in _recorded())
    rows = [
        [f"`{key}`", why, _spaced(quick[key]), _spaced(full[key])]
        for key, why in ALLOWED.items()
    ]
    return _table(["allowed", "because", *_KINDS], rows)


def coverage() -> str:
    """Return the await sites of each room by what became of them in the quick sweep."""
    rooms = Recorded.read(FOLDER / "quick.json").coverage
    rows = [[f"`{room}/`", *map(str, counts)] for room, counts in rooms.items()]
    total = [sum(counts[i] for counts in rooms.values()) for i in range(4)]
    return _table(
        ["room", "an act landed", "nobody ever waits there", "missed", "excused"],
        [*rows, ["all", *map(str, total)]],
    )


def mutants() -> str:
    """Return who found which mutant."""
    verdicts = msgspec.json.decode(
        (FOLDER / "mutants.json").read_bytes(), type=list[Verdict]
    )
    return kill_table(
        verdicts, {mutant.name: mutant.mistake for mutant in MUTANTS.values()}
    )


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def resuming() -> str:
    """Return what the losses and returns of each endpoint and stream came to."""
    tried = read_tried(FOLDER / "resume.json")
    rows = [
        (
            f"`{path}`, {stream}",
            f"{one.stride}{'' if one.whole else f', to {one.through}'}",
            *map(_spaced, (one.steps, one.runs)),
            *(_spaced(one.outcomes.get(x, 0)) for x in ("completed", "abandoned")),
            _spaced(sum(one.outcomes.get(x, 0) for x in set(CAUSES.values()))),
            _spaced(len(one.violations)),
            ", ".join(f"`{x}`" for x in one.commits),
        )
        for name, one in tried.items()
        for path, _, stream in [name.partition(" ")]
    ]
    head = (
        *("stream", "each Nth step", "steps", "runs", "whole", "abandoned"),
        *("error", "violations", "at"),
    )
    return _table(head, rows)


def resuming_causes() -> str:
    """Return how often each thing befell a stream that can be come back to."""
    total: Counter[str] = Counter()
    for one in read_tried(FOLDER / "resume.json").values():
        total.update(one.kinds)
    return _table(
        ("what happens, beside a loss and a return", "runs"),
        [(name, _spaced(count)) for name, count in total.most_common()],
    )
