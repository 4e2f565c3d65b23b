"""Clients of Messages and Responses that leave: in every phase, upstream's work ends.

Those of npm are in `test_node.py`.
"""

from __future__ import annotations

import asyncio
import statistics
import uuid
from typing import Any, Final

import pytest
import trio

from tests.clients.conftest import KEY, SimulatorProcess
from tests.support.serving import ServerProcess, until

# The model, and the phase in which upstream is when its client leaves.
PHASES: Final = {
    "no-answer": "awaiting_headers",
    "fast?opening_ms=forever&comment_every_ms=100": "awaiting_first_token",
    "no-token": "awaiting_first_token",
    "endless?reasoning=10000&delay_ms=10": "streaming",
    "endless?delay_ms=10": "streaming",
}


class Departure:
    """One client's requests, one for each phase, by their ids."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self._simulator = simulator
        self.asked = {uuid.uuid4().hex: model for model in PHASES}

    def wait(self) -> None:
        """Wait until upstream is in the phase of each."""

        def reached() -> bool:
            found = {
                request_id: self._simulator.requests(request_id)
                for request_id in self.asked
            }
            return all(
                found[request_id]
                and found[request_id][-1]["phase"] == PHASES[model]
                and found[request_id][-1]["events_sent"] >= _EVENTS.get(model, 0)
                for request_id, model in self.asked.items()
            )

        until(reached)

    def check(self, server: ServerProcess) -> None:
        """Upstream has seen all go in their phases, as soon as the server had."""
        times_ms = []
        for request_id, model in self.asked.items():
            gone = self._simulator.gone(request_id)
            assert (gone["gone_phase"], gone["attempt"]) == (PHASES[model], 1)
            ended = server.ended(request_id)
            assert ended["outcome"] == "client_disconnected"
            times_ms.append(ended["cancel_latency_ms"])
        assert statistics.median(times_ms) < 100


_EVENTS: Final = {model: 5 for model in PHASES if model.startswith("endless")}


async def ask_anthropic(server: ServerProcess, model: str, request_id: str) -> None:
    """Read an answer to its end, which is far off."""
    import anthropic

    async with (
        anthropic.AsyncAnthropic(
            base_url=server.url, api_key=KEY, max_retries=0
        ) as client,
        client.messages.stream(
            model=f"simulator/{model}",
            max_tokens=1000,
            messages=[{"role": "user", "content": "hi"}],
            extra_headers={"X-Request-ID": request_id},
        ) as stream,
    ):
        async for _event in stream:
            await trio.lowlevel.checkpoint()


async def ask_openai(server: ServerProcess, model: str, request_id: str) -> None:
    """The same of Responses."""
    import openai

    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key=KEY, max_retries=0
    ) as client:
        stream = await client.responses.create(
            model=f"simulator/{model}",
            input="hi",
            stream=True,
            extra_headers={"X-Request-ID": request_id},
        )
        async with stream:
            async for _event in stream:
                await trio.lowlevel.checkpoint()


# The SDKs leave their generators unfinished when they are cancelled.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("ask", [ask_anthropic, ask_openai])
async def test_sdks_on_trio(
    server: ServerProcess, simulator: SimulatorProcess, ask: Any
) -> None:
    """A cancelled scope around `anthropic` and around `openai`."""
    departure = Departure(simulator)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for request_id, model in departure.asked.items():
                nursery.start_soon(ask, server, model, request_id)
            await trio.to_thread.run_sync(departure.wait)
            nursery.cancel_scope.cancel()
    departure.check(server)


def test_openai_agents(server: ServerProcess, simulator: SimulatorProcess) -> None:
    """`RunResultStreaming.cancel`, of runs over its default API."""
    from agents import (
        Agent,
        OpenAIResponsesModel,
        Runner,
        set_tracing_disabled,
    )
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    departure = Departure(simulator)

    async def read(result: Any) -> None:
        async for _event in result.stream_events():
            pass

    def begin(request_id: str, model: str) -> Any:
        client = AsyncOpenAI(
            base_url=f"{server.url}/v1",
            api_key=KEY,
            max_retries=0,
            default_headers={"X-Request-ID": request_id},
        )
        agent = Agent(
            name="A", model=OpenAIResponsesModel(f"simulator/{model}", client)
        )
        return Runner.run_streamed(agent, "hi")

    async def run() -> None:
        results = [begin(*asked) for asked in departure.asked.items()]
        readers = [asyncio.create_task(read(result)) for result in results]
        await asyncio.to_thread(departure.wait)
        for result in results:
            result.cancel()
        await asyncio.wait(readers, timeout=20)

    asyncio.run(run())
    departure.check(server)
