"""Frameworks for agents, as they are: LangChain, smolagents, OpenAI's Agents SDK.

Each is imported by the test that uses it: their imports take seconds, and every worker
of the test run imports this module.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.clients.conftest import KEY, SimulatorProcess


class TestLangChain:
    """`langchain-openai`'s `ChatOpenAI`."""

    @staticmethod
    def model(base_url: str, name: str = "fast", **options: Any) -> Any:
        """The model as its documentation sets it up."""
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(
            model=f"simulator/{name}",
            base_url=base_url,
            api_key=KEY,  # type: ignore[arg-type]  # it takes a text as well
            max_retries=0,
            timeout=20,
            **options,
        )

    def test_text(self, base_url: str) -> None:
        """`invoke` and `stream` give the same text, and usage."""
        model = self.model(base_url, stream_usage=True)
        whole = model.invoke("hello")
        chunks = list(model.stream("hello"))
        assert "".join(chunk.content for chunk in chunks) == whole.content
        assert whole.usage_metadata["output_tokens"] > 10

    def test_a_tool(self, base_url: str) -> None:
        """A bound tool is asked for, with its arguments."""
        from langchain_core.tools import tool

        @tool
        def weather(city: str) -> str:
            """Tell the weather."""
            return f"sunny in {city}"

        answer = self.model(base_url).bind_tools([weather]).invoke("hello")
        (call,) = answer.tool_calls
        assert weather.invoke(call["args"]) == "sunny in sample"

    def test_errors(self, base_url: str) -> None:
        """A refusal and a broken stream are the errors of OpenAI's SDK below it."""
        import openai

        with pytest.raises(openai.NotFoundError):
            self.model(base_url, "not-found").invoke("hello")
        with pytest.raises(openai.APIError) as caught:
            list(self.model(base_url, "error").stream("hello"))
        assert caught.value.type == "server_error"

    def test_leaving(self, base_url: str, simulator: SimulatorProcess) -> None:
        """A stream that is left ends upstream's work."""
        request_id = uuid.uuid4().hex
        headers = {"X-Request-ID": request_id}
        stream = self.model(base_url, "endless", default_headers=headers).stream("hi")
        next(stream)
        stream.close()
        assert simulator.gone(request_id)["gone_phase"] == "streaming"


class TestSmolagents:
    """Hugging Face's `smolagents`, with its default prompts."""

    @staticmethod
    def model(base_url: str, name: str = "fast", **options: Any) -> Any:
        """The model as its documentation sets it up."""
        from smolagents import OpenAIModel  # type: ignore[import-untyped]

        return OpenAIModel(
            model_id=f"simulator/{name}",
            api_base=base_url,
            api_key=KEY,
            client_kwargs={"max_retries": 0, "timeout": 20, **options},
            retry=False,
        )

    @staticmethod
    def tool(asked: list[str]) -> Any:
        """A tool that notes what it is asked."""
        from smolagents import tool

        @tool  # type: ignore[untyped-decorator]
        def weather(city: str) -> str:
            """Tell the weather.

            Args:
                city: where
            """
            asked.append(city)
            return "sunny"

        return weather

    def test_an_agent_uses_its_tool(self, base_url: str) -> None:
        """The default prompt passes, the tool is called, an answer comes."""
        from smolagents import ToolCallingAgent

        asked: list[str] = []
        agent = ToolCallingAgent(
            tools=[self.tool(asked)], model=self.model(base_url), verbosity_level=0
        )
        assert len(str(agent.run("hello", max_steps=1))) > 100
        assert asked == ["sample"]

    def test_a_code_agent_streams(self, base_url: str) -> None:
        """The agent that writes code: its long prompt passes, its answer streams."""
        from smolagents import CodeAgent

        agent = CodeAgent(
            tools=[],
            model=self.model(base_url),
            stream_outputs=True,
            verbosity_level=0,
        )
        assert len(agent.system_prompt) > 4000
        assert len(str(agent.run("hello", max_steps=1))) > 100

    def test_errors(self, base_url: str) -> None:
        """A refusal ends the run as the error of the agent's model."""
        from smolagents import AgentGenerationError, ToolCallingAgent

        model = self.model(base_url, "not-found")
        agent = ToolCallingAgent(tools=[], model=model, verbosity_level=0)
        with pytest.raises(AgentGenerationError, match="upstream has no such model"):
            agent.run("hello")

    def test_leaving(self, base_url: str, simulator: SimulatorProcess) -> None:
        """A stream of the model's that is left ends upstream's work."""
        from smolagents import ChatMessage

        request_id = uuid.uuid4().hex
        headers = {"X-Request-ID": request_id}
        model = self.model(base_url, "endless", default_headers=headers)
        message = ChatMessage(role="user", content=[{"type": "text", "text": "hi"}])
        stream = model.generate_stream([message])
        next(stream)
        stream.close()
        model.client.close()  # smolagents itself leaves the connection open
        assert simulator.gone(request_id)["gone_phase"] == "streaming"


class TestAgentsSdk:
    """`openai-agents` in its mode for chat completions."""

    @staticmethod
    @asynccontextmanager
    async def agent(
        base_url: str, name: str = "fast", **options: Any
    ) -> AsyncIterator[Any]:
        """An agent on a client of its own; nothing is sent to OpenAI for tracing."""
        from agents import Agent, OpenAIChatCompletionsModel, set_tracing_disabled
        from openai import AsyncOpenAI

        set_tracing_disabled(True)
        async with (
            asyncio.timeout(20),
            AsyncOpenAI(
                base_url=base_url, api_key=KEY, max_retries=0, **options
            ) as client,
        ):
            model = OpenAIChatCompletionsModel(f"simulator/{name}", client)
            yield Agent(name="Weatherman", instructions="Be short.", model=model)

    def test_an_agent_uses_its_tool(self, base_url: str) -> None:
        """The tool is called once with upstream's arguments; then the answer comes."""
        from agents import Runner, function_tool

        asked: list[str] = []

        @function_tool
        def weather(city: str) -> str:
            """Tell the weather."""
            asked.append(city)
            return "sunny"

        async def run() -> str:
            async with self.agent(base_url) as agent:
                agent.tools = [weather]
                return str((await Runner.run(agent, "hello")).final_output)

        assert len(asyncio.run(run())) > 100
        assert asked == ["sample"]

    def test_an_agent_streams(self, base_url: str) -> None:
        """Deltas arrive one by one and add up to the answer."""
        from agents import Runner

        async def run() -> tuple[list[str], str]:
            async with self.agent(base_url) as agent:
                result: Any = Runner.run_streamed(agent, "hello")
                kind = "response.output_text.delta"
                deltas = [
                    event.data.delta
                    async for event in result.stream_events()
                    if event.type == "raw_response_event" and event.data.type == kind
                ]
                return deltas, str(result.final_output)

        deltas, answer = asyncio.run(run())
        assert len(deltas) > 10
        assert "".join(deltas) == answer

    def test_errors(self, base_url: str) -> None:
        """A refusal and a broken stream are the errors of OpenAI's SDK below it."""
        import openai
        from agents import Runner

        async def refused() -> None:
            async with self.agent(base_url, "not-found") as agent:
                await Runner.run(agent, "hello")

        async def broken() -> None:
            async with self.agent(base_url, "error") as agent:
                async for _ in Runner.run_streamed(agent, "hello").stream_events():
                    pass

        with pytest.raises(openai.NotFoundError):
            asyncio.run(refused())
        with pytest.raises(openai.APIError) as caught:
            asyncio.run(broken())
        assert caught.value.type == "server_error"

    def test_leaving(self, base_url: str, simulator: SimulatorProcess) -> None:
        """A run that is cancelled in mid-stream ends upstream's work."""
        from agents import Runner

        request_id = uuid.uuid4().hex
        headers = {"X-Request-ID": request_id}

        async def run() -> None:
            async with self.agent(
                base_url, "endless", default_headers=headers
            ) as agent:
                result = Runner.run_streamed(agent, "hello")
                async for event in result.stream_events():
                    if event.type == "raw_response_event":
                        result.cancel()

        asyncio.run(run())
        assert simulator.gone(request_id)["gone_phase"] == "streaming"


class TestAgentsOnResponses:
    """`openai-agents` with its default API."""

    @staticmethod
    async def run(base_url: str, name: str, asked: list[str]) -> Any:
        """Let an agent with one tool answer in a stream."""
        from agents import (
            Agent,
            OpenAIResponsesModel,
            Runner,
            function_tool,
            set_tracing_disabled,
        )
        from openai import AsyncOpenAI

        set_tracing_disabled(True)

        @function_tool
        def weather(city: str) -> str:
            """Tell the weather."""
            asked.append(city)
            return "sunny"

        async with (
            asyncio.timeout(20),
            AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=0) as client,
        ):
            model = OpenAIResponsesModel(f"simulator/{name}", client)
            agent = Agent(name="Weatherman", model=model, tools=[weather])
            result = Runner.run_streamed(agent, "hello")
            async for _event in result.stream_events():
                pass
            return result.final_output

    def test_an_agent_uses_its_tool(self, base_url: str) -> None:
        """Call, result, answer: two responses."""
        asked: list[str] = []
        assert len(asyncio.run(self.run(base_url, "fast", asked))) > 100
        assert asked == ["sample"]

    def test_errors(self, base_url: str) -> None:
        """A refusal and a broken stream end the run."""
        for name in ("not-found", "truncated?tool_calls=0&tool=x"):
            with pytest.raises(Exception, match=r"404|upstream|closed|response"):
                asyncio.run(self.run(base_url, name, []))
