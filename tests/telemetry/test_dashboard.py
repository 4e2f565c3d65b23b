"""The dashboard and the alert rules ask for metrics that the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts import dashboard
from trio_ai_stream.telemetry.families import FAMILIES, OUTCOMES, REFUSALS
from trio_ai_stream.telemetry.metrics import Metrics

ALERTS = Path(__file__).parents[2] / "docs" / "deploy" / "alerts.yml"
NAME = re.compile(r"trio_ai_stream_[a-z_]+")


def exposed() -> set[str]:
    """Return the names of all samples that the server exposes."""
    _, body = Metrics(version="1", upstream="simulator").render()
    return set(re.findall(rf"^({NAME.pattern})", body.decode(), re.MULTILINE))


def test_the_dashboard_is_what_its_script_writes() -> None:
    """docs/deploy/grafana.json is generated: `python -m scripts.dashboard`."""
    assert dashboard.TARGET.read_text("utf-8") == dashboard.rendered()
    assert json.loads(dashboard.rendered())["panels"]


@pytest.mark.parametrize("path", [dashboard.TARGET, ALERTS], ids=["grafana", "alerts"])
def test_only_metrics_that_exist_are_asked_for(path: Path) -> None:
    """A renamed metric breaks this test, not somebody's alert."""
    asked = set(NAME.findall(path.read_text("utf-8")))
    assert asked
    assert asked - exposed() == set()


def test_the_dashboard_shows_every_family() -> None:
    """No metric is exposed that nobody would see."""
    shown = dashboard.TARGET.read_text("utf-8")
    missing = [f.name for f in FAMILIES if f"trio_ai_stream_{f.name}" not in shown]
    assert missing == []


def test_alerts_name_labels_that_exist() -> None:
    """Each label value in the rules is one of the closed lists."""
    values = re.findall(r'(?:outcome|reason)=~?"([^"]+)"', ALERTS.read_text("utf-8"))
    known = {*OUTCOMES, *REFUSALS}
    patterns = [pattern for value in values for pattern in value.split("|")]
    assert patterns
    assert all(any(re.fullmatch(p, name) for name in known) for p in patterns)
