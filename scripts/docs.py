"""Writes what documents repeat of the code and of published data.

`python -m scripts.docs` rewrites the marked parts of documents, and all of
.env.example, of the schemas and of the checksums; tests/test_docs.py fails when they
are not what this would write.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from scripts.json_schemas import components
from scripts.log_records import records_table, schema_file
from trio_ai_stream.settings import SETTINGS, describe, load_settings
from trio_ai_stream.stream.lifecycle import RULES, TABLE, State
from trio_ai_stream.telemetry.metrics import Metrics

ROOT: Final = Path(__file__).parent.parent


def settings_table() -> str:
    """Return the settings as a Markdown table, in the order of the model."""
    defaults = describe(load_settings({}, None))
    lines = ["| setting | default | what it does |", "|---|---|---|"]
    for name in SETTINGS:
        default = f"`{defaults[name]}`" if defaults[name] else ""
        description = SETTINGS[name].description
        lines.append(f"| `{name}` | {default} | {description} |")
    return "\n".join(lines)


def env_example() -> str:
    """Return `.env.example`: each setting with its default, commented out."""
    defaults = describe(load_settings({}, None))
    lines = [
        "# Copy to .env and uncomment what you change; the environment wins over it.",
        "# An empty value means unset. Made by `python -m scripts.docs`.",
    ]
    for name in SETTINGS:
        description = SETTINGS[name].description
        lines += ["", f"# {description}", f"# {name}={defaults[name]}"]
    return "\n".join(lines) + "\n"


def lifecycle_diagram() -> str:
    """Return the lifecycle's table as a Mermaid diagram, one line a step."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.ADMITTED}"]
    lines += [f"    {a} --> {b}: {event}" for (a, event), b in TABLE.items()]
    lines.append(f"    {State.ENDED} --> [*]")
    return "\n".join(["```mermaid", *lines, "```"])


def endings_table() -> str:
    """Return the table of endings as Markdown."""
    lines = [
        "| cause | what the client sees | what upstream sees | outcome |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {rule.cause} | {rule.client_sees} | {rule.upstream_sees} | `{outcome}` |"
        for outcome, rule in RULES.items()
    ]
    return "\n".join(lines)


def metrics_table() -> str:
    """Return the metrics as a Markdown table, in the order in which they are shown."""
    _, body = Metrics(version="", upstream="").render()
    lines = ["| metric | kind | what it is | labels |", "|---|---|---|---|"]
    for family in text_string_to_metric_families(body.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        first = family.samples[0].labels
        labels = ", ".join(f"`{label}`" for label in first if label != "le")
        row = f"| `{name}` | {family.type} | {family.documentation} | {labels} |"
        lines.append(row)
    return "\n".join(lines)


def counts() -> str:
    """Return how many cases of each kind the tests have, as a Markdown table."""
    # Imported here: the other documents need none of the tests' dependencies.
    from bench.chaos.faults import KINDS as CHAOS
    from cancel_lab.matrix.cells import all_cells
    from tests.conformance import cases_http1, cases_http2
    from tests.deploy.proxies import KINDS as PROXIES
    from tests.deploy.test_alerts import CASES as ALERTS
    from tests.stream.test_answers import CASES as ANSWERS
    from tests.sweep.causes import CAUSES
    from tests.sweep.invariants import CHECKS
    from tests.sweep.mutants.catalogue import MUTANTS
    from tests.sweep.scenarios import SCENARIOS
    from trio_ai_stream.simulator.faults import KEYS, PRESETS
    from trio_sweep.invariants import INVARIANTS

    cells = all_cells()
    impossible = sum(cell.impossible is not None for cell in cells)
    zoo = (ROOT / "packages" / "trio-sweep" / "tests" / "sweep_zoo").glob("*.py")
    programs = "".join(
        path.read_text().replace("@zoo.", f"@{path.stem}.") for path in sorted(zoo)
    )
    right, wrong = (programs.count(f"@{kind}.animal(") for kind in ("whole", "broken"))
    rows = {
        "byte cases over HTTP/1.1": len(cases_http1.CASES),
        "byte cases over HTTP/2": len(cases_http2.CASES),
        "kinds of answers of odd upstreams": len(ANSWERS),
        "presets of the simulator": len(PRESETS),
        "keys of the simulator's faults": len(KEYS),
        "sweep: scenarios": len(SCENARIOS),
        "sweep: causes": len(CAUSES) + 1,
        "sweep: ordered pairs of causes": (len(CAUSES) + 1) ** 2,
        "sweep: invariants after every run": len(CHECKS) + len(INVARIANTS),
        "mutants": len(MUTANTS),
        "trio-sweep: programs that are right": right,
        "trio-sweep: programs that are wrong": wrong,
        "matrix: cells that can exist": len(cells) - impossible,
        "matrix: cells that cannot, each with its reason": impossible,
        "chaos: kinds of faults": len(CHAOS),
        "proxies": len(PROXIES),
        "alerts, each with two histories": len(ALERTS),
    }
    lines = ["| what | how many |", "|---|---|"]
    return "\n".join([*lines, *(f"| {what} | {n} |" for what, n in rows.items())])


def made_by(module: str, name: str) -> Callable[[], str]:
    """Return what makes a table or a figure of the published data.

    The module is imported late, as above: it needs the instrument or the tests.
    """

    def made() -> str:
        text: str = getattr(importlib.import_module(module), name)()
        return text

    return made


def record_schema() -> str:
    """Return the JSON Schema of a line of `results.jsonl`."""
    from cancel_lab.records import RunRecord

    (record,), definitions = components([RunRecord], "#/$defs/{name}")
    return json.dumps({**record, "$defs": definitions}, indent=1) + "\n"


def checksums() -> str:
    """Return the published data's SHA-256, as `sha256sum -c` reads them."""
    data = ROOT / "docs" / "data" / "cancellation"
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(data)}"
        for path in sorted(data.glob("*/*"))
    ]
    return "\n".join(lines) + "\n"


TABLES: Final = "scripts.cancellation_tables"
FIGURES: Final = "scripts.cancellation_figures"
CANCELLATION: Final = (
    *("measured", "passed", "matrix", "clients", "variants", "burst", "lossy"),
    *("vanished", "comparison", "ranking", "notice", "stalled", "shutdown"),
)

SWEEP: Final = (
    *("results", "acts", "scopes", "waivers", "coverage", "mutants"),
    *("resuming", "resuming_causes"),
)


# Each document, and its marked parts by name.
DOCUMENTS: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "README.md": {"endings": endings_table, "lifecycle": lifecycle_diagram},
    "docs/settings.md": {"settings": settings_table},
    "docs/testing.md": {"counts": counts},
    "docs/cancellation-sweep.md": {
        name: made_by("tests.sweep.tables", name) for name in SWEEP
    },
    "docs/log-records.md": {"records": records_table},
    "docs/metrics.md": {"metrics": metrics_table},
    "docs/cancellation.md": {name: made_by(TABLES, name) for name in CANCELLATION},
    "docs/mcp.md": {"mcp": made_by(TABLES, "mcp")},
}
# What is written as a whole, the checksums of the rest last.
FILES: Final[dict[str, Callable[[], str]]] = {
    ".env.example": env_example,
    "docs/log-records.schema.json": schema_file,
    "docs/data/cancellation/schema.json": record_schema,
    "docs/data/cancellation/burst/burst.svg": made_by(FIGURES, "burst"),
    "docs/data/cancellation/comparison/comparison.svg": made_by(FIGURES, "comparison"),
    "docs/data/sweep/sweep.svg": made_by(FIGURES, "sweep"),
    "docs/data/cancellation/SHA256SUMS": checksums,
}


def rewritten(document: str) -> str:
    """Return a document's text with its marked parts made anew.

    :raises ValueError: when a mark is missing.
    """
    text = (ROOT / document).read_text()
    for name, part in DOCUMENTS[document].items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{document}: expected the marks {begin} and {end}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{part()}\n{end}{rest.partition(end)[2]}"
    return text


def main() -> int:
    """Write the documents."""
    for document in DOCUMENTS:
        (ROOT / document).write_text(rewritten(document))
    for file, made in FILES.items():
        (ROOT / file).write_text(made())
    return 0


if __name__ == "__main__":
    sys.exit(main())
