"""pydantic-ai: an agent with a tool, over this server.

It is imported by the tests: that takes a second, and every worker imports this module.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.clients.conftest import KEY

if TYPE_CHECKING:
    from pydantic_ai import Agent


def agent(base_url: str) -> Agent[None, str]:
    """An agent on one of the simulator's models."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=base_url, api_key=KEY)
    return Agent(OpenAIChatModel("simulator/fast", provider=provider))


def test_an_agent_uses_its_tool(base_url: str) -> None:
    """The tool is called once with upstream's arguments; then the answer comes."""
    asked: list[str] = []
    weatherman = agent(base_url)

    @weatherman.tool_plain
    def weather(city: str) -> str:
        asked.append(city)
        return "sunny"

    async def run() -> str:
        async with asyncio.timeout(20), weatherman:
            return (await weatherman.run("hello")).output

    assert asyncio.run(run())
    assert asked == ["sample"]


def test_an_agent_streams(base_url: str) -> None:
    """Text deltas add up to the answer, and usage is known at the end."""

    async def run() -> tuple[list[str], int]:
        async with (
            asyncio.timeout(20),
            agent(base_url) as streamer,
            streamer.run_stream("hello") as stream,
        ):
            parts = [part async for part in stream.stream_text(delta=True)]
            return parts, stream.usage.output_tokens

    parts, tokens = asyncio.run(run())
    assert len("".join(parts)) > 100
    assert tokens > 10
