"""OpenRouter's side endpoints: the models, the key, one generation's bill.

Pure: values in, JSON values out. Shapes from the documentation's examples (facts A9).
"""

from __future__ import annotations

from typing import Any

from trio_ai_stream.simulator.faults import PREFIX
from trio_ai_stream.simulator.presets import PRESETS
from trio_ai_stream.simulator.record import Record

EPOCH = 1_767_225_600  # 2026-01-01: `created` counts requests from here, not seconds
CONTEXT = 200_000
PARAMETERS = [
    "max_tokens",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
]
ORDINARY = {
    "~anthropic/claude-sonnet-latest": "Claude Sonnet, the latest",
    "anthropic/claude-sonnet-5": "Claude Sonnet 5",
    "anthropic/claude-haiku-4.5": "Claude Haiku 4.5",
    "openai/gpt-4o": "GPT-4o",
}


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
            "usage": 25.5,
            "usage_daily": 1.5,
            "usage_weekly": 5.5,
            "usage_monthly": 25.5,
            "byok_usage": 0,
            "byok_usage_daily": 0,
            "byok_usage_weekly": 0,
            "byok_usage_monthly": 0,
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


def generation(record: Record) -> dict[str, Any]:
    """Return the body of `GET /generation` for an ended request."""
    stamps = record.marks
    began = stamps["head_received"].at
    latency = stamps.get("first_token", stamps["ended"]).at - began
    cancelled = record.outcome == "client_gone"
    finish = "finish_sent" in stamps
    cost = record.tokens_sent * 15e-6
    return {
        "data": {
            "id": record.generation_id,
            "model": record.model,
            "streamed": record.stream,
            "cancelled": cancelled,
            "finish_reason": "stop" if finish else None,
            "native_finish_reason": "end_turn" if finish else None,
            "latency": round(latency * 1000),
            "generation_time": round((stamps["ended"].at - began) * 1000),
            "moderation_latency": 0,
            "tokens_prompt": 1,
            "tokens_completion": record.tokens_sent,
            "native_tokens_prompt": 1,
            "native_tokens_completion": record.tokens_sent,
            "native_tokens_reasoning": 0,
            "native_tokens_cached": 0,
            "total_cost": cost,
            "usage": cost,
            "provider_name": "Simulator",
            "provider_responses": [],
            "upstream_id": f"sim-{record.number}",
            "upstream_inference_cost": None,
            "cache_discount": None,
            "is_byok": False,
            "created_at": "2026-01-01T00:00:00.000Z",
            "api_type": "completions",
            "data_region": "global",
            "origin": "",
            "router": None,
            "service_tier": None,
            "preset_id": None,
            "app_id": None,
            "workspace_id": None,
            "external_user": None,
            "http_referer": None,
            "user_agent": None,
            "web_search_engine": None,
            "num_search_results": None,
            "num_fetches": None,
            "num_input_audio_prompt": None,
            "num_media_prompt": None,
            "num_media_completion": None,
            "native_tokens_completion_images": None,
            "request_id": record.request_id,
            "session_id": None,
        }
    }
