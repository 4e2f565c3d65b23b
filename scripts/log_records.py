"""The records of the log: what each is, and its fields, as a JSON Schema and a table.

`python -m scripts.docs` writes docs/log-records.schema.json and the table of
docs/log-records.md from `RECORDS`. tests/test_log_records.py holds `RECORDS` to the
code, and the records of a real run to the schema.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal, NamedTuple, get_type_hints

import msgspec

from scripts.json_schemas import components
from trio_ai_stream.wire.problems import Fault
from trio_ai_stream.wire.record import Basis, Bill, Outcome


class LogRecordType(NamedTuple):
    """One kind of record; `sometimes` are fields that a record may lack."""

    event: str
    when: str
    fields: dict[str, Any] = {}  # noqa: RUF012  never changed
    sometimes: dict[str, Any] = {}  # noqa: RUF012


BILL: Final = {
    "usage": Basis,
    **{name: kind for name, kind in get_type_hints(Bill).items() if name != "basis"},
}
CAUSE: Final[dict[str, Any]] = {"cause": str}

RECORDS: Final = (
    LogRecordType(
        "stream_ended",
        "once for each stream; `resumes` and `detached_ms` of one whose client was"
        " away for a time",
        {
            "outcome": Outcome,
            "fault": Fault | None,
            "detail": str | None,
            "client": str | None,
            "endpoint": str,
            "model": str,
            "first_token_ms": float | None,
            "cancel_latency_ms": float | None,
            "duration_ms": float,
            "events": int,
            "blocks": int,
            "bytes": int,
            "attempts": int,
            "told": bool,
            "finish_reason": str | None,
            "generation_id": str | None,
            **BILL,
        },
        {"resumes": int, "detached_ms": float},
    ),
    LogRecordType(
        "stream_billed",
        "the bill of a stream that ended without its usage is settled",
        {
            "generation_id": str | None,
            "model": str,
            "outcome": Outcome,
            **BILL,
            "lookups": int,
            "lag_ms": int,
        },
    ),
    LogRecordType(
        "stream_retried",
        "upstream failed before the first content, and is asked again",
        {"attempt": int, "wait_ms": int, **CAUSE},
    ),
    LogRecordType(
        "request_started",
        "at DEBUG: a request's head has come",
        {"method": str, "path": str, "http_version": str},
    ),
    LogRecordType(
        "request_ended",
        "once for each request; at DEBUG for one with a stream, for probes, `/metrics`"
        " and the page's files",
        {
            "method": str,
            "path": str,
            "http_version": str,
            "status": int | None,
            "client": str | None,
            "duration_ms": float,
        },
    ),
    LogRecordType("drain_began", "a worker was told to end; the message has how many"),
    LogRecordType("drain_over", "streams were left when the drain's time was over"),
    LogRecordType(
        "slow_turn",
        "a turn of the loop took more than 50 ms: the longest of a second, the task"
        " that took longest in it, how many were slow",
        {
            "duration_ms": float,
            "steps": int,
            "task": str,
            "task_ms": float,
            "collector_ms": float,
            "turns": int,
        },
    ),
    LogRecordType(
        "loopback_only", "at start: without keys only this machine is served"
    ),
    LogRecordType("anonymous", "at start: anybody is served"),
    LogRecordType("simulator_upstream", "at start: no model answers"),
    LogRecordType(
        "proxied_upstream", "at start: the proxy to upstream", {"proxy": str}
    ),
    LogRecordType(
        "management_listening", "at start: where METRICS_PORT is", {"address": str}
    ),
    LogRecordType(
        "port_shared",
        "at start of several workers: another server has the port of this setting, too",
        {"setting": str, "address": str},
    ),
    LogRecordType(
        "descriptors_scarce",
        "at start: `MAX_CONNECTIONS` and `MAX_CONCURRENT_STREAMS` need more descriptors"
        " than are allowed",
    ),
    LogRecordType(
        "ca_certs_without_verify_mode",
        "at start: hypercorn.toml names certificates of clients, and asks for none",
    ),
    LogRecordType(
        "trace_started", "at start: TRACE writes every task's steps", {"file": str}
    ),
    LogRecordType("traces_unavailable", "at start: the extra `otel` is missing"),
    LogRecordType("reloaded", "SIGHUP: what was taken over", {"settings": list[str]}),
    LogRecordType(
        "restart_needed",
        "SIGHUP: what only a restart takes over",
        {"settings": list[str]},
    ),
    LogRecordType("certificate_reloaded", "SIGHUP: the certificate was read again"),
    LogRecordType("reload_failed", "SIGHUP: something is wrong, and stays as it was"),
    LogRecordType("worker_ended", "a worker died, and another is started"),
    LogRecordType("worker_killed", "a worker did not end in time"),
    LogRecordType(
        "worker_hung",
        "a worker's loop had not turned for `WATCHDOG_TIMEOUT_SECS`: it is killed and"
        " replaced; where it stood, if it could say so",
    ),
    LogRecordType("worker_not_started", "the system refused a process"),
    LogRecordType(
        "workers_given_up",
        "five starts of one slot failed, or died young, and no other worker is healthy",
    ),
    LogRecordType(
        "notify_failed", "the service manager (NOTIFY_SOCKET) cannot be told"
    ),
    LogRecordType(
        "accept_failed",
        "no room for another connection: descriptors or memory; at most once in ten"
        " seconds",
    ),
    LogRecordType(
        "listeners_closed",
        "the listening sockets were shut down by another process; this one drains",
    ),
    LogRecordType("connection_error", "a defect, contained: please report it"),
    LogRecordType("stream_error", "a defect, contained: please report it"),
    LogRecordType("application_error", "a defect, contained: please report it"),
    LogRecordType("response_error", "a defect, contained: please report it"),
    LogRecordType("internal_error", "a defect, contained: please report it"),
    LogRecordType(
        "callback_error", "a callback failed, the others were called: please report it"
    ),
    LogRecordType("simulator_error", "a defect of the simulator: please report it"),
    LogRecordType(
        "upstream_key_rejected", "upstream answered 401: see the alert KeyRejected"
    ),
    LogRecordType(
        "upstream_circuit_open",
        "connecting fails again and again: one request tries now and then",
        {"failures": int, "seconds": float, **CAUSE},
    ),
    LogRecordType("upstream_circuit_closed", "connecting works again"),
    LogRecordType("models_failed", "upstream did not list its models", CAUSE),
    LogRecordType(
        "prices_failed",
        "upstream did not list its prices: estimates cost nothing",
        CAUSE,
    ),
    LogRecordType(
        "ledger_failed",
        "the ledger cannot be written; said once",
        {"part": str, **CAUSE, "file": str},
    ),
    LogRecordType("ledger_back", "the ledger is written again"),
    LogRecordType(
        "bills_open",
        "at shutdown: bills that are open; with `LEDGER_FILE` the next start settles"
        " them",
        {"open": int},
    ),
    LogRecordType(
        "totals_lost",
        "at shutdown: Valkey did not take what was counted last; the host's ledger has"
        " it",
    ),
    LogRecordType("bill_error", "a defect in a look-up, contained: please report it"),
    LogRecordType("budget_error", "what a key has spent could not be read"),
    LogRecordType("gate_shared", "limits are shared with others", {"processes": int}),
    LogRecordType(
        "gate_fallback", "shared limits are out of reach", {"policy": str, **CAUSE}
    ),
    LogRecordType(
        "gate_flapping",
        "shared limits come and go",
        {"policy": str, "losses": int, "cause": str | None},
    ),
    LogRecordType("bus_rubbish", "a message on the bus of Valkey was not ours"),
    LogRecordType(
        "peer_lost", "another process gave a reader no answer, or was lost", CAUSE
    ),
    LogRecordType(
        "log_records_dropped",
        "the log was not read for a time, or its disk was full, and so many records"
        " were lost",
        {"count": int},
    ),
)

Level = Literal["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"]


def schema() -> dict[str, Any]:
    """Return the JSON Schema of one line of the log."""
    kinds = [kind for one in RECORDS for kind in _kinds(one).values()]
    found, definitions = components(kinds, "#/$defs/{name}")
    schemas = iter(found)
    base = {
        "time": {"type": "string", "format": "date-time"},
        "level": msgspec.json.schema(Level),
        "message": {"type": "string"},
        "request_id": {"type": ["string", "null"]},
    }
    beyond = {  # of the standard library's records, and of those with a traceback
        "logger": {"type": "string"},
        "exception": {"type": "string"},
    }
    for one in RECORDS:
        fields = {name: next(schemas) for name in _kinds(one)}
        definitions[one.event] = {
            "description": one.when,
            "type": "object",
            "properties": {"event": {"const": one.event}, **base, **fields, **beyond},
            "required": ["event", *base, *one.fields],
            "additionalProperties": False,
        }
    definitions["of_a_library"] = {
        "description": "What a library has to say; any fields.",
        "type": "object",
        "properties": {"event": {"type": "null"}, **base, **beyond},
        "required": ["event", *base],
    }
    records = [*(one.event for one in RECORDS), "of_a_library"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of trio-ai-stream's log",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in records],
        "$defs": definitions,
    }


def schema_file() -> str:
    """Return the schema as it is written."""
    return json.dumps(schema(), indent=1) + "\n"


def records_table() -> str:
    """Return the records as a Markdown table."""
    lines = ["| `event` | when | fields |", "|---|---|---|"]
    for one in RECORDS:
        fields = ", ".join(f"`{name}`" for name in _kinds(one))
        lines.append(f"| `{one.event}` | {one.when} | {fields} |")
    return "\n".join(lines)


def _kinds(one: LogRecordType) -> dict[str, Any]:
    return {**one.fields, **one.sometimes}
