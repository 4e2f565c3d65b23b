"""`GET /usage`: what streams have cost; a key sees its own, an operator's key all."""

from __future__ import annotations

from typing import Any, Final

from quart import Blueprint, Response, request
from werkzeug.datastructures import MultiDict

from trio_ai_stream.billing.billing import Billing
from trio_ai_stream.billing.usage_ledger import LedgerUnavailableError
from trio_ai_stream.billing.usage_report import (
    FILTERS,
    UsageQuery,
    UsageQueryError,
    as_csv,
    as_json,
)
from trio_ai_stream.http.auth import visible_owner
from trio_ai_stream.http.http_responses import json_response
from trio_ai_stream.http.services import Services
from trio_ai_stream.wire.problems import Fault, Problem, Refused, invalid

NO_LEDGER: Final = Problem(
    404, "not_found", "this server keeps no ledger; set LEDGER_FILE"
)
NO_HOSTS: Final = Problem(
    404, "not_found", "this server shares no totals with others; set REDIS_URL"
)
NO_NAME: Final = Problem(
    403,
    "permission_denied",
    "the ledger does not tell this caller from others; ask with a key",
)
UNREADABLE: Final = Problem(
    503,
    "ledger_unavailable",
    "the ledger, or the totals of all hosts, cannot be read now; the log says why",
    Fault.SERVER,
    retryable=True,
    retry_after=1,
)


PARAMETERS: Final = ("by", "since", "until", *FILTERS, "hosts", "format")


def usage_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with `GET /usage`."""
    blueprint = Blueprint("usage", __name__)

    @blueprint.get("/usage")
    async def usage() -> Response:
        """Sum up what streams have cost, by key, user, model, provider, outcome, day.

        In the query: `by`, `since`, `until`, `key`, `user`, `model`, `provider`,
        `outcome`, `hosts` (`all` or `own`), and `format` (`json` or `csv`).
        """
        said = dict(request.args)
        owner = visible_owner()
        if owner is not None:
            said["key"] = _own_name(services, owner)
        hosts = said.get("hosts", "all" if services.billing.shared_usage else "own")
        try:
            _check(request.args)
            query = UsageQuery.parse(said)
            rows = await _sums(services.billing, query, hosts)
        except UsageQueryError as exc:
            raise invalid("query", str(exc)) from exc
        except LedgerUnavailableError as exc:
            raise Refused(UNREADABLE) from exc
        if said.get("format") != "csv":
            own = None if owner is None else said["key"]
            budgets = await services.billing.spending.views(own)
            return json_response(as_json(query, rows, budgets, hosts))
        response = Response(as_csv(query, rows))
        response.headers["Content-Type"] = "text/csv; charset=utf-8"
        response.headers["Cache-Control"] = "no-store"
        return response

    return blueprint


def _check(said: MultiDict[str, str]) -> None:
    """Refuse what would be left out of the question, and so answer another one.

    :raises UsageQueryError: a name is unknown or there twice, or no such format.
    """
    for name, values in said.lists():
        if name not in PARAMETERS:
            names = ", ".join(PARAMETERS)
            raise UsageQueryError(f"expected {names}, got {name[:40]!r}")
        if len(values) > 1:
            raise UsageQueryError(
                f"{name}: expected it once, got it {len(values)} times"
            )
    if said.get("format", "json") not in {"json", "csv"}:
        raise UsageQueryError(
            f"format: expected json or csv, got {said['format'][:40]!r}"
        )


async def _sums(
    billing: Billing, query: UsageQuery, hosts: str
) -> list[dict[str, Any]]:
    """Ask the ledger of this host, or the totals of all.

    :raises Refused: 404; there are none.
    """
    if hosts == "all":
        if billing.shared_usage is None:
            raise Refused(NO_HOSTS)
        return await billing.shared_usage.sums(query)
    if hosts != "own":
        raise UsageQueryError(f"hosts: expected all or own, got {hosts[:40]!r}")
    if billing.ledger is None:
        raise Refused(NO_LEDGER)
    await billing.ledger.flush()  # what cannot be written does not hide the rest
    return await billing.ledger.ask(query.rows)


def _own_name(services: Services, owner: str) -> str:
    """Return the caller's name in the ledger, if nobody shares it.

    :raises Refused: 403; LOG_CLIENTS makes one of several addresses.
    """
    name = services.billing.key_name(owner)
    if owner.startswith("ip:") and name != owner:
        raise Refused(NO_NAME)
    return name
