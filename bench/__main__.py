"""`python -m bench ROW...`: one row of the table of goals, several, or `all`.

    uv run python -m bench all              # about 13 minutes of a quiet machine
    uv run python -m bench all --document docs/performance.md
    uv run python -m bench relay --streams 32 --events 2000 --rounds 5
    uv run python -m bench streams          # the plots: rates, delays, CPU by streams

Prints a Markdown table; `--json FILE` keeps every round's value. `--document FILE`
puts the table of `all` between the file's marks, and draws the plot of pauses. Sizes
are options of the row (`python -m bench relay --help`).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, table, write_json
from bench.plots import draw, draw_pauses
from bench.processes import LOAD_CORE, machine
from bench.rows import ROWS
from bench.rows.row import Row

PLOTS = Path("docs/performance")
APART = ("streams", "pythons")  # rows that are no part of `all`


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser: a subcommand a row, its sizes as options."""
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    rows = made.add_subparsers(dest="row", required=True)
    for name, row in ROWS.items():
        one = rows.add_parser(name, help=row.__doc__)
        for size in dataclasses.fields(row):  # type: ignore[arg-type]
            kind = type(size.default)
            option = "--" + size.name.replace("_", "-")
            one.add_argument(option, type=kind, default=size.default)
        one.add_argument("--json", type=Path)
        if name == "streams":
            one.add_argument("--plots", type=Path, default=PLOTS)
    every = rows.add_parser("all", help=f"all rows but {' and '.join(APART)}")
    every.add_argument("--json", type=Path)
    every.add_argument("--document", type=Path)
    return made


def chosen(arguments: argparse.Namespace) -> list[Row]:
    """Return the rows to run."""
    if arguments.row == "all":
        return [row() for name, row in ROWS.items() if name not in APART]
    sizes = vars(arguments)
    kind = ROWS[arguments.row]
    names = [size.name for size in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return [kind(**{name: sizes[name] for name in names})]


def write_results(document: Path, text: str) -> None:
    """Put `text` between the marks for results in a document.

    :raises ValueError: the document has no such marks.
    """
    before, begin, rest = document.read_text().partition("<!-- results -->\n")
    _, end, after = rest.partition("<!-- /results -->")
    if not begin or not end:
        raise ValueError(f"expected <!-- results --> in {document}, got none")
    document.write_text(f"{before}{begin}\n{text}\n\n{end}{after}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    arguments = parser().parse_args(argv)
    # This process is the load; upstream stands beside it.
    os.sched_setaffinity(0, LOAD_CORE)
    figures: list[Figure] = []
    began_at = time.monotonic()
    for row in chosen(arguments):
        row_began_at = time.monotonic()
        measured = row.measure()
        took_s = time.monotonic() - row_began_at
        print(f"{type(row).__name__}: {took_s:.0f} s", flush=True)
        figures += measured
        print(table(measured), flush=True)
    print()
    where = ", ".join(f"{name}: {value}" for name, value in machine().items())
    print(where)
    if arguments.row == "all":
        print(table(figures))
        if arguments.document is not None:
            minutes = (time.monotonic() - began_at) / 60
            when = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC")
            said = f"One run of `bench all`, {minutes:.0f} minutes, {when}; {where}."
            plot = draw_pauses(figures, PLOTS)
            shown = f"![worst event delay by live streams](performance/{plot.name})"
            text = f"{said}\n\n{table(figures)}\n\n{shown}"
            write_results(arguments.document, text)
    if arguments.row == "streams":
        for path in draw(figures, arguments.plots):
            print(path)
    if arguments.json is not None:
        write_json(figures, arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
