"""The operator's documents say what is so: metrics, settings, budgets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from trio_ai_stream.settings import SETTINGS, load_settings
from trio_ai_stream.telemetry.families import FAMILIES, PREFIX

DOCS = Path(__file__).parent.parent.parent / "docs"
DASHBOARD = DOCS / "grafana-dashboard.json"
ALERTS = DOCS / "alerts.yml"
DEPLOY = sorted((DOCS / "deploy").iterdir())
# Not of the families: what runs, and how many workers.
OTHERS = {"info", "workers"}


def series_names() -> set[str]:
    """Every name that `/metrics` has, as a query writes it."""
    names = {PREFIX + name for name in OTHERS}
    for family in FAMILIES:
        endings = {
            "gauge": [""],
            "counter": ["_total"],
            "histogram": ["_bucket", "_sum", "_count"],
        }[family.kind]
        names |= {family.prefix + family.name + ending for ending in endings}
    return names


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels, without its rows."""
    dashboard = json.loads(DASHBOARD.read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Every query of the dashboard."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


@pytest.mark.parametrize("path", [DASHBOARD, ALERTS], ids=lambda path: path.name)
def test_every_metric_that_is_asked_for_exists(path: Path) -> None:
    """A renamed metric fails here, not as an empty panel at night."""
    asked = set(re.findall(rf"\b(?:{PREFIX}|process_)[a-z_]+", path.read_text()))
    assert asked
    assert asked <= series_names()


@pytest.mark.parametrize("path", [DASHBOARD, ALERTS], ids=lambda path: path.name)
def test_every_label_value_that_is_asked_for_exists(path: Path) -> None:
    """The same for outcomes, reasons and kinds."""
    values = {
        label: {
            v for f in FAMILIES for name, vs in f.labels if name == label for v in vs
        }
        for label in ("outcome", "reason", "kind", "fault", "status")
    }
    text = path.read_text().replace('\\"', '"')
    found = re.findall(r'(outcome|reason|kind|fault|status)[=!]~?"([^"]+)"', text)
    assert found
    for label, pattern in found:
        for part in pattern.split("|"):
            assert any(re.fullmatch(part, v) for v in values[label]), (label, part)


def test_every_metric_is_on_the_dashboard() -> None:
    """What is worth counting is worth a look."""
    text = " ".join(expressions())
    missing = {f.name for f in FAMILIES if f.prefix + f.name not in text}
    assert missing == set()


def test_the_panels_stand_side_by_side() -> None:
    """Ids are unique, and no panel lies on another."""
    ids = [panel["id"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len(ids) == len(set(ids))
    cells: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        own = {
            (at["x"] + dx, at["y"] + dy)
            for dx in range(at["w"])
            for dy in range(at["h"])
        }
        assert not own & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own


@pytest.fixture
def promtool() -> str:
    """Prometheus' own checker."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool: apt-get install prometheus")
    return program


def test_prometheus_accepts_the_rules(promtool: str) -> None:
    """The rules are valid."""
    words = [promtool, "check", "rules", str(ALERTS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_prometheus_accepts_the_dashboards_queries(
    promtool: str, tmp_path: Path
) -> None:
    """Every query parses, with Grafana's variables filled in."""
    rules = []
    for index, query in enumerate(expressions()):
        filled = query.replace("$__rate_interval", "5m").replace("$job", ".*")
        filled = filled.replace("$instance", ".*")
        rules.append({"record": f"panel:{index}", "expr": filled})
    path = tmp_path / "rules.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    words = [promtool, "check", "rules", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DEPLOY, ids=lambda path: path.name)
def test_every_setting_in_a_deployment_exists(path: Path) -> None:
    """No file sets what the server does not read."""
    text = path.read_text()
    looks_like_one = re.compile(r"\b[A-Z]+(?:_[A-Z]+)*_(?:SECS|BYTES|PROXIES|KEYS?)\b")
    assert set(looks_like_one.findall(text)) <= set(SETTINGS)


def number(name: str, pattern: str) -> float:
    """Find one number in a file of docs/deploy."""
    match = re.search(pattern, (DOCS / "deploy" / name).read_text())
    assert match is not None, pattern
    return float(match[1])


def test_kubernetes_waits_for_the_whole_drain() -> None:
    """Grace covers preStop, the drain and the last words, and some room."""
    grace = number("kubernetes.yaml", r"terminationGracePeriodSeconds: (\d+)")
    pre_stop = number("kubernetes.yaml", r'"sleep", "(\d+)"')
    drain = number("kubernetes.yaml", r'DRAIN_TIMEOUT_SECS, value: "(\d+)"')
    assert grace >= pre_stop + drain + 2 + 5


def test_systemd_waits_for_the_whole_drain() -> None:
    """The same for the unit, with the default drain."""
    stop = number("trio-ai-stream.service", r"TimeoutStopSec=(\d+)")
    assert stop >= load_settings({}, None).DRAIN_TIMEOUT_SECS + 2 + 5


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("nginx.conf", r"proxy_read_timeout (\d+)s"),
        ("envoy.yaml", r"stream_idle_timeout: (\d+)s"),
        ("haproxy.cfg", r"timeout client (\d+)s"),
        ("haproxy.cfg", r"timeout server (\d+)s"),
        ("Caddyfile", r"response_header_timeout (\d+)s"),
    ],
)
def test_a_proxy_is_more_patient_than_the_heartbeat(name: str, pattern: str) -> None:
    """A silent model never looks like a dead server."""
    heartbeat = load_settings({}, None).HEARTBEAT_SECS
    assert number(name, pattern) >= 3 * heartbeat


def test_every_link_and_setting_in_the_text_exists() -> None:
    """docs/operations.md names files and settings that are there."""
    text = (DOCS / "operations.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DOCS / link).exists(), link
    others = {"TRIO_AI_STREAM_URL", "TRIO_AI_STREAM_KEY", "LISTEN_FDS", "POD_IP"}
    text = re.sub(r"`OTEL_[A-Z_]+(?:=[^`]*)?`", "", text)  # the SDK's own
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", text))
    assert named <= set(SETTINGS) | others
