"""One self-contained HTML page: plots inline, tables, manifest; no script, no link."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto;
       padding: 0 1rem; color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem }
th, td { border-bottom: 1px solid #ddd; padding: .2rem .7rem .2rem 0; text-align: left }
figure { margin: 1rem 0 }
svg { max-width: 100%; height: auto }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .8rem }
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


def page(
    tables: Sequence[tuple[str, Sequence[Sequence[str]]]],
    figures: Mapping[str, Path],
    manifest: Mapping[str, object] | None,
) -> str:
    """Return the page: figures first, then every table, then the manifest."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>Cancellation report</title><style>{STYLE}</style></head><body>",
        "<h1>Cancellation report</h1>",
        "<p>Times are CLOCK_MONOTONIC of one machine. An unobserved time is censored, ",
        "never zero. Servers whose median's 95 % intervals overlap tie.</p>",
    ]
    if figures:
        parts.append("<h2>Plots</h2>")
    for number, (title, path) in enumerate(figures.items(), start=1):
        svg = inline_svg(path, f"figure{number}")
        caption = f"<figcaption>{html.escape(title)}</figcaption>"
        parts.append(f"<figure>{svg}{caption}</figure>")
    parts.append("<h2>Tables</h2>")
    for title, rows in tables:
        parts.append(f"<h3>{html.escape(title)}</h3>{table(rows)}")
    if manifest is not None:
        text = html.escape(json.dumps(manifest, indent=2))
        parts.append(f"<h2>Manifest</h2><pre>{text}</pre>")
    return "".join([*parts, "</body></html>\n"])
