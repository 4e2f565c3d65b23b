"""OpenAI's newer API, `/v1/responses`: the `openai` SDK.

It is imported by the tests: that takes a second, and every worker imports this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.conftest import KEY

if TYPE_CHECKING:
    import openai

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    """The SDK as anybody sets it up."""
    import openai

    with openai.OpenAI(
        base_url=base_url, api_key=KEY, max_retries=0, timeout=20
    ) as client:
        yield client


def asked(name: str = "fast", **fields: Any) -> dict[str, Any]:
    """What every request says."""
    return {"model": f"simulator/{name}", "input": "hello", **fields}


def test_text(client: openai.OpenAI) -> None:
    """A document, `create(stream=True)` and `.stream()` give the same text."""
    whole = client.responses.create(**asked())
    events = list(client.responses.create(**asked(stream=True)))
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    with client.responses.stream(**asked()) as stream:
        final = stream.until_done().get_final_response()
    assert "".join(deltas) == whole.output_text == final.output_text
    assert final.usage is not None
    assert final.usage.output_tokens > 10


def test_thinking_and_tools(client: openai.OpenAI) -> None:
    """Items of three kinds; the tool's answer gets an answer."""
    with client.responses.stream(**asked("agent", tools=[WEATHER])) as stream:
        final = stream.until_done().get_final_response()
    kinds = [item.type for item in final.output]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    call: Any = final.output[2]
    assert (call.name, call.arguments) == ("weather", '{"city":"sample"}')
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "x"}
    after = client.responses.create(
        **asked(tools=[WEATHER], input=[{"role": "user", "content": "hi"}, output])
    )
    assert after.output_text


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("not-found", "NotFoundError", 404),
        ("at-capacity", "RateLimitError", 429),
        ("bad-request", "BadRequestError", 400),
        ("unauthorized", "InternalServerError", 502),
    ],
)
def test_refusals_are_its_own_errors(
    client: openai.OpenAI, name: str, kind: str, status: int
) -> None:
    """Under their true status, but for what is about the server's own key."""
    import openai

    with pytest.raises(getattr(openai, kind)) as caught:
        client.responses.create(**asked(name, stream=True))
    assert caught.value.status_code == status
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(**asked(previous_response_id="resp_1"))


@pytest.mark.parametrize("name", ["drop", "truncated", "bad-json", "error?shape=empty"])
def test_a_broken_stream_is_an_error(client: openai.OpenAI, name: str) -> None:
    """After the words that came; no cut answer passes for a whole one."""
    import openai

    events: list[Any] = []
    stream = client.responses.create(**asked(name, stream=True))
    with pytest.raises(openai.APIError):
        events.extend(stream)
    kinds = [event.type for event in events]
    assert kinds.count("response.output_text.delta") == 5


def test_an_answer_that_failed_says_so(client: openai.OpenAI) -> None:
    """`response.failed` is the last event."""
    events = list(client.responses.create(**asked("error", stream=True)))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None


def test_signs_of_life_disturb_nothing(client: openai.OpenAI) -> None:
    """While the model thinks for two seconds, both ways of streaming go on."""
    with client.responses.stream(**asked("thinking?chunks=3")) as stream:
        final = stream.until_done().get_final_response()
    assert final.output_text
    events = list(client.responses.create(**asked("thinking?chunks=3", stream=True)))
    assert any(e.type == "keepalive" for e in events)  # load decides how many
