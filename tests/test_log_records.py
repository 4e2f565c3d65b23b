"""The log's records are those that its JSON Schema describes."""

from __future__ import annotations

import ast
import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from scripts.docs import ROOT
from scripts.log_records import RECORDS
from tests.support.serving import ServerProcess, until

SOURCE = ROOT / "src" / "trio_ai_stream"
KNOWN = {one.event: {*one.fields, *one.sometimes} for one in RECORDS}
# Words that begin an event's name in a variable or an argument.
PASSED_ON = {"certificate_reloaded", "response_error", "application_error"}


def logged() -> Iterator[tuple[str, set[str], str]]:
    """Each event that the source logs, its fields, and where."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call):
                fields = {str(k.arg): k.value for k in node.keywords if k.arg}
            elif isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                fields = {
                    str(k.value): v for k, v in pairs if isinstance(k, ast.Constant)
                }
            else:
                continue
            event = fields.pop("event", None)
            if isinstance(event, ast.Constant):
                yield str(event.value), set(fields), place


def test_every_record_of_the_source_is_described() -> None:
    """Its name and its fields; and none is described that nobody logs."""
    found = list(logged())
    for event, fields, place in found:
        assert event in KNOWN, f"{place}: {event} is not in scripts/log_records.py"
        assert fields <= KNOWN[event], f"{place}: {fields - KNOWN[event]}"
    names = {event for event, _, _ in found}
    assert set(KNOWN) - names - PASSED_ON == {"log_records_dropped"}
    source = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    for name in [*PASSED_ON, "log_records_dropped"]:
        assert f'"{name}"' in source


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All that a server has logged that was used in several ways."""
    folder = tmp_path_factory.mktemp("server")
    (folder / ".env").write_text("MAX_PROMPT_LENGTH=100\n")
    log = folder / "log"
    server = ServerProcess(log, LOG_LEVEL="DEBUG")

    def has(event: str) -> bool:
        return f'"event": "{event}"' in log.read_text()

    try:
        with httpx.Client(base_url=server.url, timeout=20) as client:
            client.get("/nowhere")
            for model in ("echo", "drop", "flaky", "server-error"):
                body = {"prompt": "x", "model": f"simulator/{model}"}
                client.post("/chat", json=body)
            until(lambda: has("stream_billed"))
            (folder / ".env").write_text("MAX_PROMPT_LENGTH=99\nWORKERS=2\n")
            server.signal(signal.SIGHUP)
            until(lambda: has("restart_needed"))
            endless = {"prompt": "x", "model": "simulator/endless"}
            with client.stream("POST", "/chat", json=endless) as response:
                blocks = response.iter_raw()  # it closes the response when it goes
                next(blocks)
                server.signal(signal.SIGTERM)
                until(lambda: has("drain_began"))
                server.stop()
    finally:
        server.stop()
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_real_log_is_what_the_schema_says(lines: list[dict[str, Any]]) -> None:
    """Every line of it, of streams, requests, a reload and a drain."""
    schema = json.loads((ROOT / "docs" / "log-records.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    for line in lines:
        validator.validate(line)
    seen = {line["event"] for line in lines}
    expected = {"stream_ended", "stream_billed", "stream_retried", "request_started"}
    expected |= {"request_ended", "reloaded", "restart_needed", "drain_began"}
    assert expected | {"drain_over", "simulator_upstream"} <= seen


@pytest.mark.parametrize(
    "change", [{"outcome": "well"}, {"prompt": "secret"}, {"duration_ms": "1"}]
)
def test_the_schema_refuses_what_is_not_a_record(
    lines: list[dict[str, Any]], change: dict[str, Any]
) -> None:
    """An unknown word, a field that does not belong there, another type."""
    schema = json.loads((ROOT / "docs" / "log-records.schema.json").read_text())
    ended = next(line for line in lines if line["event"] == "stream_ended")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**ended, **change}, schema)
