"""What each path answers: from a complete request to the steps that answer it.

No I/O. The chat endpoint is planned by `plan_chat`; everything else is one JSON body,
in the shapes of OpenRouter's documentation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from trio_ai_stream.simulator.faults import PREFIX, PRESETS
from trio_ai_stream.simulator.http_messages import SimulatedRequest
from trio_ai_stream.simulator.ledger import Ledger, LedgerRecord
from trio_ai_stream.simulator.schedule import (
    JSON,
    Generation,
    SimulatedHead,
    Step,
    StreamSchedule,
    Write,
    plain_error,
    refuse_script,
    status_script,
    whole_script,
)
from trio_ai_stream.simulator.simulated_answer import prompt_tokens
from trio_ai_stream.simulator.simulated_chat import (
    ChatError,
    SimulatedChat,
    parse_chat,
    parse_messages,
    parse_responses,
)

BASE = "/api/v1"
CHAT = BASE + "/chat/completions"
MESSAGES = BASE + "/messages"
PARSERS = {
    CHAT: parse_chat,
    MESSAGES: parse_messages,
    BASE + "/responses": parse_responses,
}
BAD_KEYS = {"sk-invalid": 401, "sk-nocredit": 402}


def is_chat(request: SimulatedRequest) -> bool:
    """Whether a request, of which at least the head is known, asks for a chat."""
    return request.method == "POST" and request.path in PARSERS


class Plan(NamedTuple):
    """How one chat request is answered, and what becomes of the connection."""

    steps: Iterator[Step]
    keep_alive: bool
    chunked: bool = True


def plan_chat(
    request: SimulatedRequest, record: LedgerRecord, ledger: Ledger, default_model: str
) -> Plan:
    """Return the plan of a chat request; fills in the record's model and attempt."""
    keep = request.keep_alive
    refused = refused_key(request)
    dialect = request.path.rpartition("/")[2]
    if refused is not None:
        return Plan(plain_error(refused, dialect=dialect), keep)
    try:
        chat = PARSERS[request.path](bytes(request.body), default_model)
    except ChatError as exc:
        return Plan(plain_error(exc.status, str(exc), dialect), keep)
    record.model = chat.model
    record.stream = chat.stream
    record.faults = chat.faults
    record.prompt_tokens = prompt_tokens(chat.prompt)
    record.reasoning_tokens = chat.faults.reasoning
    session = request.headers.get("x-session-id") or chat.session_id
    record.attempt = ledger.attempt(record.request_id or session or chat.prompt[:200])
    faults = chat.faults
    if faults.fail_times is not None and record.attempt > faults.fail_times:
        faults = faults.healed()
        chat = dataclasses.replace(chat, faults=faults)
    chunked = request.http11 and faults.framing == "chunked"
    generation = Generation(record.generation_id, EPOCH + record.number)
    return Plan(
        _script(chat, generation, ledger),
        keep and chunked and faults.keep_alive,
        chunked,
    )


def _script(
    chat: SimulatedChat, generation: Generation, ledger: Ledger
) -> Iterator[Step]:
    if chat.faults.refuse != "no":
        return refuse_script(chat.faults)
    if chat.faults.status is not None:
        return status_script(chat.faults, chat.dialect)
    if chat.stream:
        return StreamSchedule(chat, generation, ledger.now_ns).steps()
    return whole_script(chat, generation)


def refused_key(request: SimulatedRequest) -> int | None:
    """Return the status of a key that OpenRouter would refuse; any other is fine."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return BAD_KEYS.get(key.strip()) if scheme.lower() == "bearer" else None


def plan_other(request: SimulatedRequest, ledger: Ledger) -> Iterator[Step]:
    """Return the steps that answer any request but a chat."""
    path = request.path
    if path == BASE + "/stats":
        return _stats(request, ledger)
    if (request.method, path) == ("GET", BASE + "/models"):
        return _json(models())
    counts = (request.method, path) == ("POST", MESSAGES + "/count_tokens")
    refused = refused_key(request)
    if refused is not None:
        return plain_error(refused, dialect="messages" if counts else "chat")
    if counts:
        return _json({"input_tokens": max(1, len(request.body) // 4)})
    if request.method != "GET":
        return plain_error(404)
    if path == BASE + "/key":
        return _json(key())
    if path == BASE + "/generation":
        found = ledger.billed(request.query.get("id", ""))
        if found is None:
            return plain_error(404, "Generation not found")
        return _json(generation_document(found))
    return plain_error(404)


def _stats(request: SimulatedRequest, ledger: Ledger) -> Iterator[Step]:
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
    return iter((SimulatedHead(200, (JSON,), len(body)), Write(body)))


EPOCH = 1_767_225_600  # 2026-01-01: `created` counts requests from here, not seconds
CONTEXT = 200_000
PARAMETERS = (
    *("max_tokens", "seed", "stop", "temperature"),
    *("tool_choice", "tools", "top_p"),
)
ORDINARY = {
    "~anthropic/claude-sonnet-latest": "Claude Sonnet, the latest",
    "anthropic/claude-sonnet-5": "Claude Sonnet 5",
    "anthropic/claude-haiku-4.5": "Claude Haiku 4.5",
    "openai/gpt-4o": "GPT-4o",
}


# Fields of a generation that the simulator has no value for.
NULLS = (
    *("upstream_inference_cost", "cache_discount", "router", "service_tier"),
    *("preset_id", "app_id", "workspace_id", "session_id", "external_user"),
    *("http_referer", "user_agent", "web_search_engine", "num_search_results"),
    *("num_fetches", "num_input_audio_prompt", "num_media_prompt"),
    *("num_media_completion", "native_tokens_completion_images"),
)


def models() -> dict[str, Any]:
    """Return the body of `GET /models`: ordinary names, then one per preset."""
    entries = [_model(id_, name, name) for id_, name in ORDINARY.items()]
    entries += [
        _model(f"{PREFIX}{name}", f"Simulator: {name}", preset.description)
        for name, preset in PRESETS.items()
    ]
    return {"data": entries, "total_count": len(entries), "links": {"next": None}}


def _model(model: str, name: str, description: str) -> dict[str, Any]:
    return {
        "id": model,
        "canonical_slug": model.removeprefix("~"),
        "name": name,
        "created": EPOCH,
        "description": description,
        "context_length": CONTEXT,
        "architecture": {
            "modality": "text->text",
            "input_modalities": ["text"],
            "output_modalities": ["text"],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": {
            "prompt": "0.000003",
            "completion": "0.000015",
            "request": "0",
            "image": "0",
            "web_search": "0",
            "internal_reasoning": "0",
        },
        "top_provider": {
            "context_length": CONTEXT,
            "max_completion_tokens": 64_000,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": PARAMETERS,
        "default_parameters": {},
        "supported_voices": None,
        "links": {"details": f"/api/v1/models/{model}/endpoints"},
        "expiration_date": None,
    }


def key() -> dict[str, Any]:
    """Return the body of `GET /key`."""
    return {
        "data": {
            "label": "sk-or-v1-sim...000",
            "limit": 100,
            "limit_remaining": 74.5,
            "limit_reset": "monthly",
            **dict.fromkeys(("usage", "usage_monthly"), 25.5),
            "usage_daily": 1.5,
            "usage_weekly": 5.5,
            **{f"byok_usage{of}": 0 for of in ("", "_daily", "_weekly", "_monthly")},
            "include_byok_in_limit": False,
            "is_free_tier": False,
            "is_management_key": False,
            "is_provisioning_key": False,
            "budgets": [],
            "effective_budget": None,
            "free_model_daily_requests": {"limit": 1000, "remaining": 1000, "used": 0},
            "allowed_data_regions": ["global"],
            "creator_user_id": None,
            "organization_id": None,
            "workspace_id": None,
            "expires_at": None,
            "rate_limit": {"requests": -1, "interval": "10s", "note": "deprecated"},
        }
    }


def generation_document(record: LedgerRecord) -> dict[str, Any]:
    """Return the body of `GET /generation` for an ended request."""
    stamps = record.marks
    began = stamps["head_received"].at
    latency = stamps.get("first_token", stamps["ended"]).at - began
    cancelled = record.outcome == "client_gone"
    finish = "finish_sent" in stamps
    bill, kind = record.bill, record.faults.bill
    assert bill is not None
    counts = {
        "tokens_prompt": bill.prompt_tokens,
        "tokens_completion": bill.completion_tokens,
        "native_tokens_prompt": bill.prompt_tokens,
        "native_tokens_completion": bill.completion_tokens,
        "native_tokens_reasoning": bill.reasoning_tokens,
        "native_tokens_cached": 0,
        "total_cost": bill.cost,
        "usage": bill.cost,
    }
    if kind == "odd":
        counts = dict.fromkeys(counts, -1)
    return {
        "data": {
            "id": "gen-another" if kind == "wrong" else record.generation_id,
            "model": record.model,
            "streamed": record.stream,
            "cancelled": cancelled,
            "finish_reason": "stop" if finish else None,
            "native_finish_reason": "end_turn" if finish else None,
            "latency": round(latency * 1000),
            "generation_time": round((stamps["ended"].at - began) * 1000),
            "moderation_latency": 0,
            **counts,
            "provider_name": bill.provider,
            "provider_responses": [],
            "upstream_id": f"sim-{record.number}",
            "is_byok": False,
            "created_at": "2026-01-01T00:00:00.000Z",
            "api_type": "completions",
            "data_region": "global",
            "origin": "",
            "request_id": record.request_id,
            **dict.fromkeys(NULLS),
        }
    }
