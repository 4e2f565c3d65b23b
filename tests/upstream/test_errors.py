"""What upstream's errors are told as: statuses, texts, times to wait."""

from __future__ import annotations

import json

import pytest

from trio_ai_stream.upstream.errors import rejection

WAITS: list[tuple[bytes, str | None, str | None]] = [
    (b"", "7", "7"),
    (b"", " 7 ", "7"),
    (b"", "0", "1"),
    (b"", "-7", None),
    (b"", "\u00b2", None),  # a digit to Python, but no number
    (b"", "9" * 400, None),
    (b"", "Wed, 21 Oct 2026 07:28:00 GMT", None),
    (b'{"error":{"metadata":{"retry_after":2.5}}}', "7", "3"),
    (b'{"error":{"metadata":{"retry_after":1e999}}}', None, None),
    (b'{"error":{"metadata":{"retry_after":NaN}}}', None, None),
    (b'{"error":{"metadata":{"retry_after":true}}}', None, None),
]


@pytest.mark.parametrize(("body", "header", "told"), WAITS)
def test_a_time_to_wait_is_a_number_that_can_be_told(
    body: bytes, header: str | None, told: str | None
) -> None:
    """The body's time goes before the header's; what is no such time is left out."""
    problem = rejection(429, body, header).problem
    assert problem is not None
    assert problem.retry_after_header == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("model: no such one", "model: no such one"),
        ("word " * 100, "word " * 59 + "word …"),
        ("x" * 400, "x" * 300 + " …"),
    ],
)
def test_upstreams_text_is_cut_between_words(said: str, told: str) -> None:
    """A long text about the caller's mistake is passed on up to a bound."""
    body = json.dumps({"error": {"message": said}}).encode()
    problem = rejection(400, body, None).problem
    assert problem is not None
    assert problem.message.partition(": ")[2] == told
