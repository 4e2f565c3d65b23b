"""What each path answers: from a complete request to the steps that answer it.

No I/O. The chat endpoint is planned by `plan_chat`; everything else is one JSON body.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from trio_ai_stream.simulator import catalog
from trio_ai_stream.simulator.chat import ChatError, ChatRequest, parse_chat
from trio_ai_stream.simulator.ledger import Ledger
from trio_ai_stream.simulator.record import Record
from trio_ai_stream.simulator.rejection import (
    JSON,
    plain_error,
    refuse_script,
    status_script,
)
from trio_ai_stream.simulator.request import Request
from trio_ai_stream.simulator.script import Generation, stream_script
from trio_ai_stream.simulator.steps import Head, Step, Write
from trio_ai_stream.simulator.whole import whole_script

BASE = "/api/v1"
CHAT = BASE + "/chat/completions"
BAD_KEYS = {"sk-invalid": 401, "sk-nocredit": 402}


def is_chat(request: Request) -> bool:
    """Whether a request, of which at least the head is known, asks for a chat."""
    return request.method == "POST" and request.path == CHAT


class Plan(NamedTuple):
    """How one chat request is answered, and what becomes of the connection."""

    steps: Iterator[Step]
    keep_alive: bool
    chunked: bool = True


def plan_chat(
    request: Request, record: Record, ledger: Ledger, default_model: str
) -> Plan:
    """Return the plan of a chat request; fills in the record's model and attempt."""
    keep = request.keep_alive
    refused = refused_key(request)
    if refused is not None:
        return Plan(plain_error(refused), keep)
    try:
        chat = parse_chat(bytes(request.body), default_model)
    except ChatError as exc:
        return Plan(plain_error(exc.status, str(exc)), keep)
    record.model = chat.model
    record.stream = chat.stream
    session = request.headers.get("x-session-id") or chat.session_id
    record.attempt = ledger.attempt(record.request_id or session or chat.prompt[:200])
    faults = chat.faults
    if faults.fail_times is not None and record.attempt > faults.fail_times:
        faults = faults.healed()
        chat = dataclasses.replace(chat, faults=faults)
    chunked = request.http11 and faults.framing == "chunked"
    generation = Generation(record.generation_id, catalog.EPOCH + record.number)
    return Plan(
        _script(chat, generation, ledger),
        keep and chunked and faults.keep_alive,
        chunked,
    )


def _script(
    chat: ChatRequest, generation: Generation, ledger: Ledger
) -> Iterator[Step]:
    if chat.faults.refuse != "no":
        return refuse_script(chat.faults)
    if chat.faults.status is not None:
        return status_script(chat.faults)
    if chat.stream:
        return stream_script(chat, generation, ledger.now_ns)
    return whole_script(chat, generation)


def refused_key(request: Request) -> int | None:
    """Return the status of a key that OpenRouter would refuse; any other is fine."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return BAD_KEYS.get(key.strip()) if scheme.lower() == "bearer" else None


def plan_other(request: Request, ledger: Ledger) -> Iterator[Step]:
    """Return the steps that answer any request but a chat."""
    path = request.path
    if path == BASE + "/stats":
        return _stats(request, ledger)
    if request.method != "GET":
        return plain_error(404)
    if path == BASE + "/models":
        return _json(catalog.models())
    refused = refused_key(request)
    if refused is not None:
        return plain_error(refused)
    if path == BASE + "/key":
        return _json(catalog.key())
    if path == BASE + "/generation":
        found = ledger.find(generation_id=request.query.get("id", ""))
        if not found or found[0].outcome == "live":
            return plain_error(404, "Generation not found")
        return _json(catalog.generation(found[0]))
    return plain_error(404)


def _stats(request: Request, ledger: Ledger) -> Iterator[Step]:
    if request.method == "DELETE":
        ledger.reset()
        return _json({"reset": True})
    if request.method != "GET":
        return plain_error(404)
    query = request.query
    since = query.get("since", "0")
    if not since.isascii() or not since.isdigit() or len(since) > 20:
        return plain_error(
            400, f"since: expected a record's number, got {since[:40]!r}"
        )
    found = ledger.find(
        request_id=query.get("request_id"),
        generation_id=query.get("id"),
        since=int(since),
    )
    return _json(ledger.to_dict(found))


def _json(value: Any) -> Iterator[Step]:
    body = msgspec.json.encode(value)
    return iter((Head(200, (JSON,), len(body)), Write(body)))
