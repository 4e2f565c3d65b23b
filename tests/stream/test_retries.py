"""What is tried again, and what is not."""

from __future__ import annotations

import dataclasses
import gc
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.stream.test_answers import body, event, sse
from tests.stream.test_endings import end
from tests.support.completions import ask, over
from tests.support.scripted import scripted
from tests.support.world import world
from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.stream.protocols import OnAbortable, OnSent, UpstreamRequest
from trio_ai_stream.stream.retries import Retries, RetryBudget
from trio_ai_stream.upstream.upstream_errors import BROKEN
from trio_ai_stream.wire.events import Failure, Item, Reasoning
from trio_ai_stream.wire.problems import Problem
from trio_ai_stream.wire.record import Basis, Bill, Outcome


class OneBlock:
    """An upstream whose whole answer has arrived before it is first read."""

    kind = "simulator"
    generation_id = None

    def __init__(self, *items: Item) -> None:
        self._items = items
        self.opened = 0
        self.ended = True

    async def open(
        self, _call: UpstreamRequest, on_sent: OnSent, on_abortable: OnAbortable
    ) -> OneBlock:
        """Answer at once."""
        self.opened += 1
        await on_sent()
        return self

    async def receive(self) -> Sequence[Item]:
        """Return all of it."""
        return self._items

    async def finish(self) -> None:
        """Nothing is left."""

    def abort(self) -> None:
        """Nothing is open."""


async def test_an_answer_that_began_unseen_is_not_asked_for_again(
    autojump_clock: MockClock,
) -> None:
    """Reasoning that nobody asked to see, and a failure behind it: upstream's failure.

    Nothing had been delivered, so it was tried again, in a state without room for it:
    the client was told of an internal error (found by the sweep).
    """
    async with world() as w:
        upstream = OneBlock(Reasoning("hm"), Failure(BROKEN, "in the stream"))
        w.services.upstream = upstream  # type: ignore[assignment]
        visit = w.chat()
        await end(visit)
        assert visit.types == ["connected", "error"]
        assert visit.events[-1]["error_type"] == BROKEN.error_type
        assert w.record.outcome is Outcome.UPSTREAM_FAILED
        assert upstream.opened == 1


REFUSED = b'data: {"error":{"code":429,"message":"m"}}\n\n'
EARLY_USAGE = (
    b'data: {"id":"gen-1","choices":[],"usage":{"prompt_tokens":5,"cost":1}}\n\n'
)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_upstream_refuses_under_200_costs_nothing(
    autojump_clock: MockClock, *, stream: bool
) -> None:
    """Its error came before any output: the same as a refusal by status."""
    fail = b'{"error":{"code":400,"message":"m"}}'
    steps = body("application/json", fail)
    if stream:
        steps = sse(EARLY_USAGE, b"data: " + fail + b"\n\n")
    async with scripted(*steps) as (w, _):
        await over(ask(w, "m", stream=stream))
        assert w.record.bill == Bill()
        w.assert_clean()


async def test_a_failed_try_leaves_nothing_in_the_bill(
    autojump_clock: MockClock,
) -> None:
    """Neither its usage nor its name stand in what follows it."""
    async with scripted(*sse(EARLY_USAGE, REFUSED)) as (w, upstream):
        visit = w.chat()
        while not upstream.requests:
            await wait_all_tasks_blocked()
        upstream.steps = sse(event({"content": "hello"}, "stop"), b"data: [DONE]\n\n")
        await over(visit)
        assert (upstream.requests, visit.types[-1]) == (2, "done")
        assert visit.events[-1]["usage"] is None
        assert visit.events[-1]["generation_id"] == "gen-7"
        assert w.record.bill.basis is Basis.ESTIMATED
        assert w.record.bill.cost_usd is None


async def test_who_leaves_between_two_tries_owes_nothing(
    autojump_clock: MockClock,
) -> None:
    """Upstream has refused the first, and has not seen the second."""
    refusal = b"HTTP/1.1 429 No\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
    async with scripted(refusal) as (w, upstream):
        visit = w.chat()
        await trio.sleep(1)
        visit.leave()
        await over(visit)
        assert (upstream.requests, w.record.attempts) == (1, 1)
        assert w.record.outcome is Outcome.CLIENT_DISCONNECTED
        assert w.record.bill == Bill()


async def test_a_stream_that_was_ended_is_not_tried_again(
    autojump_clock: MockClock,
) -> None:
    """To close upstream's connection looks like a failure of its, which is none."""
    async with world() as w:
        visit = w.chat("simulator/no-token")
        await wait_all_tasks_blocked()
        visit.leave()
        await end(visit)
        assert w.record.outcome is Outcome.CLIENT_DISCONNECTED
        assert w.record.attempts == 1
        w.assert_clean()


async def test_what_upstream_may_have_worked_on_is_asked_once(
    autojump_clock: MockClock,
) -> None:
    """A connection that breaks unanswered, a provider's failure: one request each."""
    async with world() as w:
        for model in (
            "simulator/drop?at=0",
            "simulator/bad-gateway",
            "simulator/timeout",
        ):
            await end(w.chat(model))
        assert [record.attempts for record in w.records] == [1, 1, 1]
        assert w.simulator.ledger.total == 3


async def test_retries_do_not_multiply_a_failure_of_everybody(
    autojump_clock: MockClock,
) -> None:
    """200 requests become 220 and the floor of 10, in no two bursts.

    Each has a Retry-After of a second; who is out of tries is told not to try either.
    """
    random.seed(1)
    async with world(permits=300) as w:
        visits = [ask(w, "simulator/overloaded") for _ in range(200)]
        for visit in visits:
            await over(visit)
        records = w.simulator.ledger.find()
        assert sum(record.attempts for record in w.records) == len(records) == 230
        again = [record.marks["head_received"].at for record in records[200:]]
        assert all(1.1 <= at <= 5.1 for at in again)
        bins = Counter(round(at, 1) for at in again)
        assert len(bins) > 7
        assert max(bins.values()) < 8
        assert {visit.headers["x-should-retry"] for visit in visits} == {"false"}
        assert {visit.headers["retry-after"] for visit in visits} == {"1"}
        _, exposition = w.services.metrics.render()
        assert b"trio_ai_stream_upstream_attempts_total 230.0" in exposition
        assert b"trio_ai_stream_upstream_retries_total 30.0" in exposition
        assert b"trio_ai_stream_upstream_retries_denied_total 200.0" in exposition


def test_a_budget_is_a_share_of_the_recent_requests_and_a_floor() -> None:
    """What was asked twenty seconds ago allows nothing any more."""
    budget = RetryBudget(share=0.1, floor=2)
    for _ in range(50):
        budget.note_request(100.0)
    assert [budget.take(101.0) for _ in range(9)] == [True] * 7 + [False] * 2
    assert not budget.take(111.0)  # the window before still counts, requests and all
    assert [budget.take(125.0) for _ in range(3)] == [True, True, False]
    assert not RetryBudget(share=0.0, floor=0).take(0.0)


def wait_after(problem: Problem, *, attempts: int = 1, left_s: float = 100) -> Any:
    """What a policy with budget says after a failure, and what the client is told."""
    retries = Retries(RetryBudget(share=0.0, floor=1), lambda: None)
    failure = EndStream(Outcome.UPSTREAM_REJECTED, problem=problem)
    wait_s = retries.wait_s(failure, attempts=attempts, left_s=left_s)
    assert failure.problem is not None
    return wait_s, failure.problem.spent


async def test_a_wait_is_as_long_as_asked_and_differs() -> None:
    """Longer than Retry-After by a random time; never shorter, never the same."""
    problem = Problem(503, "x", "x", retryable=True, resend=True, retry_after=3.0)
    waits = [wait_after(problem)[0] for _ in range(50)]
    assert all(3.1 <= wait <= 4.0 for wait in waits)
    assert len(set(waits)) == 50


@pytest.mark.parametrize(
    ("changes", "options", "spent"),
    [
        ({"resend": False}, {}, False),
        ({"resend": False}, {"attempts": 2}, True),
        ({}, {"attempts": 3}, True),
        ({"retry_after": 11.0}, {}, False),  # the client's to wait for
        ({"retry_after": 5.0}, {"left_s": 5}, False),
    ],
)
async def test_there_is_no_other_try(
    changes: dict[str, Any], options: dict[str, Any], spent: bool
) -> None:
    """Not allowed, too many, too long a wait, too little time left."""
    problem = Problem(503, "x", "x", retryable=True, resend=True)
    problem = dataclasses.replace(problem, **changes)
    assert wait_after(problem, **options) == (None, spent)


async def test_a_retry_leaves_nothing_to_the_collector(
    autojump_clock: MockClock,
) -> None:
    """No exception of an attempt holds the frame that holds the exception."""
    async with world() as w:
        await end(w.chat("simulator/flaky"))  # what is made once is made
        gc.collect()
        gc.disable()
        try:
            visit = w.chat("simulator/flaky")
            await end(visit)
            assert w.records[-1].attempts == 3
            streams = [o for o in gc.get_objects() if isinstance(o, EndStream)]
            assert streams == []
        finally:
            gc.enable()
