"""What `/v1` refuses by itself, before upstream is asked."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.completions import COMPLETIONS, ask, error_of, over
from tests.support.world import world

HELLO = [{"role": "user", "content": "hello"}]

BAD: list[tuple[bytes | dict[str, Any], int, str | None]] = [
    (b"", 400, "body"),
    (b"[]", 400, "body"),
    (b'{"messages": [}', 400, "body"),
    (b'{"x": "\xff", "messages": [{"role": "user"}]}', 400, "body"),
    ({}, 400, "messages"),
    ({"messages": []}, 400, "messages"),
    ({"messages": "hello"}, 400, "messages"),
    ({"messages": [{"content": "hello"}]}, 400, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 1}]}, 400, "messages[0].content"),
    ({"messages": HELLO, "model": ""}, 400, "model"),
    ({"messages": HELLO, "model": "x" * 201}, 400, "model"),
    ({"messages": HELLO, "model": "a\x00b"}, 400, "model"),
    ({"messages": HELLO, "stream": "yes"}, 400, "stream"),
    ({"messages": [{"role": "user", "content": "x" * 1_000_001}]}, 413, "messages"),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD)
async def test_a_bad_body_is_refused_by_field(
    body: Any, status: int, field: str | None, autojump_clock: MockClock
) -> None:
    """What we must know of a body is checked; the error names the field as `param`."""
    async with world() as w:
        visit = w.visit(body, COMPLETIONS)
        await over(visit)
        assert visit.status == status
        error = error_of(visit)
        assert error["type"] == "invalid_request_error"
        assert error["param"] in {field, None}
        assert field is not None
        assert field in error["message"]
        assert w.simulator.ledger.total == 0


async def test_a_body_that_is_nested_without_end_is_refused(
    autojump_clock: MockClock,
) -> None:
    """As a body, or, by a Python that reads as deep, for the field that is missing."""
    async with world() as w:
        visit = w.visit(b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", COMPLETIONS)
        await over(visit)
        assert visit.status == 400
        assert error_of(visit)["param"] in {"body", "messages", None}
        assert w.simulator.ledger.total == 0


async def test_text_parts_count_like_texts(autojump_clock: MockClock) -> None:
    """MAX_MESSAGES_LENGTH holds over all texts of all messages, wherever they stand."""
    async with world(env={"MAX_MESSAGES_LENGTH": "4000"}) as w:
        parts = [
            {"type": "text", "text": "x" * 2000},
            {"type": "image_url", "image_url": {"url": "data:," + "y" * 9000}},
        ]
        messages = [
            {"role": "system", "content": "x" * 2000},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": None, "tool_calls": []},
        ]
        visit = ask(w, messages=messages)
        await over(visit)
        assert visit.status == 200
        parts.append({"type": "text", "text": "x"})
        visit = ask(w, messages=messages)
        await over(visit)
        assert visit.status == 413


async def test_other_paths_and_methods_answer_in_openais_shape(
    autojump_clock: MockClock,
) -> None:
    """Under `/v1` every error has the shape that SDKs read, whatever `Accept` says."""
    async with world() as w:
        accept = {"accept": "text/event-stream"}
        visit = w.visit({}, "/v1/embeddings", headers=accept)
        await over(visit)
        assert visit.status == 404
        assert error_of(visit)["metadata"]["error_type"] == "not_found"
        visit = w.visit({}, COMPLETIONS, method="GET", headers=accept)
        await over(visit)
        assert visit.status == 405
        assert error_of(visit)["metadata"]["error_type"] == "method_not_allowed"
        assert set(visit.headers["allow"].split(", ")) == {"OPTIONS", "POST"}


async def test_another_content_type_is_refused(autojump_clock: MockClock) -> None:
    """A form is no chat completion: 415."""
    async with world() as w:
        visit = ask(w, headers={"content-type": "text/plain"})
        await over(visit)
        assert visit.status == 415
        assert error_of(visit)["metadata"]["error_type"] == "unsupported_media_type"


async def test_no_permit_is_503(autojump_clock: MockClock) -> None:
    """Past MAX_CONCURRENT_STREAMS a request is refused at once, and may be retried."""
    async with world(permits=1) as w:
        first = ask(w, "simulator/endless")
        await first.reading.wait()
        second = ask(w)
        await over(second)
        assert second.status == 503
        assert error_of(second)["metadata"]["error_type"] == "too_many_streams"
        assert second.headers["x-should-retry"] == "true"
        first.leave()
        await over(first)
        w.assert_clean()
