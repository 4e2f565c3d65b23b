"""The way of a request to its stream: rate limit, body, permit."""

from __future__ import annotations

from quart import request

from trio_ai_stream.admission import permits
from trio_ai_stream.admission.decision import Decision
from trio_ai_stream.admission.permits import Permit
from trio_ai_stream.http.incoming import Incoming
from trio_ai_stream.http.services import Services
from trio_ai_stream.stream.budgets import Budgets
from trio_ai_stream.stream.record import Record
from trio_ai_stream.stream.source import Call
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.problems import SHUTTING_DOWN, Fault, Problem, Refused


async def admit_request(services: Services) -> None:
    """Count the request against its client's rate.

    :raises Refused: 429 with `Retry-After`, or 503 while the server drains.
    """
    incoming = Incoming.current()
    if services.registry.draining.is_set() and request.method == "POST":
        raise Refused(SHUTTING_DOWN)
    decision = await services.gate.admit_request(incoming.client_id)
    incoming.decision = decision
    if not decision.allowed:
        raise Refused(_too_many(decision))


async def read_json_body() -> bytes:
    """Return the body of a request that says it is JSON.

    :raises Refused: 415 for another content type. Quart raises 413 past the limit.
    """
    if request.mimetype != "application/json" and not request.mimetype.endswith(
        "+json"
    ):
        raise Refused(
            Problem(
                415,
                "unsupported_media_type",
                "content type: expected application/json,"
                f" got {request.mimetype[:64] or 'none'}",
            )
        )
    body = await request.get_data(cache=False)
    assert isinstance(body, bytes)
    return body


async def admit_stream(
    services: Services, call: Call, *, endpoint: str, budgets: Budgets | None = None
) -> Stream:
    """Take a permit and enter the stream; the request holds it from here on.

    `budgets` stand in for the server's usual ones.

    :raises Refused: 503 without a permit, or while the server drains.
    """
    incoming = Incoming.current()
    permit = await services.gate.acquire_stream(incoming.client_id, call.request_id)
    # No checkpoint from here to the end: a cancel cannot come between taking the permit
    # and handing it to the request.
    if not isinstance(permit, Permit):
        raise Refused(_no_permit(permit))

    traceparent = request.headers.get("traceparent")

    def closed(stream: Stream, record: Record) -> None:
        permit.release()
        services.registry.remove(stream)
        services.metrics.stream_ended(record)
        services.tracer.stream_ended(record, traceparent)
        services.observe(record)
        services.watchers.stream_ended(record)

    if services.registry.draining.is_set():
        permit.release()
        raise Refused(SHUTTING_DOWN)
    stream = Stream(
        call,
        budgets or services.budgets,
        endpoint=endpoint,
        owner=incoming.client_id,
        on_close=closed,
        on_gap=services.metrics.content_gap,
    )
    services.registry.add(stream)
    services.metrics.stream_started(endpoint)
    incoming.stream = stream
    return stream


def _no_permit(refused: permits.Refused) -> Problem:
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
        return _no_permit(permits.Refused("gate", 0, decision.retry_after_s))
    return Problem(
        429,
        "too_many_requests",
        f"more than {decision.quota.rate:g} requests a second; try again later",
        retryable=True,
        retry_after=decision.retry_after_s,
    )
