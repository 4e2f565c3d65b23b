"""`GET /v1/models`: upstream's list of models in OpenAI's shape, kept a minute."""

from __future__ import annotations

import math
from typing import Final

import msgspec
import trio
from loguru import logger
from quart import Blueprint, Response

from trio_ai_stream.http.http_responses import json_response
from trio_ai_stream.http.services import Services
from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.wire.documents import ModelList, model_list
from trio_ai_stream.wire.problems import Fault, Problem, Refused

FRESH_S: Final = 60.0
FETCH_S: Final = 10.0

TIMED_OUT: Final = Problem(
    504,
    "upstream_timeout",
    "upstream did not list its models in time",
    Fault.UPSTREAM,
    retryable=True,
)
MALFORMED: Final = Problem(
    502, "upstream_failed", "upstream sent no list of models", Fault.UPSTREAM
)


def models_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with `GET /v1/models` and `GET /v1/models/{model}`."""
    blueprint = Blueprint("models", __name__)
    catalogue = Catalogue()

    async def current() -> ModelList:
        assert services.upstream is not None
        return await catalogue.current(services.upstream)

    @blueprint.get("/v1/models")
    async def models() -> Response:
        """List upstream's models."""
        return json_response((await current()).document)

    @blueprint.get("/v1/models/<path:model>")
    async def one_model(model: str) -> Response:
        """Describe one of upstream's models."""
        found = (await current()).models.get(model)
        if found is None:
            message = "upstream lists no model of this name; see /v1/models"
            raise Refused(Problem(404, "model_not_found", message, field="model"))
        return json_response(msgspec.json.encode(found))

    return blueprint


class Catalogue:
    """Upstream's models; clients that ask while it is being asked share the answer."""

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._list: ModelList | None = None
        self._problem = MALFORMED
        self._tried_at = -math.inf

    async def current(self, upstream: OpenRouter) -> ModelList:
        """Return the list; an old one rather than none if upstream fails.

        Waits for one request at most, failed or not: its own, or the one under way.
        Cancelling leaves the fetching to the next who asks.

        :raises Refused: upstream cannot be asked, and there is no list yet.
        """
        asked_at = trio.current_time()
        async with self._lock:
            fresh = self._list is not None and asked_at - self._tried_at <= FRESH_S
            if not fresh and asked_at >= self._tried_at:
                await self._refresh(upstream)
        if self._list is None:
            raise Refused(self._problem)
        return self._list

    async def _refresh(self, upstream: OpenRouter) -> None:
        try:
            self._list = await _fetch(upstream)
        except Refused as exc:
            self._problem = exc.problem
        self._tried_at = trio.current_time()


async def _fetch(upstream: OpenRouter) -> ModelList:
    try:
        with trio.fail_after(FETCH_S):
            body = await upstream.get("/models")
        return model_list(body)
    except EndStream as exc:
        logger.warning(
            "upstream did not list its models", event="models_failed", cause=str(exc)
        )
        raise Refused(exc.problem or MALFORMED) from exc
    except trio.TooSlowError as exc:
        raise Refused(TIMED_OUT) from exc
    except (ValueError, RecursionError) as exc:
        raise Refused(MALFORMED) from exc
