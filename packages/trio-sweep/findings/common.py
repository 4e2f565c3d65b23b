"""What the sweeps of public libraries share: how a result is shown and kept."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import warnings
from pathlib import Path

from trio_sweep import Report, sweep

RESULTS = Path(__file__).parent / "results"
REAL_SOCKETS = {"deterministic": "the kernel decides when bytes arrive"}


def show(package: str, what: str, body, **options) -> Report:
    """Sweep one use of a package; print the report, and keep it as JSON."""
    warnings.simplefilter("ignore")  # of imports; a sweep listens by itself
    options.setdefault("seeds", 3)
    options.setdefault("scopes", False)
    report = sweep(body, name=what, **options)
    version = importlib.metadata.version(package)
    print(f"== {package} {version} on trio {importlib.metadata.version('trio')}")
    print(report, "\n")
    file = RESULTS / f"{package}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept[what] = {
        "package": package,
        "version": version,
        "trio": importlib.metadata.version("trio"),
        "python": sys.version.split()[0],
        **json.loads(report.to_json()),
    }
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return report
