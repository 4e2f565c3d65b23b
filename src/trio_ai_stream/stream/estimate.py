"""The bill of a stream, as well as it is known when the stream has ended.

A whole answer brings its usage. One that was cut does not, so its tokens are counted
from what passed, in one of two ways: by the size of its texts, or by their number, as
many providers send an event for each token. The ratios are learnt from the model's
whole answers, and so is which of the two errs less; before that a token is four letters
of an alphabet. It is hardly more than one character of Chinese, Japanese or Korean, so
such a character counts as three letters. Each piece that is no text (a fragment of a
tool call) is one token. Each whole answer is estimated as well, which measures the
error.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.wire.events import Answer
from trio_ai_stream.wire.record import Basis, Bill, Outcome, exact_bill

EXTRA: Final = 2
"""What a wide character counts beyond one."""
# The first bytes in UTF-8 of all characters from U+3000 on.
_WIDE: Final = bytes(range(0xE3, 0xF5))
_ESCAPED: Final = re.compile(rb"\\u[3-9A-Fa-f]")


def text_size(text: str) -> int:
    """Return the size of a text in letters; a wide character is three."""
    if text.isascii():
        return len(text)
    return len(text) + EXTRA * _wide(text.encode("utf-8", "surrogatepass"))


def json_extra(body: bytes) -> int:
    """Return what the wide characters of a JSON document count beyond one each."""
    if not body.isascii():
        return EXTRA * _wide(body)
    return EXTRA * len(_ESCAPED.findall(body))


def _wide(utf8: bytes) -> int:
    return len(utf8) - len(utf8.translate(None, _WIDE))


LETTERS_PER_TOKEN: Final = 4.0
# The first guess weighs as much as so many tokens that were counted.
PRIOR_TOKENS: Final = 50.0
# What was learnt keeps this much with each answer: the last thirty or so count.
KEPT: Final = 0.97
# The same of how much a way of counting errs: the last five or so count.
ERROR_KEPT: Final = 0.8
FIRST_ERROR: Final = 0.3
MODELS: Final = 256
_NO_ANSWER: Final = {
    Outcome.UPSTREAM_UNREACHABLE,
    Outcome.UPSTREAM_REJECTED,
    Outcome.UPSTREAM_FAILED,
}


class _Ratio:
    """How much of something passes with each token, learnt; 0 of it is no token.

    `error` is the relative error that it has had lately.
    """

    __slots__ = ("_amount", "_tokens", "error")

    def __init__(self, amount: float = 0.0, tokens: float = 0.0) -> None:
        self._amount = amount
        self._tokens = tokens
        self.error = FIRST_ERROR

    @property
    def known(self) -> bool:
        return self._tokens > 0

    def tokens(self, amount: float) -> float:
        return amount * self._tokens / self._amount

    def learn(self, amount: int, tokens: int) -> None:
        if amount <= 0 or tokens <= 0:
            return
        if self.known:
            error = abs(self.tokens(amount) - tokens) / tokens
            self.error = self.error * ERROR_KEPT + error * (1 - ERROR_KEPT)
        self._amount = self._amount * KEPT + amount
        self._tokens = self._tokens * KEPT + tokens


def _by_size() -> _Ratio:
    return _Ratio(LETTERS_PER_TOKEN * PRIOR_TOKENS, PRIOR_TOKENS)


class _Model:
    """What was learnt of one model."""

    __slots__ = ("_size", "_texts", "_tokens", "_usd", "prompt")

    def __init__(self) -> None:
        self.prompt = _by_size()
        self._size = _by_size()
        self._texts = _Ratio()
        self._usd = self._tokens = 0.0

    def completion(self, answer: Answer) -> float:
        """Return the tokens of what passed as text."""
        if self._texts.known and self._texts.error < self._size.error:
            return self._texts.tokens(answer.texts)
        return self._size.tokens(answer.text_size + answer.reasoning_size)

    def learn_completion(self, answer: Answer, tokens: int, *, streamed: bool) -> None:
        self._size.learn(answer.text_size + answer.reasoning_size, tokens)
        if streamed:  # a document is one piece
            self._texts.learn(answer.texts, tokens)

    def cost(self, bill: Bill) -> float | None:
        """Return what an estimate comes to, by what whole answers have cost a token.

        In whole billionths of a dollar, as the ledger counts.
        """
        tokens = (bill.prompt_tokens or 0) + (bill.completion_tokens or 0)
        return round(tokens * self._usd / self._tokens, 9) if self._tokens else None

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
        self, request: UpstreamRequest, answer: Answer, *, outcome: Outcome
    ) -> Bill:
        """Return the bill of an ended stream; learns from it if it is exact."""
        finished = answer.finish_reason is not None or outcome is Outcome.COMPLETED
        if answer.usage and (finished or answer.usage_final):
            bill = exact_bill(answer.usage, answer.provider)
            self._learn(request, answer, bill)
            if outcome is Outcome.COMPLETED:
                return bill
            return msgspec.structs.replace(bill, tokens_after_close=0)
        if not answer.asked or (not answer.opened and outcome in _NO_ANSWER):
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
        said = exact_bill(answer.usage or {}, answer.provider)  # Messages begin with it
        prompt = said.prompt_tokens or round(model.prompt.tokens(request.prompt_size))
        texts = model.completion(answer)
        size = answer.text_size + answer.reasoning_size
        reasoning = texts * answer.reasoning_size / size if size else 0.0
        bill = Bill(
            Basis.ESTIMATED,
            prompt_tokens=max(1, prompt),
            completion_tokens=round(texts) + answer.pieces,
            reasoning_tokens=round(reasoning),
            cached_tokens=said.cached_tokens,
            provider=said.provider,
        )
        return msgspec.structs.replace(bill, cost_usd=model.cost(bill))

    def _model(self, model: str) -> _Model:
        found = self._models.pop(model, None) or _Model()
        self._models[model] = found
        if len(self._models) > MODELS:
            self._models.popitem(last=False)
        return found

    def _learn(self, request: UpstreamRequest, answer: Answer, bill: Bill) -> None:
        model = self._model(request.model)
        model.learn_cost(bill)
        model.prompt.learn(request.prompt_size, bill.prompt_tokens or 0)
        hidden = 0 if answer.reasoning_size else bill.reasoning_tokens or 0
        counted = (bill.completion_tokens or 0) - hidden - answer.pieces
        if answer.texts > 0 and counted > 0:
            self._on_error(abs(model.completion(answer) - counted) / counted)
            model.learn_completion(answer, counted, streamed=not request.whole)


def prompt_size(body: bytes, chars: int) -> int:
    """Return the size of what a request asks, in letters.

    `chars` is the length of its texts, 0 if nobody counted.
    """
    chars = chars or len(body)
    plain = body.isascii() and b"\\u" not in body
    return chars if plain else chars + json_extra(body)
