"""One self-contained HTML page: plots inline, tables, manifest; no script, no link."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cancel_lab.records import RunRecord

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto;
       padding: 0 1rem; color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem }
th, td { border-bottom: 1px solid #ddd; padding: .2rem .7rem .2rem 0; text-align: left }
figure { margin: 1rem 0; overflow-x: auto }
svg { max-width: 100%; height: auto; background: #fff }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .8rem }
nav li { margin: .15rem 0 }
@media (prefers-color-scheme: dark) {
  body { color: #e4e4e4; background: #161616 }
  a { color: #8ab4f8 }
  th, td { border-color: #444 }
  pre { background: #222 }
  svg { filter: invert(.9) hue-rotate(180deg) }
}
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .6rem }
  svg { min-width: 40rem }
}
"""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first of them the head, as an HTML table."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

    head = f"<thead><tr>{line('th', rows[0])}</tr></thead>"
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows[1:])
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def inline_svg(path: Path, prefix: str) -> str:
    """Return a plot's SVG element, its ids made unique in the page by ``prefix``."""
    text = path.read_text(encoding="utf-8")
    svg = text[text.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href|href)="#', rf'\1="#{prefix}-', svg)
    return svg.replace("url(#", f"url(#{prefix}-")


def headline(
    runs: Sequence[RunRecord], manifest: Mapping[str, object] | None
) -> list[str]:
    """Return what stands at the top: what was run, when, of which commit, verdicts."""
    servers = dict.fromkeys(
        f"{run.sut.name} {run.sut.version or ''}".strip() for run in runs
    )
    counts = Counter(run.status.value for run in runs)
    verdicts = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    lines = [f"{len(runs)} records: {verdicts}", f"Servers: {', '.join(servers)}"]
    if manifest is not None:
        git = manifest.get("git")
        sha = git.get("sha") if isinstance(git, dict) else None
        lines.append(f"Commit of the instrument: {sha or 'an installed wheel'}")
        lines.append(f"Finished: {manifest.get('finished') or 'at an unknown time'}")
    return lines


def page(
    tables: Sequence[tuple[str, Sequence[Sequence[str]]]],
    figures: Mapping[str, Path],
    manifest: Mapping[str, object] | None,
    top: Sequence[str],
) -> str:
    """Return the page: a headline, contents, figures, every table, the manifest."""
    contents = ["Plots"] if figures else []
    contents += [title for title, _ in tables]
    contents += ["Manifest"] if manifest is not None else []
    links = "".join(
        f'<li><a href="#part{number}">{html.escape(title)}</a></li>'
        for number, title in enumerate(contents)
    )
    numbers = iter(range(len(contents)))
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Cancellation report</title><style>{STYLE}</style></head><body>",
        "<h1>Cancellation report</h1>",
        *(f"<p>{html.escape(line)}</p>" for line in top),
        "<p>Times are CLOCK_MONOTONIC of one machine. An unobserved time is censored, ",
        "never zero. Servers whose median's 95 % intervals overlap tie.</p>",
    ]
    parts.append(f"<nav><h2>Contents</h2><ul>{links}</ul></nav>")
    if figures:
        parts.append(f'<h2 id="part{next(numbers)}">Plots</h2>')
    for number, (title, path) in enumerate(figures.items(), start=1):
        svg = inline_svg(path, f"figure{number}")
        caption = f"<figcaption>{html.escape(title)}</figcaption>"
        parts.append(f"<figure>{svg}{caption}</figure>")
    parts.append("<h2>Tables</h2>")
    for title, rows in tables:
        head = f'<h3 id="part{next(numbers)}">{html.escape(title)}</h3>'
        parts.append(f"{head}{table(rows)}")
    if manifest is not None:
        text = html.escape(json.dumps(manifest, indent=2))
        head = f'<h2 id="part{next(numbers)}">Manifest</h2>'
        parts.append(f"{head}<pre>{text}</pre>")
    return "".join([*parts, "</body></html>\n"])
