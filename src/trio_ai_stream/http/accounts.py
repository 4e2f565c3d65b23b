"""`GET /v1/key` and `GET /v1/generation`: OpenRouter's, as far as they are a caller's.

The key is the one that the caller has with this server, never the server's own. A
generation is shown to whoever got it, as long as the process that served it remembers
that; the others ask it.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import msgspec
import trio
from quart import Blueprint, Response, request

from trio_ai_stream.admission.directory import DirectoryUnavailableError
from trio_ai_stream.http.auth import visible_owner
from trio_ai_stream.http.http_responses import json_response
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.services import Services
from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.wire.keys import Role
from trio_ai_stream.wire.problems import Fault, Problem, Refused, invalid

FETCH_S: Final = 10.0
_RESETS: Final = {"day": "daily", "month": "monthly"}
NOT_FOUND: Final = Problem(
    404,
    "not_found",
    "no process remembers such a generation of the caller's, or upstream has no"
    " account of it yet",
)
GENERATIONS_UNAVAILABLE: Final = Problem(
    503,
    "generations_unavailable",
    "the process that served this generation, if any did, did not answer in time",
    Fault.SERVER,
    retryable=True,
    retry_after=1,
)
UNAVAILABLE: Final = Problem(
    504,
    "upstream_timeout",
    "upstream gave no account of the generation in time",
    Fault.UPSTREAM,
    retryable=True,
)


def accounts_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with both."""
    blueprint = Blueprint("accounts", __name__)

    @blueprint.get("/v1/key")
    async def key() -> Response:
        """Describe the caller's key: its name, its limits, what it has spent."""
        return json_response(msgspec.json.encode({"data": await _key(services)}))

    @blueprint.get("/v1/generation")
    async def generation() -> Response:
        """Describe one of the caller's generations, as upstream accounts for it."""
        generation_id = request.args.get("id", "")
        if not generation_id:
            raise invalid("id", "expected a generation's id in the query, got none")
        try:
            seen = await services.directory.has_generation(
                generation_id, visible_owner()
            )
        except DirectoryUnavailableError as exc:
            raise Refused(GENERATIONS_UNAVAILABLE) from exc
        if not seen:
            raise Refused(NOT_FOUND)
        assert services.upstream is not None
        try:
            with trio.fail_after(FETCH_S):
                path = f"/generation?id={quote(generation_id, safe='')}"
                return json_response(await services.upstream.get(path))
        except trio.TooSlowError as exc:
            raise Refused(UNAVAILABLE) from exc
        except EndStream as exc:
            raise Refused(exc.problem or NOT_FOUND) from exc

    return blueprint


async def _key(services: Services) -> dict[str, Any]:
    context = RequestContext.current()
    named = context.limits
    rate = services.settings.RATE_LIMIT
    views: list[dict[str, Any]] = []
    if named is not None:
        rate = named.requests_per_second or rate
        views = await services.billing.spending.views(named.name)
    month = next((view for view in views if view["period"] == "month"), {})
    day = next((view for view in views if view["period"] == "day"), {})
    limited = [view for view in views if view["limit_usd"] is not None]
    # There is room for one: that of which less is left.
    limit = min(limited, key=lambda view: view["left_usd"], default={})
    return {
        "label": context.client_id if named is None else named.name,
        "is_management_key": context.role is Role.ADMIN,
        "is_free_tier": False,
        "limit": limit.get("limit_usd"),
        "limit_remaining": limit.get("left_usd"),
        "limit_reset": _RESETS.get(limit.get("period", "")),
        "usage": month.get("spent_usd"),
        "usage_daily": day.get("spent_usd"),
        "usage_monthly": month.get("spent_usd"),
        "rate_limit": {"requests": rate, "interval": "1s"},
    }
