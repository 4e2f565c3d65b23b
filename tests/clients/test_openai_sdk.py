"""The `openai` SDK, synchronous: streams, documents, tools, errors, retries.

It is imported by the tests: that takes a second, and every worker imports this module.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.clients.conftest import KEY, SimulatorProcess
from tests.support.serving import ServerProcess

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletionMessageParam

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def error_type(error: openai.APIError) -> str:
    """The server's own name for an error; the SDK reads `code` as a text."""
    assert isinstance(error.body, dict)
    assert error.code == str(error.body["code"])
    return str(error.body["metadata"]["error_type"])


@pytest.fixture
def statuses() -> list[int]:
    """The statuses of all responses, also of tries that the SDK says nothing of."""
    return []


@pytest.fixture
def http(statuses: list[int]) -> Iterator[openai.DefaultHttpxClient]:
    """The SDK's transport, which keeps the statuses."""
    import openai

    def note(response: Any) -> None:
        statuses.append(response.status_code)

    with openai.DefaultHttpxClient(event_hooks={"response": [note]}) as client:
        yield client


@pytest.fixture
def client(base_url: str, http: openai.DefaultHttpxClient) -> openai.OpenAI:
    """The SDK as anybody sets it up."""
    import openai

    return openai.OpenAI(
        base_url=base_url, api_key=KEY, http_client=http, max_retries=0, timeout=20
    )


def test_a_document(client: openai.OpenAI) -> None:
    """`create` returns the answer, usage and upstream's own fields."""
    answer = client.chat.completions.create(
        model="simulator/fast", messages=HELLO, max_tokens=5
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.model_extra is not None
    assert answer.model_extra["provider"] == "Simulator"


def test_a_stream(client: openai.OpenAI) -> None:
    """Streaming gives the same text, then usage, then a clean end."""
    whole = client.chat.completions.create(model="simulator/fast", messages=HELLO)
    chunks = list(
        client.chat.completions.create(
            model="simulator/fast", messages=HELLO, stream=True
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None


def test_the_streaming_helper(client: openai.OpenAI) -> None:
    """The SDK's own accumulator agrees with what was streamed."""
    with client.chat.completions.stream(
        model="simulator/fast", messages=HELLO
    ) as stream:
        text = "".join(e.delta for e in stream if e.type == "content.delta")
        final = stream.get_final_completion()
    assert text == final.choices[0].message.content


def test_tool_calls_both_ways(client: openai.OpenAI) -> None:
    """A tool call arrives in fragments, and its result goes back upstream."""
    with client.chat.completions.stream(
        model="simulator/fast", messages=HELLO, tools=[WEATHER]
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.function.name == "weather"
    history: list[Any] = [*HELLO, message.model_dump(exclude_none=True)]
    history += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    answer = client.chat.completions.create(
        model="simulator/fast", messages=history, tools=[WEATHER]
    )
    assert answer.choices[0].finish_reason == "stop"


def test_a_heartbeat_is_no_chunk(client: openai.OpenAI) -> None:
    """A model that thinks for longer than HEARTBEAT_SECS disturbs no parser."""
    model = "simulator/fast?headers_ms=700&first_token_ms=700&chunks=3"
    chunks = list(
        client.chat.completions.create(model=model, messages=HELLO, stream=True)
    )
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) == 3


@pytest.mark.parametrize("model", ["simulator/endless", "simulator/flood"])
def test_close_in_mid_stream_is_noticed_upstream(
    model: str,
    client: openai.OpenAI,
    simulator: SimulatorProcess,
    server: ServerProcess,
) -> None:
    """`close()` ends upstream's connection: nothing is generated for nobody."""
    request_id = uuid.uuid4().hex
    stream = client.chat.completions.create(
        model=model,
        messages=HELLO,
        stream=True,
        extra_headers={"X-Request-ID": request_id},
    )
    assert stream.response.headers["x-request-id"] == request_id
    for _ in range(5):
        next(stream)
    stream.close()
    assert simulator.gone(request_id)["gone_phase"] == "streaming"
    record = server.ended(request_id)
    assert record["outcome"] == "client_disconnected"
    assert record["cancel_latency_ms"] < 100


@pytest.mark.parametrize("stream", [True, False])
def test_a_timeout_before_the_head_is_noticed_upstream(
    stream: bool, client: openai.OpenAI, simulator: SimulatorProcess
) -> None:
    """A client that gives up on a silent upstream ends upstream's work, too.

    Signs of life, which would keep it waiting, end before.
    """
    import openai

    request_id = uuid.uuid4().hex
    model = "simulator/no-answer" if not stream else "simulator/no-token"
    with pytest.raises(openai.APITimeoutError):
        for _ in client.chat.completions.create(
            model=model,
            messages=HELLO,
            stream=stream,
            timeout=1.5,  # long enough for the request to get there
            extra_headers={"X-Request-ID": request_id},
        ):
            pass
    assert simulator.gone(request_id)["tokens_sent"] == 0


def test_cancelled_by_id(client: openai.OpenAI, server: ServerProcess) -> None:
    """A stream that somebody cancels ends with an error that the SDK raises."""
    import openai

    request_id = uuid.uuid4().hex
    stream = client.chat.completions.create(
        model="simulator/endless",
        messages=HELLO,
        stream=True,
        extra_headers={"X-Request-ID": request_id},
    )
    next(stream)
    answer = httpx.delete(
        f"{server.url}/streams/{request_id}",
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert answer.json()["outcome"] == "cancelled"
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert error_type(caught.value) == "cancelled"


ERRORS: list[tuple[str, str, int]] = [
    ("bad-request", "BadRequestError", 400),
    ("no-credit", "APIStatusError", 402),
    ("forbidden", "PermissionDeniedError", 403),
    ("not-found", "NotFoundError", 404),
    ("unprocessable", "UnprocessableEntityError", 422),
    ("at-capacity", "RateLimitError", 429),
    ("server-error", "InternalServerError", 500),
    ("unauthorized", "InternalServerError", 502),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("fault", "kind", "status"), ERRORS)
def test_error_classes(
    fault: str,
    kind: str,
    status: int,
    stream: bool,
    client: openai.OpenAI,
) -> None:
    """Upstream's status raises the SDK's own class; its 401 is not the user's."""
    import openai

    with pytest.raises(getattr(openai, kind)) as caught:
        client.chat.completions.create(
            model=f"simulator/{fault}", messages=HELLO, stream=stream
        )
    assert caught.value.status_code == status
    assert caught.value.type
    assert caught.value.code
    assert caught.value.request_id


def test_an_error_in_mid_stream(client: openai.OpenAI) -> None:
    """What goes wrong after 200 is raised while iterating."""
    import openai

    stream = client.chat.completions.create(
        model="simulator/error", messages=HELLO, stream=True
    )
    with pytest.raises(openai.APIError, match="the model's provider failed") as caught:
        list(stream)
    assert error_type(caught.value) == "upstream_unavailable"


def test_our_own_refusals(base_url: str, client: openai.OpenAI) -> None:
    """A bad key, an unknown model and a bad body raise what OpenAI's would."""
    import openai

    stranger = openai.OpenAI(base_url=base_url, api_key="sk-wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError) as caught:
        stranger.models.list()
    assert error_type(caught.value) == "invalid_api_key"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="simulator/fast", messages=[])
    assert bad.value.param == "messages"


RETRIES = [("server-error", 1), ("unauthorized", 1), ("bad-request", 1), ("flaky", 1)]


@pytest.mark.parametrize(("fault", "tries"), RETRIES)
def test_what_is_hopeless_is_not_retried(
    fault: str, tries: int, client: openai.OpenAI, statuses: list[int]
) -> None:
    """The SDK tries once where `x-should-retry` or the status says so.

    `flaky` heals before the SDK sees anything: the server itself has tried again.
    """
    import openai

    patient = client.with_options(max_retries=2)
    with contextlib.suppress(openai.APIStatusError):
        patient.chat.completions.create(model=f"simulator/{fault}", messages=HELLO)
    assert len(statuses) == tries
    assert (statuses[-1] == 200) == (fault == "flaky")


def test_what_may_help_is_retried(client: openai.OpenAI, statuses: list[int]) -> None:
    """A provider's failure is retried as often as the SDK is told to."""
    import openai

    patient = client.with_options(max_retries=1)
    with pytest.raises(openai.InternalServerError):
        patient.chat.completions.create(model="simulator/bad-gateway", messages=HELLO)
    assert statuses == [502, 502]


def test_models(client: openai.OpenAI) -> None:
    """The SDK lists the models and finds one of them."""
    names = {model.id for model in client.models.list()}
    assert "openai/gpt-4o" in names
    assert client.models.retrieve("openai/gpt-4o").owned_by == "openai"


def test_retry_after_is_honoured(
    simulator: SimulatorProcess,
    tmp_path_factory: pytest.TempPathFactory,
    http: openai.DefaultHttpxClient,
    statuses: list[int],
) -> None:
    """Over RATE_LIMIT the SDK waits as long as it is told, and then succeeds."""
    import openai

    limited = ServerProcess(
        tmp_path_factory.mktemp("limited") / "log",
        UPSTREAM="openrouter",
        OPENROUTER_API_KEY="upstream-key",
        OPENROUTER_BASE_URL=simulator.url,
        RATE_LIMIT="1",
    )
    try:
        client = openai.OpenAI(
            base_url=f"{limited.url}/v1", api_key="x", http_client=http, max_retries=2
        )
        for _ in range(2):
            client.chat.completions.create(model="simulator/fast", messages=HELLO)
        assert statuses == [200, 429, 200]
    finally:
        limited.stop()
