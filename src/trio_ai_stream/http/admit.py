"""The way of a request to its stream: who asks, rate limit, permit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from trio_ai_stream.admission.gate import Decision, Permit, PermitRefusal, Quota
from trio_ai_stream.billing.spending import LIMITS_UNAVAILABLE, Spending
from trio_ai_stream.http.auth import PROBES, check_client
from trio_ai_stream.http.page.page_routes import PREFIX as PAGE_PREFIX
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.services import Services
from trio_ai_stream.settings.values import NamedKey
from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.problems import (
    EXHAUSTED,
    SHUTTING_DOWN,
    Fault,
    Problem,
    Refused,
)

# Probes and scrapers must be answered when clients are refused. Whoever guesses a key
# is counted all the same.
UNLIMITED: Final = PROBES | {"/metrics"}
# One visit to the page is a dozen small files out of memory; they cost less than
# counting them would, and must not use up what `/chat` is allowed.
UNLIMITED_PREFIX: Final = PAGE_PREFIX


# Another site's page can make a browser ask, not read the answer; CORS says which may.
CROSS_SITE: Final = Problem(
    403,
    "cross_site",
    "a page of another site asked this; set CORS_ALLOW_ORIGINS to serve its origin",
)


def is_routine(context: RequestContext) -> bool:
    """Whether the request is a probe's, a scraper's or for a file of the page's."""
    path = context.path
    return path in UNLIMITED or path.startswith(UNLIMITED_PREFIX)


async def admit_request(services: Services, context: RequestContext) -> None:
    """Find out who asks, count the request, and refuse whoever may not ask.

    :raises Refused: 400, 401, 403, 429 with `Retry-After`, or 503 while the server
        drains.
    """
    if context.method == "OPTIONS":
        return
    if _is_cross_site(services, context):  # not counted: it is not its user's doing
        raise Refused(CROSS_SITE)
    refusal = check_client(services, context)
    if context.exchange.probes_only and context.path not in PROBES:
        raise Refused(EXHAUSTED)
    if refusal is not None or not is_routine(context):
        await _count(services, context)
    if refusal is not None:
        raise Refused(refusal)


def _is_cross_site(services: Services, context: RequestContext) -> bool:
    """Whether a page that CORS does not allow made a browser ask this.

    A link that a user follows is the user's own request (Fetch Metadata Request
    Headers, `Sec-Fetch-Dest: document`).
    """
    if context.field(b"sec-fetch-site") != "cross-site":
        return False
    allowed = services.settings.CORS_ALLOW_ORIGINS
    origin = context.field(b"origin")
    if origin is not None and ("*" in allowed or origin in allowed):
        return False
    return context.field(b"sec-fetch-dest") != "document"


async def _count(services: Services, context: RequestContext) -> None:
    """Count the request against its client's rate.

    :raises Refused: 429 with `Retry-After`, or 503 while the server drains.
    """
    if services.registry.draining.is_set() and context.method == "POST":
        raise Refused(SHUTTING_DOWN)
    own = None if context.limits is None else context.limits.requests_per_second
    quota = None if own is None else Quota.per_second(own)
    decision = await services.gate.admit_request(context.client_id, quota)
    if decision.unavailable and context.method != "POST":
        # Whoever comes back to a stream, or cancels one, asks for nothing new.
        decision = replace(decision, allowed=True, unavailable=False, retry_after_s=0.0)
    context.decision = decision
    if not decision.allowed:
        raise Refused(_too_many(decision))


async def admit_stream(
    services: Services,
    context: RequestContext,
    call: UpstreamRequest,
    budgets: Budgets,
) -> Stream:
    """Take a permit and enter the stream; the request holds it from here on.

    :raises Refused: 402 if the key's budget is spent, 503 without a permit, or while
        the server drains.
    """
    limits = context.limits
    permit = await services.gate.acquire_stream(
        context.client_id, call.request_id, None if limits is None else limits.streams
    )
    if not isinstance(permit, Permit):
        raise Refused(_no_permit(permit))
    release_permit = permit.release
    if limits is not None and limits.has_budget:
        # With the permit in hand, and given back when its stream is counted: so no more
        # streams than the key may have can be under way when its budget is passed.
        spending = services.billing.spending
        await _within_budget(spending, limits, permit)
        release_permit = partial(spending.when_counted, permit.release)
    # No checkpoint from here to the end: a cancel cannot come between taking the permit
    # and handing it to the request.

    if services.registry.draining.is_set():
        permit.release()
        raise Refused(SHUTTING_DOWN)
    on_close = services.on_close
    if services.tracer is not None:
        parent = context.field(b"traceparent")
        on_close = partial(services.stream_closed, traceparent=parent)
    stream = Stream(
        call,
        budgets,
        owner=context.client_id,
        release_permit=release_permit,
        forget_body=services.bodies.hand_over(context),
        on_close=on_close,
        on_gap=services.metrics.content_gap,
        estimator=services.estimator,
        on_bill=services.on_bill,
        finishing=services.registry.finishing,
    )
    services.registry.add(stream)
    services.metrics.stream_started(stream.endpoint)
    context.stream = stream
    return stream


async def _within_budget(spending: Spending, key: NamedKey, permit: Permit) -> None:
    """Return if the key may spend more; else, and if cancelled, release the permit.

    :raises Refused: 402, or 503 if nobody can say.
    """
    problem: Problem | None = LIMITS_UNAVAILABLE
    try:
        problem = await spending.check(key)
    finally:
        if problem is not None:
            permit.release()
    if problem is not None:
        raise Refused(problem)


def _no_permit(refused: PermitRefusal) -> Problem:
    status, error_type, message = {
        "server": (
            503,
            "too_many_streams",
            f"the server has its {refused.limit} streams; try again later",
        ),
        "client": (
            429,
            "too_many_streams_of_client",
            f"this client has its {refused.limit} streams; end one, or try again later",
        ),
        "gate": (
            503,
            "limits_unavailable",
            "the server cannot check its limits now; try again later",
        ),
    }[refused.scope]
    return Problem(
        status,
        error_type,
        message,
        Fault.CALLER if refused.scope == "client" else Fault.SERVER,
        retryable=True,
        retry_after=refused.retry_after_s,
    )


def _too_many(decision: Decision) -> Problem:
    if decision.unavailable:
        return _no_permit(PermitRefusal("gate", 0, decision.retry_after_s))
    return Problem(
        429,
        "too_many_requests",
        f"more than {decision.quota.rate:g} requests a second; try again later",
        retryable=True,
        retry_after=decision.retry_after_s,
    )
