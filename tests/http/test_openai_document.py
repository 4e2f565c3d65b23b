"""`POST /v1/chat/completions` with `stream: false`, in memory and on a mock clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from tests.support.completions import ask, error_of, over
from tests.support.world import BUDGETS, World, world
from trio_ai_stream.admission.directory import LocalDirectory
from trio_ai_stream.dialects.completions import COMPLETIONS
from trio_ai_stream.http.http_responses import DocumentResponder
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.stream.lifecycle import RULES, Ending
from trio_ai_stream.wire.events import Answer, Done, Raw
from trio_ai_stream.wire.record import Outcome


async def test_the_document_is_upstreams(autojump_clock: MockClock) -> None:
    """The answer is upstream's bytes, under its length; the connection is reused."""
    async with world() as w:
        for _ in range(2):
            visit = ask(w, stream=False, max_tokens=7)
            await over(visit)
            assert visit.status == 200
            assert visit.headers["content-type"] == "application/json"
            assert visit.headers["content-length"] == str(len(visit.body))
            body = visit.json()
            assert body["object"] == "chat.completion"
            assert body["provider"] == "Simulator"
            assert body["usage"]["completion_tokens"] == 7
            assert visit.ended.is_set()
        assert [r.outcome for r in w.records] == [Outcome.COMPLETED] * 2
        assert [r.bill.completion_tokens for r in w.records] == [7, 7]
        assert w.transport.statistics().connects == 1
        w.assert_clean()


async def test_stream_left_out_means_one_document(autojump_clock: MockClock) -> None:
    """As OpenAI has it, `stream` is false where it is absent or null."""
    async with world() as w:
        visit = ask(w, stream=None)
        await over(visit)
        assert visit.json()["object"] == "chat.completion"


async def test_a_slow_answer_may_take_longer_than_a_first_token(
    autojump_clock: MockClock,
) -> None:
    """A whole answer is its own first content: only the deadline bounds it."""
    async with world() as w:
        visit = ask(w, "simulator/fast?first_token_ms=60000", stream=False)
        assert await over(visit) == pytest.approx(60)
        assert BUDGETS.first_token_s < 60
        assert visit.status == 200


async def test_the_deadline_is_a_true_status(autojump_clock: MockClock) -> None:
    """An answer that does not come by STREAM_DEADLINE_SECS is 504 and final."""
    async with world() as w:
        visit = ask(w, "simulator/no-answer", stream=False)
        assert await over(visit) == pytest.approx(BUDGETS.deadline_s)
        assert visit.status == 504
        assert error_of(visit)["metadata"]["error_type"] == "deadline_exceeded"
        assert visit.headers["x-should-retry"] == "false"
        w.assert_clean()


FAILED = ["drop", "reset", "truncated", "bad-json", "error"]
BROKEN = [(model, Outcome.UPSTREAM_FAILED) for model in FAILED]


@pytest.mark.parametrize(
    ("model", "outcome"), [*BROKEN, ("error-bare", Outcome.UPSTREAM_REJECTED)]
)
async def test_half_a_document_is_no_document(
    model: str, outcome: Outcome, autojump_clock: MockClock
) -> None:
    """Nothing of a broken answer is written: the client gets an error with a status."""
    async with world() as w:
        visit = ask(w, f"simulator/{model}", stream=False)
        await over(visit)
        assert visit.status in {500, 502}
        assert error_of(visit)["type"] == "server_error"
        assert w.record.outcome is outcome
        assert w.record.bytes_out == 0
        w.assert_clean()


async def test_a_cancel_is_told(autojump_clock: MockClock) -> None:
    """Cancelling by id while the document is waited for is a response of its own."""
    async with world() as w:
        visit = ask(w, "simulator/no-answer", stream=False)
        await trio.sleep(1)
        (stream,) = w.services.registry
        stream.stop(Outcome.CANCELLED)
        await over(visit)
        assert visit.status == 499
        assert error_of(visit)["type"] == "cancelled"
        w.assert_clean()


async def test_shutdown_is_told(autojump_clock: MockClock) -> None:
    """A drain whose budget is spent is 503 with Retry-After, and may be retried."""
    async with world() as w:
        visit = ask(w, "simulator/no-answer", stream=False)
        await trio.sleep(1)
        w.services.registry.begin_drain()
        w.services.registry.end_streams()
        await over(visit)
        assert visit.status == 503
        assert error_of(visit)["metadata"]["error_type"] == "shutting_down"
        assert visit.headers["retry-after"] == "1"
        assert visit.headers["x-should-retry"] == "true"
        w.assert_clean()


def _cancelled(w: World) -> None:
    directory = cast("LocalDirectory", w.services.directory)
    (stream,) = w.services.registry
    said = directory._streams.cancel(stream.request_id, None)
    assert said is not None
    assert said["outcome"] == "completed"


def _drained(w: World) -> None:
    w.services.registry.begin_drain()
    assert not w.services.registry.end_streams()


@pytest.mark.parametrize("cause", [_cancelled, _drained, None])
async def test_a_document_on_its_way_is_how_its_request_ends(
    cause: Callable[[World], None] | None, autojump_clock: MockClock
) -> None:
    """No cancel, drain or deadline is told, nor recorded, of who has the answer."""
    async with world() as w:
        visit = ask(w, stream=False, max_tokens=7)
        visit.reading = trio.Event()
        await trio.sleep(BUDGETS.deadline_s - 1)
        if cause is None:
            await trio.sleep(2)
        else:
            cause(w)
        visit.reading.set()
        await over(visit)
        assert visit.json()["usage"]["completion_tokens"] == 7
        assert w.record.outcome is Outcome.COMPLETED
        assert w.record.told
        w.assert_clean()


async def test_who_leaves_a_document_on_its_way_has_left(
    autojump_clock: MockClock,
) -> None:
    """Nobody got the answer, so that is no completed stream."""
    async with world() as w:
        visit = ask(w, stream=False)
        visit.reading = trio.Event()
        await trio.sleep(1)
        visit.leave()
        visit.reading.set()
        await over(visit)
        assert w.record.outcome is Outcome.CLIENT_DISCONNECTED
        w.assert_clean()


async def test_a_cancel_between_head_and_document_cuts_nothing_off() -> None:
    """A head that has said its length is followed by the document, not by nothing."""
    sent: list[dict[str, Any]] = []
    budget = trio.CancelScope()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.start":
            budget.cancel(reason="a deadline")
        await trio.lowlevel.checkpoint_if_cancelled()

    scope = {"method": "POST", "path": "/", "scheme": "http", "headers": []}
    responder = DocumentResponder(
        send, [], RequestContext(scope, "r"), dialect=COMPLETIONS
    )
    answer, document = Answer(), b"0" * 40_000
    with budget:
        await responder.deliver([Raw(document), Done()])
    problem = RULES[Outcome.DEADLINE_EXCEEDED].problem
    await responder.ended(Ending(Outcome.DEADLINE_EXCEEDED, 0.0, problem), answer)
    assert b"".join(m["body"] for m in sent[1:]) == document
    assert (sent[0]["status"], budget.cancelled_caught) == (200, True)


@pytest.mark.parametrize("max_tokens", [7, 20_000])
async def test_who_has_the_whole_document_may_leave(
    max_tokens: int, autojump_clock: MockClock
) -> None:
    """A client that leaves when it has the last byte was told, and has no permit."""
    async with world(permits=1) as w:
        model = "simulator/fast?chunks=20000"
        visit = ask(w, model, stream=False, max_tokens=max_tokens)
        while not visit.body or len(visit.body) < int(visit.headers["content-length"]):
            await visit.news.wait()
        assert w.permits.held == 0
        visit.leave()
        await over(visit)
        assert (w.record.outcome, w.record.told) == (Outcome.COMPLETED, True)
        w.assert_clean()
