"""The bill of a stream at its end: exact, estimated or none, and how good that is."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support.world import Visit, world
from trio_ai_stream.dialects.plain_chat import PLAIN_CHAT
from trio_ai_stream.stream.estimate import TokenEstimator
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.stream.transcript import Transcript
from trio_ai_stream.wire.events import Answer, Usage
from trio_ai_stream.wire.record import (
    Basis,
    Bill,
    Outcome,
    exact_bill,
    known_provider,
    reconciled_bill,
)

REQUEST = UpstreamRequest("r", "maker/model", b"{}", PLAIN_CHAT, prompt_size=400)


def answer(size: int, tokens: int | None = None, texts: int = 1) -> Answer:
    """An answer of so many letters; a whole one says how many tokens they were."""
    made = Answer()
    made.asked = made.opened = True
    made.text_size = size
    made.texts = texts
    if tokens is not None:
        made.finish_reason = "stop"
        made.usage = {"prompt_tokens": 100, "completion_tokens": tokens}
    return made


def bill(estimator: TokenEstimator, said: Answer, outcome: Outcome) -> Bill:
    """The bill of an answer that ended so, at the first attempt."""
    return estimator.bill(REQUEST, said, outcome=outcome)


async def over(visit: Visit) -> None:
    """Wait for the request's end."""
    with trio.fail_after(1000):
        await visit.over.wait()


async def test_a_whole_answer_has_an_exact_bill(autojump_clock: MockClock) -> None:
    """Upstream's own numbers, its provider and its cost."""
    async with world() as w:
        await over(w.chat("simulator/reasoning?chunks=5"))
        made = w.record.bill
        assert made.basis is Basis.EXACT
        assert (made.prompt_tokens, made.completion_tokens) == (1, 25)
        assert (made.reasoning_tokens, made.cached_tokens) == (20, 0)
        assert made.cost_usd == pytest.approx(3e-6 + 25 * 15e-6)
        assert made.provider == "Simulator"
        assert made.tokens_after_close is None


async def test_a_cut_answer_has_an_estimate(autojump_clock: MockClock) -> None:
    """What passed is counted, also when upstream named nothing in its head."""
    async with world() as w:
        visit = w.chat("simulator/endless?generation_header=0")
        await trio.sleep(2)
        visit.leave()
        await over(visit)
        made = w.record.bill
        assert made.basis is Basis.ESTIMATED
        assert made.provider == "Simulator"
        assert made.prompt_tokens == 1
        (seen,) = w.simulator.ledger.find()
        assert made.completion_tokens == pytest.approx(seen.tokens_sent, rel=0.35)


async def test_a_refused_request_has_no_bill(autojump_clock: MockClock) -> None:
    """Upstream gave no answer, so there is nothing to pay."""
    async with world() as w:
        await over(w.chat("simulator/bad-request"))
        assert w.record.bill == Bill()


def test_the_estimate_learns_from_whole_answers() -> None:
    """A model whose tokens are short is counted as such; the error is measured."""
    errors: list[float] = []
    estimator = TokenEstimator(errors.append)
    before = bill(estimator, answer(600), Outcome.CANCELLED)
    assert before.completion_tokens == 150
    for _ in range(40):
        bill(estimator, answer(600, 300), Outcome.COMPLETED)
    after = bill(estimator, answer(600), Outcome.CANCELLED)
    assert after.completion_tokens == pytest.approx(300, rel=0.05)
    assert after.prompt_tokens == pytest.approx(100, rel=0.05)
    assert errors[0] == pytest.approx(0.5)
    assert errors[-1] < 0.05


def test_tokens_are_counted_by_events_where_that_errs_less() -> None:
    """A provider that sends one or two tokens an event, of texts of any kind."""
    estimator = TokenEstimator()
    for size in (100, 900, 200, 800):
        bill(estimator, answer(size, 120, 60), Outcome.COMPLETED)
    cut = bill(estimator, answer(500, texts=33), Outcome.CANCELLED)
    assert cut.completion_tokens == 66


def test_what_was_said_of_the_prompt_is_not_estimated() -> None:
    """Anthropic's Messages begin with it; what is cached is part of the prompt."""
    made = answer(40)
    made.usage = {"input_tokens": 30, "output_tokens": 1, "cache_read_input_tokens": 70}
    cut = bill(TokenEstimator(), made, Outcome.CANCELLED)
    assert (cut.basis, cut.prompt_tokens, cut.cached_tokens) == (
        Basis.ESTIMATED,
        100,
        70,
    )
    assert cut.completion_tokens == 10


def test_pieces_without_text_count_a_token_each() -> None:
    """A fragment of a tool call is no text, and yet it was generated."""
    made = answer(0)
    made.pieces = 7
    assert bill(TokenEstimator(), made, Outcome.CANCELLED).completion_tokens == 7


def test_who_leaves_after_the_usage_has_an_exact_bill() -> None:
    """Nothing was billed after it."""
    made = bill(TokenEstimator(), answer(40, 10), Outcome.CLIENT_DISCONNECTED)
    assert (made.basis, made.tokens_after_close) == (Basis.EXACT, 0)


def test_usage_is_read_in_other_dialects() -> None:
    """Messages and Responses name the same counts otherwise."""
    made = exact_bill(
        {
            "input_tokens": 9,
            "output_tokens": 4,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        "Amazon Bedrock",
    )
    assert made == Bill(Basis.EXACT, 32, 4, 2, 3, None, "Amazon Bedrock")
    details = {"cached_tokens": 3}
    said = {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": details}
    assert exact_bill(said, None) == Bill(Basis.EXACT, 9, 4, None, 3)


def test_what_is_null_hides_no_number() -> None:
    """Upstreams send null for what they do not know, beside or after what they do."""
    said = {
        "prompt_tokens": None,
        "input_tokens": 9,
        "completion_tokens": 4.0,
        "prompt_tokens_details": {"cached_tokens": None},
        "cache_read_input_tokens": 3,
        "cost": "0.0025",
    }
    assert exact_bill(said, None) == Bill(Basis.EXACT, 12, 4, None, 3, 0.0025)
    assert exact_bill({"cost": "free"}, None).cost_usd is None
    transcript = Transcript(Answer())
    transcript.note([Usage({"input_tokens": 9, "output_tokens": 1})])
    transcript.note([Usage({"input_tokens": None, "output_tokens": 4})])
    assert transcript.answer.usage == {"input_tokens": 9, "output_tokens": 4}
    native = {"native_tokens_prompt": None, "native_tokens_completion": None}
    plain = {"tokens_prompt": 9, "tokens_completion": 4, "total_cost": 0.5}
    found = reconciled_bill({**native, **plain})
    assert found == Bill(Basis.RECONCILED, 9, 4, cost_usd=0.5)


def test_a_free_text_is_no_provider() -> None:
    """What upstream says freely stands in no record."""
    assert known_provider("Google AI Studio") == "Google AI Studio"
    assert known_provider("a\nb") is None
    assert known_provider(7) is None
