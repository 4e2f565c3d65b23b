"""The `anthropic` SDK on `/v1/messages`: synchronous, and asynchronous on Trio.

It is imported by the tests: that takes seconds, and every worker imports this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.clients.conftest import KEY
from tests.support.serving import ServerProcess

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import MessageParam

HELLO: list[MessageParam] = [{"role": "user", "content": "hello"}]
WEATHER: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture
def client(server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    """The SDK as anybody sets it up; it sends `x-api-key`."""
    import anthropic

    with anthropic.Anthropic(
        base_url=server.url, api_key=KEY, max_retries=0, timeout=20
    ) as client:
        yield client


def asked(name: str = "fast", **fields: Any) -> dict[str, Any]:
    """What every request says."""
    return {
        "model": f"simulator/{name}",
        "max_tokens": 1000,
        "messages": HELLO,
        **fields,
    }


def test_text(client: anthropic.Anthropic) -> None:
    """A document, and the same as a stream of pieces, with its usage."""
    whole = client.messages.create(**asked())
    with client.messages.stream(**asked()) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text  # type: ignore[union-attr]
    assert whole.content[0].text == text
    assert final.stop_reason == whole.stop_reason == "end_turn"
    assert final.usage.output_tokens > 10


def test_thinking_and_tools(client: anthropic.Anthropic) -> None:
    """Blocks of three kinds; the tool's answer gets an answer."""
    with client.messages.stream(**asked("agent", tools=[WEATHER])) as stream:
        final = stream.get_final_message()
    kinds = [block.type for block in final.content]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    assert final.stop_reason == "tool_use"
    call: Any = final.content[2]
    assert (call.name, call.input) == ("weather", {"city": "sample"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    turns: Any = [
        *HELLO,
        {"role": "assistant", "content": final.content},
        {"role": "user", "content": [result]},
    ]
    after = client.messages.create(**asked(messages=turns, tools=[WEATHER]))
    assert after.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
def test_its_tool_runner_sends_the_whole_conversation(
    client: anthropic.Anthropic, stream: bool
) -> None:
    """It asks for a kept one, is refused, and goes on without."""
    from anthropic import BadRequestError, beta_tool

    @beta_tool
    def weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    runner: Any = client.beta.messages.tool_runner(
        **asked(), tools=[weather], stream=stream
    )
    last: Any = runner.until_done()
    assert last.stop_reason == "end_turn"
    assert last.content[0].text.startswith("You asked about “hello”")
    with pytest.raises(BadRequestError, match="no conversation is kept"):
        client.beta.messages.thread(**asked()).send({"role": "user", "content": "x"})


def test_each_answer_has_its_request_id(client: anthropic.Anthropic) -> None:
    """Where the SDK looks for it: the name under which the server records it."""
    raw = client.messages.with_raw_response.create(**asked())
    request_id = raw.headers["X-Request-ID"]
    assert raw.parse()._request_id == request_id
    with client.messages.stream(**asked()) as stream:
        assert stream.request_id == stream.response.headers["X-Request-ID"]
    assert client.messages.count_tokens(model="m", messages=HELLO)._request_id
    from anthropic import NotFoundError

    with pytest.raises(NotFoundError) as caught:
        client.messages.batches.list()
    assert caught.value.request_id == caught.value.response.headers["X-Request-ID"]


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    """`messages.count_tokens` has its answer."""
    counted = client.messages.count_tokens(model="simulator/fast", messages=HELLO)
    assert counted.input_tokens > 1


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("not-found", "NotFoundError", 404),
        ("at-capacity", "RateLimitError", 429),
        ("forbidden", "PermissionDeniedError", 403),
        ("bad-request", "BadRequestError", 400),
        ("unauthorized", "InternalServerError", 502),
        ("provider-overloaded", "InternalServerError", 529),
    ],
)
def test_refusals_are_its_own_errors(
    client: anthropic.Anthropic, name: str, kind: str, status: int
) -> None:
    """Under their true status, but for what is about the server's own key."""
    import anthropic

    with pytest.raises(getattr(anthropic, kind)) as caught:
        client.messages.create(**asked(name, stream=True))
    assert isinstance(caught.value, anthropic.APIStatusError)
    assert caught.value.status_code == status
    assert isinstance(caught.value.body, dict)
    assert set(caught.value.body["error"]) == {"type", "message", "metadata"}


@pytest.mark.parametrize("name", ["error", "drop", "truncated", "bad-json"])
def test_a_broken_stream_is_an_error(client: anthropic.Anthropic, name: str) -> None:
    """After the words that came; no cut answer passes for a whole one."""
    import anthropic

    words: list[str] = []
    with (
        client.messages.stream(**asked(name)) as stream,
        pytest.raises(anthropic.APIStatusError, match=r"upstream|provider"),
    ):
        words.extend(stream.text_stream)
    assert len(words) == 5


def test_retries_are_not_multiplied(server: ServerProcess) -> None:
    """After the server's own tries the SDK makes none."""
    import anthropic

    with (
        anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=2) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        client.messages.create(**asked("rate-limited?retry_after=0"))
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_signs_of_life_are_no_events(client: anthropic.Anthropic) -> None:
    """While the model thinks for two seconds there are pings, which it passes over."""
    with client.messages.stream(**asked("thinking?chunks=3")) as stream:
        kinds = {event.type for event in stream}
    assert "ping" not in kinds
    raw = client.messages.with_raw_response.create(
        **asked("thinking?chunks=3", stream=True)
    )
    # Every half second; the fourth would come at the same time as the answer.
    assert raw.http_response.read().count(b'"type":"ping"') >= 3


async def test_answers_on_trio(server: ServerProcess) -> None:
    """The SDK runs on Trio as it is; a Bearer key does as well."""
    import anthropic

    with trio.fail_after(20):
        async with (
            anthropic.AsyncAnthropic(
                base_url=server.url, auth_token=KEY, api_key=None, max_retries=0
            ) as client,
            client.messages.stream(**asked("reasoning")) as stream,
        ):
            final = await stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
