"""Each alert fires when it should, and not otherwise; promtool plays the hours."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

DOCS = Path(__file__).parent.parent.parent / "docs"
ALERTS = DOCS / "alerts.yml"
NAMES = re.findall(r"- alert: (\w+)", ALERTS.read_text())
T = "trio_ai_stream_"


class Case(NamedTuple):
    """Series by name and labels, in promtool's notation, a sample each 15 seconds.

    `fires` and `rests` hold the same series, so what differs is what the alert is for.
    """

    fires: dict[str, str]
    rests: dict[str, str]


def streams(**rates: int) -> dict[str, str]:
    """Streams that end, so many in 15 seconds, by `outcome__fault`."""
    labels = 'endpoint="/chat",outcome="{}",fault="{}"'
    return {
        f"{T}streams_total{{{labels.format(*name.split('__'))}}}": f"0+{rate}x120"
        for name, rate in rates.items()
    }


def latency(name: str, bound: str, above: str) -> dict[str, str]:
    """A histogram whose every observation is above `bound`, and not above `above`."""
    metric = f"{T}{name}_bucket"
    return {
        f'{metric}{{le="{bound}"}}': "0x120",
        f'{metric}{{le="{above}"}}': "0+10x120",
        f'{metric}{{le="+Inf"}}': "0+10x120",
    }


def workers(expected: int, alive: int, ready: int, draining: int) -> dict[str, str]:
    """A host's workers, all the time."""
    numbers = {
        "workers_expected": expected,
        "workers": alive,
        "ready": ready,
        "draining": draining,
    }
    return {T + name: f"{number}x120" for name, number in numbers.items()}


DAY = 86_400


def shared(
    lost: str = "0x120", failures: str = "0x120", fallback: str = "0x120"
) -> dict[str, str]:
    """The shared limits of a host with four workers."""
    return {
        T + "workers_expected": "4x120",
        T + "redis_lost_total": lost,
        T + 'gate_failures_total{kind="timeout"}': failures,
        T + "gate_fallback": fallback,
    }


CASES = {
    "TargetDown": Case({"up": "0x120"}, {"up": "1x120"}),
    "NotReady": Case(workers(4, 4, 3, 0), workers(4, 4, 3, 1)),
    "TooFewWorkers": Case(workers(4, 3, 3, 0), workers(4, 4, 4, 0)),
    "WorkersRestart": Case(
        {
            T + 'worker_replacements_total{reason="died"}': "0x70 0+1x50",
            "process_start_time_seconds": "1x120",
        },
        # A restart by hand, and a reload that replaces eight workers one by one.
        {
            T + 'worker_replacements_total{reason="died"}': "0x70 1x50",
            "process_start_time_seconds": "1x90 2 3 4 5 6 7 8 9x30",
        },
    ),
    "WorkerHung": Case(
        {T + 'worker_replacements_total{reason="hung"}': "0x90 1x30"},
        {T + 'worker_replacements_total{reason="hung"}': "1x120"},
    ),
    "StreamsFail": Case(
        streams(completed__none=90, upstream_failed__upstream=10),
        streams(
            completed__none=90,
            upstream_rejected__caller=50,
            client_disconnected__caller=50,
            shutdown__server=10,
            upstream_failed__upstream=1,
        ),
    ),
    "InternalErrors": Case(
        streams(completed__none=90, internal_error__server=1),
        streams(completed__none=90, internal_error__server=0),
    ),
    "KeyRejected": Case(
        {T + "upstream_key_rejected": "0x115 1 1 0x10"},
        {T + "upstream_key_rejected": "1 1 0x120"},
    ),
    "UpstreamRetries": Case(
        {
            T + "upstream_attempts_total": "0+100x120",
            T + "upstream_retries_total": "0+9x120",
            T + "upstream_retries_denied_total": "0x120",
        },
        {
            T + "upstream_attempts_total": "0+100x120",
            T + "upstream_retries_total": "0+2x120",
            T + "upstream_retries_denied_total": "0x80 7x40",
        },
    ),
    "UpstreamUnreachable": Case(
        {T + "upstream_circuit_open": "0x100 1x20"},
        {T + "upstream_circuit_open": "1x100 0x20"},
    ),
    "CancellationIsSlow": Case(
        latency("cancellation_latency_seconds", "0.1", "0.25"),
        latency("cancellation_latency_seconds", "0.0005", "0.001"),
    ),
    "FirstContentIsSlow": Case(
        latency("time_to_first_content_seconds", "10", "30"),
        latency("time_to_first_content_seconds", "1", "1.5"),
    ),
    "LoopLag": Case(
        latency("loop_lag_seconds", "0.1", "0.25"),
        latency("loop_lag_seconds", "0.0005", "0.001"),
    ),
    "LoopBlocked": Case(
        {T + "loop_longest_turn_seconds": "0.01x116 1.5x4"},
        {T + "loop_longest_turn_seconds": "0.1x120"},
    ),
    "SlowTurns": Case(
        {T + "loop_slow_turns_total": "0+3x120"},
        {T + "loop_slow_turns_total": "0x100 20x20"},
    ),
    "StreamsRefused": Case(
        {T + 'refused_total{reason="server_permits"}': "0+3x120"},
        {T + 'refused_total{reason="client_permits"}': "0+3x120"},
    ),
    "ProviderGoesOn": Case(
        {
            T + 'wasted_tokens_total{provider="Groq"}': "0+900x120",
            T + 'cut_streams_total{provider="Groq"}': "0+2x120",
        },
        {
            T + 'wasted_tokens_total{provider="Groq"}': "0+90x120",
            T + 'cut_streams_total{provider="Groq"}': "0+2x120",
        },
    ),
    "LedgerFails": Case(
        {T + "ledger_rows_lost_total": "0x90 2x30"},
        {T + "ledger_rows_lost_total": "2x120", T + "ledger_errors_total": "0x90 2x30"},
    ),
    "DescriptorsRunOut": Case(
        {"process_open_fds": "950x120", "process_max_fds": "1024x120"},
        {"process_open_fds": "500x120", "process_max_fds": "1024x120"},
    ),
    "KeysGuessed": Case(
        {T + 'refused_total{reason="unauthorized"}': "0+90x120"},
        {T + 'refused_total{reason="unauthorized"}': "0+15x120"},
    ),
    "GuardInterventions": Case(
        {T + 'guard_interventions_total{kind="flood"}': "0+30x120"},
        {T + 'guard_interventions_total{kind="idle_timeout"}': "0+30x120"},
    ),
    "SharedLimitsLost": Case(
        {T + "gate_fallback": "1x120"}, {T + "gate_fallback": "0x120"}
    ),
    "SharedLimitsFlap": Case(shared(lost="0x90 0+2x30"), shared(lost="0x90 4x30")),
    "DrainTakesLong": Case(
        {T + "draining": "0x100 1x20"}, {T + "draining": "1 1 1 0x112 1 1 1"}
    ),
    "DrainCutsStreams": Case(streams(shutdown__server=1), streams(shutdown__server=0)),
    "CertificateEnds": Case(
        {T + "certificate_expiry_timestamp_seconds": f"{13 * DAY}x120"},
        {
            T + 'certificate_expiry_timestamp_seconds{tls="no"}': "0x120",
            T + 'certificate_expiry_timestamp_seconds{tls="yes"}': f"{15 * DAY}x120",
        },
    ),
    "LogRecordsDropped": Case(
        {T + "log_records_dropped_total": "0x90 5x30"},
        {T + "log_records_dropped_total": "5x120"},
    ),
}


def series(name: str) -> str:
    """Add the labels that the scraper sets."""
    scraped = 'job="trio-ai-stream",instance="a:9464"'
    metric, _, labels = name.rstrip("}").partition("{")
    return f"{metric}{{{scraped},{labels}}}" if labels else f"{metric}{{{scraped}}}"


def play(name: str, samples: dict[str, str], firing: int) -> dict[str, object]:
    """Return promtool's test that so many alerts of a name fire after 29 minutes."""
    expr = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    return {
        "interval": "15s",
        "input_series": [
            {"series": series(key), "values": values} for key, values in samples.items()
        ],
        "promql_expr_test": [
            {
                "expr": expr,
                "eval_time": "29m45s",
                "exp_samples": [{"labels": "{}", "value": firing}],
            }
        ],
    }


# Of `SharedLimitsFlap`: whether it fires.
SHARED = {
    "decisions that fail while the link works": (1, shared(failures="0x90 0+10x30")),
    "an outage that lasts": (
        0,
        shared(lost="0x90 4x30", failures="0x90 0+10x30", fallback="0x90 4x30"),
    ),
    "an outage that is over": (
        0,
        shared(
            lost="0x90 4x30", failures="0x90 0+10x10 100x20", fallback="0x90 4x10 0x20"
        ),
    ),
}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="there is no promtool: apt-get install prometheus",
)


def promtool(*words: str) -> None:
    """Run it; it must find nothing to complain of."""
    command = ["promtool", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("name", NAMES)
def test_an_alert_fires_when_it_should_and_only_then(name: str, tmp_path: Path) -> None:
    """Prometheus' own evaluation, over half an hour of each of two histories."""
    case = CASES[name]
    evaluate(name, [play(name, case.fires, 1), play(name, case.rests, 0)], tmp_path)


@needs_promtool
@pytest.mark.parametrize("history", SHARED)
def test_one_outage_is_one_alert(history: str, tmp_path: Path) -> None:
    """It is no link that comes and goes, however many workers have lost it."""
    fires, samples = SHARED[history]
    name = "SharedLimitsFlap"
    evaluate(name, [play(name, samples, fires)], tmp_path)


def evaluate(name: str, tests: list[dict[str, object]], tmp_path: Path) -> None:
    """Have Prometheus play the tests of one alert."""
    rules = tmp_path / "rules.yml"  # of this alert alone: promtool evaluates them all
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    group["rules"] = [one for one in group["rules"] if one["alert"] == name]
    rules.write_text(json.dumps({"groups": [group]}))
    plan = {
        "rule_files": [str(rules)],
        "evaluation_interval": "15s",
        "tests": tests,
    }
    file = tmp_path / "test.yml"  # JSON is YAML
    file.write_text(json.dumps(plan))
    promtool("test", "rules", str(file))


@needs_promtool
def test_the_file_of_rules_is_well_formed() -> None:
    """Prometheus would load it."""
    promtool("check", "rules", str(ALERTS))


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    """docs/operations.md has a heading for each alert, in the order of the rules."""
    text = (DOCS / "operations.md").read_text()
    chapter = text.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\w+)$", chapter, re.MULTILINE) == NAMES
    for page in re.split(r"^### \w+$", chapter, flags=re.MULTILINE)[1:]:
        assert len(page.split()) >= 15, "says what to do"
    assert set(CASES) == set(NAMES)
