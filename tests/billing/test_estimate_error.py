"""How far estimates are off: the numbers that docs/billing.md states.

`token_counts.csv` holds 480 texts, by their numbers only: what they are, characters,
those from U+3000 on, and the tokens that six makers' tokenizers make of them (OpenAI's
o200k, Claude's of 2023, DeepSeek V3, Gemini, Llama 3, Qwen 3). The prose is of Debian's
Reference and of Firefox's messages, the code is this repository's.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from trio_ai_stream.dialects.plain_chat import PLAIN_CHAT
from trio_ai_stream.stream.estimate import EXTRA, TokenEstimator, json_extra, text_size
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.wire.events import Answer
from trio_ai_stream.wire.record import Outcome

REQUEST: Final = UpstreamRequest("r", "m", b"{}", PLAIN_CHAT, prompt_size=40)
MAKERS: Final = ("o200k", "claude", "deepseek_v3", "gemini", "llama3", "qwen3")
COMMON: Final = {
    *("english", "german", "spanish", "french", "portuguese", "russian"),
    *("chinese", "japanese", "korean", "python", "js", "markdown", "emoji"),
}
ROWS: Final = [
    {name: int(value) if value.isdigit() else value for name, value in row.items()}
    for row in csv.DictReader(
        Path(__file__).with_name("token_counts.csv").read_text().splitlines()
    )
]
Row = dict[str, Any]


def answer(row: Row, tokens: int, per_event: int) -> Answer:
    """A whole answer of one text, so many tokens in each event."""
    made = Answer()
    made.asked = made.opened = True
    made.text_size = row["characters"] + EXTRA * row["wide"]
    made.texts = -(-tokens // per_event)
    made.finish_reason = "stop"
    made.usage = {"prompt_tokens": 10, "completion_tokens": tokens}
    return made


def errors(
    rows: list[Row],
    maker: str,
    per_event: Callable[[], int] = lambda: 5,
    after: int = 0,
) -> Iterator[float]:
    """What one process's estimates of these answers are off by, but for the first."""
    found: list[float] = []
    estimator = TokenEstimator(found.append)
    for row in rows:
        said = answer(row, row[maker], per_event())
        estimator.bill(REQUEST, said, outcome=Outcome.COMPLETED)
    for row, error in list(zip(rows, found, strict=True))[after:]:
        if row[maker] > 50:
            yield error


def p95(found: list[float]) -> float:
    """What nineteen of twenty are below."""
    return sorted(found)[int(0.95 * len(found))]


def kinds() -> list[list[Row]]:
    """The rows of each kind."""
    names = dict.fromkeys(row["kind"] for row in ROWS)
    return [[row for row in ROWS if row["kind"] == name] for name in names]


MIXED: Final = random.Random(1).sample(ROWS, len(ROWS))
COMMON_ROWS: Final = [row for row in MIXED if row["kind"] in COMMON]


@pytest.mark.parametrize(
    ("bound", "runs", "after"),
    [
        pytest.param(0.30, [[row] for row in COMMON_ROWS], 0, id="first, common"),
        pytest.param(0.75, [[row] for row in ROWS], 0, id="first, any"),
        pytest.param(0.15, kinds(), 5, id="then, alike"),
        pytest.param(0.30, [COMMON_ROWS], 30, id="then, common"),
        pytest.param(0.75, [MIXED], 30, id="then, any"),
    ],
)
def test_nineteen_of_twenty_estimates_are_within_what_is_stated(
    bound: float, runs: list[list[Row]], after: int
) -> None:
    """Of answers above 50 tokens; a model's first answer, or what follows a few."""
    sizes = random.Random(1)
    found = [
        error
        for maker in MAKERS
        for rows in runs
        for error in errors(rows, maker, lambda: sizes.randint(2, 12), after)
    ]
    assert 0.8 * bound < p95(found) < bound


def test_where_each_token_is_an_event_estimates_are_exact() -> None:
    """After a few answers, whatever they are."""
    for maker in MAKERS:
        assert max(errors(MIXED, maker, lambda: 1, after=10)) < 0.01


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("plain text", 10),
        ("naïve “quotes” Ελληνικά", 23),
        ("取消范围", 12),
        ("キャンセル", 15),
        ("취소 범위", 13),
        ("ok 🚀", 6),
        ("half \ud83d", 8),
    ],
)
def test_a_wide_character_counts_as_three(text: str, size: int) -> None:
    """In a text, and in JSON, where it may be escaped (there an emoji is two)."""
    assert text_size(text) == size
    for ascii_only in (False, True):
        body = json.dumps(text, ensure_ascii=ascii_only)
        extra = json_extra(body.encode("utf-8", "surrogatepass"))
        twice = ascii_only and "🚀" in text
        assert extra == (size - len(text)) * (1 + twice)
