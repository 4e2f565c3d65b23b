"""The bill of a stream, as well as it is known when the stream has ended.

A whole answer brings its usage. One that was cut does not, so its tokens are counted
from what passed: characters of text and reasoning, by the characters a token that the
model's whole answers have had lately, and one token for each piece that is no text (a
fragment of a tool call). Before the first whole answer a token counts 4 characters,
which is what OpenAI states for English. Each whole answer is estimated as well, which
measures the error.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.wire.bill import Basis, Bill, exact_bill, known_provider
from trio_ai_stream.wire.events import Answer
from trio_ai_stream.wire.record import Outcome

CHARS_PER_TOKEN: Final = 4.0
# The first guess weighs as much as so many tokens that were counted.
PRIOR_TOKENS: Final = 50.0
# What was learnt keeps this much with each answer: the last thirty or so count.
KEPT: Final = 0.97
MODELS: Final = 256
_NO_ANSWER: Final = {
    Outcome.UPSTREAM_UNREACHABLE,
    Outcome.UPSTREAM_REJECTED,
    Outcome.UPSTREAM_FAILED,
}


class _Ratio:
    """Characters a token, learnt."""

    __slots__ = ("_chars", "_tokens")

    def __init__(self) -> None:
        self._chars = CHARS_PER_TOKEN * PRIOR_TOKENS
        self._tokens = PRIOR_TOKENS

    def tokens(self, chars: int) -> int:
        return round(chars * self._tokens / self._chars)

    def learn(self, chars: int, tokens: int) -> None:
        if chars > 0 and tokens > 0:
            self._chars = self._chars * KEPT + chars
            self._tokens = self._tokens * KEPT + tokens


class _Model:
    """What was learnt of one model."""

    __slots__ = ("_tokens", "_usd", "completion", "prompt")

    def __init__(self) -> None:
        self.prompt = _Ratio()
        self.completion = _Ratio()
        self._usd = self._tokens = 0.0

    def cost(self, bill: Bill) -> float | None:
        """Return what an estimate comes to, by what whole answers have cost a token."""
        tokens = (bill.prompt_tokens or 0) + (bill.completion_tokens or 0)
        return tokens * self._usd / self._tokens if self._tokens else None

    def learn_cost(self, bill: Bill) -> None:
        tokens = (bill.prompt_tokens or 0) + (bill.completion_tokens or 0)
        if tokens and bill.cost_usd is not None:
            self._usd = self._usd * KEPT + bill.cost_usd
            self._tokens = self._tokens * KEPT + tokens


class TokenEstimator:
    """Makes bills, and learns from the exact ones; bounded, one for each process.

    `on_error` is told the relative error of each estimate that could be compared.
    """

    def __init__(self, on_error: Callable[[float], None] = lambda _error: None) -> None:
        self._on_error = on_error
        self._models: OrderedDict[str, _Model] = OrderedDict()

    def bill(
        self,
        request: UpstreamRequest,
        answer: Answer,
        *,
        outcome: Outcome,
        attempts: int,
    ) -> Bill:
        """Return the bill of an ended stream; learns from it if it is exact."""
        finished = answer.finish_reason is not None or outcome is Outcome.COMPLETED
        if answer.usage and finished:
            bill = exact_bill(answer.usage, answer.provider)
            self._learn(request, answer, bill)
            if outcome is Outcome.COMPLETED:
                return bill
            return dataclasses.replace(bill, tokens_after_close=0)
        if not attempts or (not answer.opened and outcome in _NO_ANSWER):
            return Bill()
        return self._estimate(request, answer)

    def cost_so_far(self, request: UpstreamRequest, answer: Answer) -> float:
        """Return the dollars of what has passed of a live stream; 0 if unknown."""
        return self._estimate(request, answer).cost_usd or 0.0

    def learn_cost(self, model: str, bill: Bill) -> None:
        """Learn from a bill that came afterwards what the model's tokens cost."""
        self._model(model).learn_cost(bill)

    def _estimate(self, request: UpstreamRequest, answer: Answer) -> Bill:
        model = self._model(request.model)
        text = model.completion.tokens(answer.text_chars)
        reasoning = model.completion.tokens(answer.reasoning_chars)
        bill = Bill(
            Basis.ESTIMATED,
            prompt_tokens=max(1, model.prompt.tokens(_prompt_chars(request))),
            completion_tokens=text + reasoning + answer.pieces,
            reasoning_tokens=reasoning,
            provider=known_provider(answer.provider),
        )
        return dataclasses.replace(bill, cost_usd=model.cost(bill))

    def _model(self, model: str) -> _Model:
        found = self._models.pop(model, None) or _Model()
        self._models[model] = found
        if len(self._models) > MODELS:
            self._models.popitem(last=False)
        return found

    def _learn(self, request: UpstreamRequest, answer: Answer, bill: Bill) -> None:
        model = self._model(request.model)
        model.learn_cost(bill)
        completion = model.completion
        model.prompt.learn(_prompt_chars(request), bill.prompt_tokens or 0)
        chars = answer.text_chars + answer.reasoning_chars
        hidden = 0 if answer.reasoning_chars else bill.reasoning_tokens or 0
        counted = (bill.completion_tokens or 0) - hidden - answer.pieces
        if chars > 0 and counted > 0:
            self._on_error(abs(completion.tokens(chars) - counted) / counted)
            completion.learn(chars, counted)


def _prompt_chars(request: UpstreamRequest) -> int:
    return request.prompt_chars or len(request.body)
