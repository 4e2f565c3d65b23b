"""OpenRouter's own SDK for Python: what it reads, and that the simulator speaks it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.clients.conftest import KEY, SimulatorProcess
from tests.support.serving import ServerProcess
from trio_ai_stream.simulator.encoding import ERRORS, error_json

if TYPE_CHECKING:
    import openrouter

HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object"}},
}
# The class that the SDK has for each of the simulator's refusals. Those that the
# server would try again ask it to wait for longer than it does.
REFUSALS = [
    ("bad-request", 400, "BadRequestResponseError"),
    ("unauthorized", 502, "BadGatewayResponseError"),  # it is about the server's key
    ("no-credit", 402, "PaymentRequiredResponseError"),
    ("forbidden", 403, "ForbiddenResponseError"),
    ("not-found", 404, "NotFoundResponseError"),
    ("timeout?retry_after=40", 408, "RequestTimeoutResponseError"),
    ("too-large", 413, "PayloadTooLargeResponseError"),
    ("unprocessable", 422, "UnprocessableEntityResponseError"),
    ("at-capacity", 429, "TooManyRequestsResponseError"),
    ("server-error", 500, "InternalServerResponseError"),
    ("overloaded?retry_after=40", 503, "ServiceUnavailableResponseError"),
    ("edge-timeout?retry_after=40", 524, "EdgeNetworkTimeoutResponseError"),
    ("provider-overloaded?retry_after=40", 529, "ProviderOverloadedResponseError"),
]


def sdk(url: str, key: str = KEY) -> openrouter.OpenRouter:
    """The SDK as anybody sets it up; it does not send again."""
    from openrouter import OpenRouter
    from openrouter.utils import BackoffStrategy, RetryConfig

    never = RetryConfig("none", BackoffStrategy(1, 1, 1, 1), False)
    return OpenRouter(
        api_key=key, server_url=url, timeout_ms=20_000, retry_config=never
    )


@pytest.fixture
def client(base_url: str) -> Iterator[openrouter.OpenRouter]:
    """The SDK on this server."""
    with sdk(base_url) as made:
        yield made


def test_a_document_and_a_stream(client: openrouter.OpenRouter) -> None:
    """Both give the same text, and usage."""
    whole = client.chat.send(model="simulator/fast", messages=HELLO)
    text = whole.choices[0].message.content
    with client.chat.send(
        model="simulator/fast", messages=HELLO, stream=True
    ) as stream:
        chunks = list(stream)
    assert text == "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 10


def test_a_tool_is_asked_for(client: openrouter.OpenRouter) -> None:
    """The fragments of a call add up to JSON."""
    with client.chat.send(
        model="simulator/fast", messages=HELLO, tools=[TOOL], stream=True
    ) as stream:
        deltas = [c.choices[0].delta for c in stream if c.choices]
    calls = [call.function for delta in deltas for call in delta.tool_calls or []]
    assert calls[0] is not None
    assert calls[0].name == "weather"
    json.loads("".join(call.arguments or "" for call in calls if call))


def test_a_response_and_its_events(client: openrouter.OpenRouter) -> None:
    """The SDK's models of its Responses API take the simulator's."""
    asked: Any = {"model": "simulator/agent", "input": "hi"}
    whole: Any = client.beta.responses.send(**asked)
    kinds = [item.type for item in whole.output]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    with client.beta.responses.send(**asked, stream=True) as stream:
        events = list(stream)
    assert {type(event).__name__ for event in events} >= {
        "OpenResponsesCreatedEvent",
        "TextDeltaEvent",
        "StreamEventsResponseCompleted",
    }
    assert not any(type(event).__name__.startswith("Unknown") for event in events)


def test_fallbacks_without_a_model(
    client: openrouter.OpenRouter, simulator: SimulatorProcess
) -> None:
    """OpenRouter's first example of `models`: upstream gets no `model` of ours."""
    request_id = uuid.uuid4().hex
    client.chat.send(
        models=["simulator/fast?chunks=1", "simulator/echo"],
        messages=HELLO,
        http_headers={"X-Request-ID": request_id},
    )
    (record,) = simulator.requests(request_id)
    assert record["model"] == "simulator/fast?chunks=1"


@pytest.mark.parametrize(("fault", "status", "name"), REFUSALS)
def test_a_refusal_has_the_sdks_class(
    fault: str, status: int, name: str, client: openrouter.OpenRouter
) -> None:
    """Each status is the class that the SDK has for it, with our words."""
    from openrouter import errors

    with pytest.raises(errors.OpenRouterError) as caught:
        client.chat.send(model=f"simulator/{fault}", messages=HELLO)
    assert type(caught.value).__name__ == name
    error: Any = caught.value
    assert error.data.error.code == status
    assert error.data.error.message
    assert error.data.error.metadata["error_type"]


def test_our_own_refusals_are_read_as_well(base_url: str) -> None:
    """A wrong key, a bad field: the SDK's classes, with the field's name."""
    from openrouter import errors

    with (
        sdk(base_url, "not-a-key-of-this-server") as stranger,
        pytest.raises(errors.UnauthorizedResponseError) as unknown,
    ):
        stranger.chat.send(model="simulator/fast", messages=HELLO)
    assert unknown.value.data.error.code == 401
    with sdk(base_url) as client, pytest.raises(errors.BadRequestResponseError) as bad:
        client.chat.send(model="x" * 201, messages=HELLO)
    assert "model: expected" in bad.value.data.error.message


@pytest.mark.parametrize("fault", ["error", "error-bare", "drop", "truncated"])
def test_an_error_within_a_stream_is_a_chunk(
    fault: str, client: openrouter.OpenRouter
) -> None:
    """It is a whole chunk, the last one, of the same answer."""
    with client.chat.send(
        model=f"simulator/{fault}", messages=HELLO, stream=True
    ) as stream:
        *chunks, last = list(stream)
    assert len(chunks) >= 5
    assert all(chunk.error is None for chunk in chunks)
    assert last.error is not None
    assert last.error.code == 502
    assert last.id == chunks[0].id


def test_leaving_in_mid_stream_is_noticed_upstream(
    client: openrouter.OpenRouter, simulator: SimulatorProcess, server: ServerProcess
) -> None:
    """The end of the `with` block ends upstream's work."""
    request_id = uuid.uuid4().hex
    with client.chat.send(
        model="simulator/endless",
        messages=HELLO,
        stream=True,
        http_headers={"X-Request-ID": request_id},
    ) as stream:
        for _ in range(5):
            next(stream)
    assert simulator.gone(request_id)["gone_phase"] == "streaming"
    assert server.ended(request_id)["outcome"] == "client_disconnected"


def test_the_list_of_models(client: openrouter.OpenRouter) -> None:
    """Upstream's fields are all there: prices, links, the total."""
    listed: Any = client.models.list()
    result = getattr(listed, "result", listed)
    assert result.total_count == len(result.data)
    assert float(result.data[0].pricing.prompt) > 0


# The SDK calls some fields of OpenRouter's answer deprecated as it reads them.
@pytest.mark.filterwarnings("ignore:warning. .. DEPRECATED")
def test_the_simulator_speaks_openrouters_dialect(simulator: SimulatorProcess) -> None:
    """Asked directly, what it answers fits the SDK's models."""
    with sdk(simulator.url, "any-key") as upstream:
        for model in ("fast", "reasoning", "refusal", "filtered", "merged-usage"):
            asked: Any = {"model": f"simulator/{model}", "messages": HELLO}
            assert upstream.chat.send(**asked).usage is not None
            with upstream.chat.send(**asked, stream=True) as stream:
                assert list(stream)[-1].usage is not None
        asked = {"model": "simulator/fast", "messages": HELLO}
        assert upstream.chat.send(**asked, tools=[TOOL]).choices[0].message.tool_calls
        for shape in ("error", "error-empty-choices"):
            asked = {"model": f"simulator/{shape}", "messages": HELLO, "stream": True}
            with upstream.chat.send(**asked) as stream:
                assert list(stream)[-1].error is not None
        assert upstream.models.list() is not None
        assert upstream.api_keys.get_current_key_metadata().data.limit == 100


@pytest.mark.parametrize("status", ERRORS)
def test_the_simulators_errors_are_openrouters(status: int) -> None:
    """A refusal fits the model that the SDK reads it with."""
    from openrouter.components import BadRequestResponseErrorData, ChatStreamChunkError

    error = json.loads(error_json(status))["error"]
    assert BadRequestResponseErrorData.model_validate(error).code == status
    assert ChatStreamChunkError.model_validate(error).message


def test_the_simulators_bill_is_openrouters(
    simulator: SimulatorProcess,
) -> None:
    """`GET /generation` of an ended request fits the SDK's model."""
    from openrouter.components import GenerationResponse

    answer = httpx.post(
        f"{simulator.url}/chat/completions",
        json={"model": "simulator/fast", "messages": HELLO},
        headers={"Authorization": "Bearer any"},
    )
    bill = httpx.get(f"{simulator.url}/generation?id={answer.json()['id']}")
    assert GenerationResponse.model_validate(bill.json()).data.model
