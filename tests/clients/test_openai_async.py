"""The `openai` SDK, asynchronous: on Trio and on asyncio.

It is imported by the tests: that takes a second, and every worker imports this module.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest
import trio

from tests.clients.conftest import KEY, SimulatorProcess

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


async def answers(base_url: str) -> None:
    """Get an answer as a document and as a stream; they agree."""
    import openai

    async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY) as client:
        whole = await client.chat.completions.create(
            model="simulator/fast", messages=HELLO
        )
        stream = await client.chat.completions.create(
            model="simulator/fast", messages=HELLO, stream=True
        )
        parts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(parts) == whole.choices[0].message.content
        assert len([model async for model in client.models.list()]) > 10


async def leave(base_url: str, request_id: str) -> None:
    """Read five chunks of an endless stream and close it."""
    import openai

    async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY) as client:
        stream = await client.chat.completions.create(
            model="simulator/endless",
            messages=HELLO,
            stream=True,
            extra_headers={"X-Request-ID": request_id},
        )
        async with stream:
            for _ in range(5):
                await anext(stream)


# The SDK leaves its generators unfinished after `[DONE]`, which Trio remarks on
# (https://github.com/openai/openai-python/pull/3442).
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_answers_on_trio(base_url: str) -> None:
    """The SDK runs on Trio as it is, over httpx."""
    with trio.fail_after(30):
        await answers(base_url)


def test_answers_on_asyncio(base_url: str) -> None:
    """The same on asyncio: what the client runs on is none of the server's business."""
    asyncio.run(asyncio.wait_for(answers(base_url), 30))


async def test_leaving_on_trio(base_url: str, simulator: SimulatorProcess) -> None:
    """Leaving the stream's block in mid-stream is noticed upstream."""
    request_id = uuid.uuid4().hex
    with trio.fail_after(30):
        await leave(base_url, request_id)
    assert simulator.gone(request_id)["gone_phase"] == "streaming"


def test_leaving_on_asyncio(base_url: str, simulator: SimulatorProcess) -> None:
    """The same on asyncio."""
    request_id = uuid.uuid4().hex
    asyncio.run(asyncio.wait_for(leave(base_url, request_id), 30))
    assert simulator.gone(request_id)["gone_phase"] == "streaming"


async def test_a_cancel_scope_of_the_clients(
    base_url: str, simulator: SimulatorProcess
) -> None:
    """A client's own `move_on_after`, before any token, reaches upstream as an end."""
    import openai

    request_id = uuid.uuid4().hex
    async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY) as client:
        with trio.move_on_after(2) as scope:  # the request has got there by then
            await client.chat.completions.create(
                model="simulator/no-answer",
                messages=HELLO,
                extra_headers={"X-Request-ID": request_id},
            )
        assert scope.cancelled_caught
    assert simulator.gone(request_id)["tokens_sent"] == 0
