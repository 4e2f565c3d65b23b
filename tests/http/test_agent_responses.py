"""`/v1/responses`: what passes, what ends it, what an error looks like."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.completions import error_of, over
from tests.support.scripted import (
    COMMENT,
    HOLD,
    LAST_CHUNK,
    Step,
    chunked,
    head,
    scripted,
)
from tests.support.world import Visit, World, world
from trio_ai_stream.wire.record import Basis, Outcome

PATH = "/v1/responses"


def event(kind: str, number: int, **fields: Any) -> bytes:
    """One event of OpenAI's."""
    data = json.dumps({"type": kind, "sequence_number": number, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def last(status: str, **fields: Any) -> bytes:
    """The event that ends a stream."""
    usage = {"input_tokens": 4, "output_tokens": 9, "total_tokens": 13}
    response = {"id": "resp_1", "status": status, "usage": usage, **fields}
    return event(f"response.{status}", 7, response=response)


CREATED = event("response.created", 0, response={"id": "resp_1", "status": "x"})
THOUGHT = event("response.reasoning_summary_text.delta", 1, delta="hm")
HELLO = event("response.output_text.delta", 2, delta="héllo")
CALL = event("response.function_call_arguments.delta", 3, delta='{"a')
NEW = event("response.new.thing", 4, whatever=[1])
DONE = b"data: [DONE]\n\n"
BEGIN = CREATED + THOUGHT + HELLO + CALL + NEW


def ask(w: World, **fields: Any) -> Visit:
    """Begin a response."""
    body = {"model": "simulator/fast", "input": "hello", "stream": True, **fields}
    return w.visit(body, PATH)


@pytest.mark.parametrize(
    "mark",
    [chunked(DONE), chunked(b"\n\n" + DONE + DONE), b""],
    ids=["with [DONE]", "with more", "without"],
)
@pytest.mark.parametrize("apart", [False, True], ids=["one block", "apart"])
@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (last("completed"), "completed"),
        (last("incomplete", incomplete_details={"reason": "max"}), "max"),
    ],
    ids=["completed", "incomplete"],
)
async def test_events_pass_unchanged(
    autojump_clock: MockClock, end: bytes, reason: str, mark: bytes, *, apart: bool
) -> None:
    """Those that nobody knows as well; `[DONE]` ends them, however upstream does."""
    answer = chunked(BEGIN + end)
    parts = (answer, mark) if apart else (answer + mark,)
    async with scripted(head(), *parts, LAST_CHUNK) as (w, _):
        visit = ask(w)
        await over(visit)
        assert visit.body == BEGIN + end + DONE
        assert w.record.outcome is Outcome.COMPLETED
        assert w.record.finish_reason == reason
        bill = w.record.bill
        assert (bill.prompt_tokens, bill.completion_tokens) == (4, 9)
        w.assert_clean()


@pytest.mark.parametrize(
    "kind", ["image_generation_call.partial_image", "web_search_call.searching"]
)
async def test_a_tool_at_work_is_output(autojump_clock: MockClock, kind: str) -> None:
    """An answer of images, or after a long search, has begun long before it ends."""
    work = event(f"response.{kind}", 1, item_id="x")
    end = chunked(last("completed")) + LAST_CHUNK
    twice: list[Step] = [8.0, chunked(work)] * 2
    steps = (chunked(CREATED), *twice, 8.0, end)
    async with scripted(head(), *steps) as (w, _):
        await over(ask(w))
        assert w.record.outcome is Outcome.COMPLETED


async def test_who_has_the_last_event_may_leave(autojump_clock: MockClock) -> None:
    """A client that leaves at the end has been told, and has no permit."""
    end = last("completed")
    async with scripted(head(), chunked(BEGIN), chunked(end), HOLD) as (w, _):
        visit = ask(w)
        while not visit.body.endswith(DONE):
            await visit.news.wait()
        assert w.permits.held == 0
        visit.leave()
        await over(visit)
        assert (w.record.outcome, w.record.told) == (Outcome.COMPLETED, True)
        w.assert_clean()


async def test_a_large_last_event_has_the_time_that_its_client_takes(
    autojump_clock: MockClock,
) -> None:
    """Within the bound of an end no client on a slow line would have read it."""
    end = event("response.completed", 5, response={"id": "x", "text": 20_000 * "y"})
    async with scripted(head(), chunked(BEGIN + end), LAST_CHUNK) as (w, _):
        visit = ask(w)
        await over(visit)
        assert visit.body == BEGIN + end + DONE
        assert visit.arrived[-1][1] == DONE
        assert w.record.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_an_answer_that_says_it_failed_is_not_told_twice(
    autojump_clock: MockClock, status: str
) -> None:
    """Its own last event is the last; the record calls it a failure."""
    error = {"code": "server_error", "message": "x"}
    answer = BEGIN + last(status, error=error)
    async with scripted(head(), chunked(answer), LAST_CHUNK) as (w, _):
        visit = ask(w)
        await over(visit)
        assert visit.body == answer
        assert w.record.outcome is Outcome.UPSTREAM_FAILED
        bill = w.record.bill
        assert (bill.basis, bill.prompt_tokens, bill.completion_tokens) == (
            Basis.EXACT,
            4,
            9,
        )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", PATH])
async def test_a_failed_document_costs_what_it_says(
    autojump_clock: MockClock, path: str, stream: bool
) -> None:
    """The model has worked, and upstream says for how much; also to a stream."""
    error = {"code": 502, "message": "x"}
    choice = {"message": {"content": "a"}, "finish_reason": "error", "error": error}
    usage = {"prompt_tokens": 4, "completion_tokens": 9}
    document = {"id": "gen-1", "choices": [choice], "usage": usage}
    if path == PATH:
        usage = {"input_tokens": 4, "output_tokens": 9}
        document = {"object": "response", "status": "failed", "error": error}
        document |= {"output": [], "usage": usage}
    body = json.dumps(document).encode()
    begin = head("application/json", X_Generation_Id="gen-0")
    async with scripted(begin, chunked(body), LAST_CHUNK) as (w, _):
        asked = {"model": "a/b", "input": "x", "stream": stream}
        visit = w.visit({**asked, "messages": [{"role": "user", "content": "x"}]}, path)
        await over(visit)
        assert (visit.status or 0) >= 500
        assert w.record.outcome is Outcome.UPSTREAM_FAILED
        assert w.record.generation_id == "gen-0"
        bill = w.record.bill
        assert (bill.basis, bill.prompt_tokens, bill.completion_tokens) == (
            Basis.EXACT,
            4,
            9,
        )


async def test_a_cut_answer_ends_in_one_error(autojump_clock: MockClock) -> None:
    """Its number is the next one, and its text stands where each SDK looks."""
    async with scripted(head(), chunked(BEGIN), LAST_CHUNK) as (w, _):
        visit = ask(w)
        await over(visit)
        passed, _, error = visit.body.partition(b"event: error\ndata: ")
        assert passed == BEGIN
        said = json.loads(error)
        assert (said["type"], said["sequence_number"]) == ("error", 5)
        assert said["code"] == said["error"]["code"] == "upstream_failed"
        assert said["message"] == said["error"]["message"]
        assert w.record.outcome is Outcome.UPSTREAM_FAILED


async def test_an_error_event_is_told_in_our_words(autojump_clock: MockClock) -> None:
    """Flat, as the API has it, or in `error`."""
    for fields in (
        {"code": "401", "message": "key sk-1 is wrong", "param": None},
        {"error": {"code": 401, "message": "key sk-1 is wrong"}},
    ):
        answer = CREATED + event("error", 1, **fields)
        async with scripted(head(), chunked(answer), LAST_CHUNK) as (w, _):
            visit = ask(w)
            await over(visit)
            assert b"sk-1" not in visit.body
            assert visit.body.count(b"event: error") == 1


async def test_life_is_shown_by_an_event_once_there_was_one(
    autojump_clock: MockClock,
) -> None:
    """A comment before: SDKs take the first event for the answer's beginning."""
    script = head(), chunked(COMMENT), 5.0, chunked(CREATED + HELLO), HOLD
    async with scripted(*script) as (w, _):
        visit = ask(w)
        await over(visit)
        shown = [data.replace(b" ", b"") for _, data in visit.arrived]
        assert shown[0] == b":heartbeat\n\n"
        keepalive = event("keepalive", 2).replace(b" ", b"")
        assert shown[2:4] == [keepalive, keepalive]
        assert w.record.outcome is Outcome.STREAM_IDLE_TIMEOUT


async def test_a_document_passes_unchanged(autojump_clock: MockClock) -> None:
    """Also to a client that asked for events, as the last of them."""
    parts = [{"type": "output_text", "text": "y", "annotations": []}]
    output = [{"type": "reasoning"}, {"type": "message", "content": parts}]
    response = {"id": "resp_1", "object": "response", "status": "completed"}
    body = json.dumps({**response, "output": output}).encode()
    script = head("application/json"), chunked(body), LAST_CHUNK
    async with scripted(*script) as (w, _):
        visit = ask(w, stream=False)
        await over(visit)
        assert (visit.status, visit.body) == (200, body)
        assert w.record.finish_reason == "completed"
        streamed = ask(w)
        await over(streamed)
        name, _, data = streamed.body.removesuffix(DONE).partition(b"\ndata: ")
        assert name == b"event: response.completed"
        assert json.loads(data)["response"] == json.loads(body)


@pytest.mark.parametrize("status", ["incomplete", None, "möglich"])
async def test_a_document_with_half_a_character_passes(
    autojump_clock: MockClock, status: str | None
) -> None:
    """A text may be cut anywhere; one that does not say how it ended is complete."""
    output = [{"type": "message", "content": [{"text": "a\ud83d"}]}]
    response = {"id": "resp_1", "object": "response", "status": status}
    body = json.dumps({**response, "output": output}).encode()
    async with scripted(head("application/json"), chunked(body), LAST_CHUNK) as (w, _):
        visit = ask(w)
        await over(visit)
        end = "incomplete" if status == "incomplete" else "completed"
        name, _, data = visit.body.removesuffix(DONE).partition(b"\ndata: ")
        assert name.decode() == f"event: response.{end}"
        assert json.loads(data)["response"] == json.loads(body)
        assert w.record.finish_reason == end


async def test_an_end_with_a_field_of_another_shape_is_the_end(
    autojump_clock: MockClock,
) -> None:
    """An answer is not called cut because of its usage."""
    odd = event("response.new.delta", 1, delta={"x": 1})
    end = event("response.completed", 7, response={"id": "resp_1", "usage": []})
    async with scripted(head(), chunked(odd + end), LAST_CHUNK) as (w, _):
        visit = ask(w)
        await over(visit)
        assert visit.body == odd + end + DONE
        assert w.record.outcome is Outcome.COMPLETED


async def test_a_document_that_failed_is_an_error(autojump_clock: MockClock) -> None:
    """Under 200 a client would take it for an answer."""
    body = b'{"object":"response","status":"failed","error":{"code":"server_error"}}'
    async with scripted(head("application/json"), chunked(body), LAST_CHUNK) as (w, _):
        visit = ask(w, stream=False)
        await over(visit)
        assert (visit.status, error_of(visit)["type"]) == (500, "server_error")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "x"}, "input"),
        ({"input": None, "prompt": None}, "input"),
        ({"messages": [{"role": "user", "content": "x"}]}, "input"),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": {}}, "input"),
        ({"input": "x", "stream": 1}, "stream"),
        ({"input": "x", "model": ""}, "model"),
        ({"input": "x", "models": ["a", 5]}, "models[1]"),
        ({"input": 3}, "input"),
        ({"input": "x", "instructions": 3}, "instructions"),
        ({"input": "x" * 101}, "input"),
    ],
)
async def test_a_bad_body_is_refused_by_field(
    autojump_clock: MockClock, body: dict[str, Any], field: str
) -> None:
    """In OpenAI's shape, and upstream is not asked."""
    async with world(env={"MAX_MESSAGES_LENGTH": "100"}) as w:
        visit = w.visit(body, PATH)
        await over(visit)
        assert visit.status in {400, 413}
        assert error_of(visit)["param"] == field
        assert error_of(visit)["message"].startswith(f"{field}: ")


async def test_a_stored_prompt_needs_no_input(autojump_clock: MockClock) -> None:
    """OpenAI and OpenRouter take either, and both."""
    async with world() as w:
        for fields in ({}, {"input": "x"}, {"input": None}):
            body = {"model": "simulator/fast", "prompt": {"id": "p"}, **fields}
            visit = w.visit(body, PATH)
            await over(visit)
            assert visit.status == 200
            assert visit.json()["prompt"] == {"id": "p"}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"input":"x","messages":[{"role":"user","content":"x"}]}{}',
        b'{"x":NaN,"input":"x","messages":[]}',
        b'{"input":"x","messages":[],"\xff":1}',
        b'{"a":' + b"[" * 100_000,
        '{"input":"x"}'.encode("utf-16"),
    ],
    ids=["empty", "list", "two", "NaN", "byte", "open", "UTF-16"],
)
async def test_what_is_no_object_of_json_is_refused(
    autojump_clock: MockClock, path: str, body: bytes
) -> None:
    """In the shape of each API, and nothing of the body is repeated."""
    async with world() as w:
        visit = w.visit(body, path)
        await over(visit)
        assert visit.status == 400
        error = visit.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error.get("param", "body") == "body"
        assert error["message"].startswith("body: ")
        assert b"[[[" not in visit.body


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
async def test_what_is_nested_without_end_is_refused(
    autojump_clock: MockClock, path: str
) -> None:
    """As a body, or, by a Python that reads as deep, for the field that is missing."""
    async with world() as w:
        visit = w.visit(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", path)
        await over(visit)
        assert visit.status == 400
        assert visit.json()["error"]["type"] == "invalid_request_error"
        assert b"[[[" not in visit.body
