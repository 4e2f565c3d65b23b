"""Whatever stands in an answer of upstream's, the stream ends as one of upstream's.

Each value of each kind of event is replaced by each of some odd ones, one at a time.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from tests.support.odd import altered, encoded
from trio_ai_stream.dialects.agent_responses import RESPONSES
from trio_ai_stream.dialects.completions import COMPLETIONS
from trio_ai_stream.dialects.messages import MESSAGES
from trio_ai_stream.dialects.plain_chat import PLAIN_CHAT
from trio_ai_stream.stream.estimate import TokenEstimator
from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.stream.transcript import Transcript
from trio_ai_stream.upstream.decoder import Decoder
from trio_ai_stream.upstream.responses import read_answer
from trio_ai_stream.wire.dialect import Dialect, ParsedRequest
from trio_ai_stream.wire.events import Answer, Done, Failure, Identity, Item, Usage
from trio_ai_stream.wire.record import Outcome

USAGE: Final = {
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "cost": 0.1,
    "input_tokens": 3,
    "output_tokens": 4,
    "cache_read_input_tokens": 1,
    "prompt_tokens_details": {"cached_tokens": 1},
    "output_tokens_details": {"reasoning_tokens": 2},
}
ERROR: Final = {
    "code": 502,
    "message": "bad",
    "type": "server_error",
    "metadata": {"error_type": "x", "raw": "{}", "headers": {"Retry-After": "17"}},
    "availability": {"retryable": True, "retry_after": 3},
}
CALL: Final = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
CHUNKS: Final = [
    {"id": "g", "provider": "P", "choices": [{"index": 0, "delta": {"content": "a"}}]},
    {"choices": [{"index": 1, "delta": {"content": [{"type": "text", "text": "a"}]}}]},
    {"choices": [{"delta": {"reasoning": "hm", "reasoning_details": [{"text": "h"}]}}]},
    {"choices": [{"delta": {"tool_calls": [CALL], "images": [], "refusal": "no"}}]},
    {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE},
    {"error": ERROR, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]},
    {"object": "error", "message": "m", "code": 400},
]
BLOCKS: Final = [
    {"type": "message_start", "message": {"id": "m", "provider": "P", "usage": USAGE}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}},
    {"type": "content_block_delta", "index": 0, "delta": {"thinking": "hm"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE},
    {"type": "message_stop"},
    {"type": "error", "error": ERROR},
]
ENDED: Final = {"id": "r", "usage": USAGE, "incomplete_details": {"reason": "x"}}
RESPONSE_EVENTS: Final = [
    {"type": "response.created", "response": {"id": "r", "provider": "P"}},
    {"type": "response.output_text.delta", "sequence_number": 1, "delta": "a"},
    {"type": "response.reasoning_text.delta", "sequence_number": 2, "delta": "hm"},
    {"type": "response.incomplete", "response": ENDED},
    {"type": "response.failed", "response": {**ENDED, "error": ERROR}},
    {"type": "error", "code": "x", "message": "m", "error": ERROR},
]
CHOICE: Final = {"message": {"content": "a", "tool_calls": [CALL]}}
COMPLETION: Final = {"id": "g", "choices": [CHOICE], "usage": USAGE, "error": None}
MESSAGE_BLOCKS: Final = [
    {"type": "text", "text": "a"},
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
]
MESSAGE: Final = {"type": "message", "id": "m", "content": MESSAGE_BLOCKS}
OUTPUT: Final = [{"type": "message", "content": [{"text": "a"}]}, {"type": "reasoning"}]
RESPONSE: Final = {"object": "response", "status": "completed", "output": OUTPUT}
DIALECTS: Final = [
    (PLAIN_CHAT, CHUNKS, [COMPLETION, {"error": ERROR}]),
    (COMPLETIONS, CHUNKS, [COMPLETION, {"error": ERROR}]),
    (MESSAGES, BLOCKS, [MESSAGE | {"usage": USAGE}, BLOCKS[-1]]),
    (RESPONSES, RESPONSE_EVENTS, [RESPONSE | ENDED, {"status": "failed"} | ENDED]),
]


def play(dialect: Dialect, blocks: list[list[Item]]) -> None:
    """Do with an answer what a stream does; only an end of it may be raised."""
    answer = Answer()
    answer.asked = answer.opened = True
    transcript = Transcript(answer)
    parsed = ParsedRequest("m", True, b"", reasoning=True, tool_calls=True)
    encoder = dialect.encoder(parsed, "request-1", "simulator")
    outcome, problem = Outcome.COMPLETED, None
    try:
        for items in filter(None, blocks):
            failed_at = transcript.note(items)
            passed, _ = encoder.content(items[:failed_at])
            passed.decode()
            encoder.heartbeat()
            if failed_at is not None:
                transcript.fail()
        transcript.end()
    except EndStream as exc:
        outcome, problem = exc.outcome, exc.problem
    encoder.ending(problem, answer).decode()
    request = UpstreamRequest("request-1", "m", b"", dialect)
    bill = TokenEstimator().bill(request, answer, outcome=outcome)
    json.dumps(bill.fields(), allow_nan=False)


@pytest.mark.parametrize(
    ("dialect", "events"),
    [(dialect, events) for dialect, events, _ in DIALECTS],
    ids=[dialect.path for dialect, _, _ in DIALECTS],
)
def test_no_event_is_a_mistake_of_ours(dialect: Dialect, events: list[Any]) -> None:
    """Each passes on, or ends the stream in words."""
    first = b"data: " + encoded(events[0]) + b"\n\n"
    for event in events:
        for odd in altered(event):
            decoder = Decoder(
                raw=dialect.raw,
                named=True,
                read=dialect.read_events,
                whole_events=dialect.whole_events,
            )
            data = b"data: " + encoded(odd) + b"\n\n"
            play(dialect, [decoder.feed(first), decoder.feed(data), decoder.end()])


@pytest.mark.parametrize(
    ("dialect", "documents"),
    [(dialect, documents) for dialect, _, documents in DIALECTS],
    ids=[dialect.path for dialect, _, _ in DIALECTS],
)
def test_no_document_is_a_mistake_of_ours(
    dialect: Dialect, documents: list[Any]
) -> None:
    """Each is an answer or an error, or said to be none."""
    for document in documents:
        for odd in altered(document):
            for unstreamed in (False, True):
                try:
                    items = read_answer(encoded(odd), dialect, as_stream=unstreamed)
                except EndStream:
                    continue
                play(dialect, [items])


@pytest.mark.parametrize(
    ("dialect", "document"),
    [(dialect, documents[0]) for dialect, _, documents in DIALECTS],
    ids=[dialect.path for dialect, _, _ in DIALECTS],
)
@pytest.mark.parametrize("failed", [False, True])
def test_a_whole_answer_says_whose_it_is_and_what_it_cost(
    dialect: Dialect, document: Any, failed: bool
) -> None:
    """Also one that failed, and one behind a byte order mark."""
    said = {"id": "g", "provider": "P", "usage": USAGE}
    body = {**said, "error": ERROR} if failed else {**document, **said}
    for stream in (False, True):
        mark = b"\xef\xbb\xbf"
        items = read_answer(mark + encoded(body), dialect, as_stream=stream)
        assert Identity("g", "P") in items
        assert [type(item) for item in items].count(Usage) == 1
        assert isinstance(items[-1], Failure if failed else Done)
