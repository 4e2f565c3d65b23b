"""Requests of Messages and of Responses as the simulator understands them; pure.

As lenient as OpenRouter: what it needs and does not get is refused with its 400.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from trio_ai_stream.simulator.simulated_chat import (
    ALIASES,
    ChatError,
    SimulatedChat,
    faults_of,
    text_in,
)


class _AgentBody(msgspec.Struct):
    """What both have."""

    model: str | None = None
    models: list[str] | None = None
    stream: bool | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    session_id: str | None = None


class _MessagesBody(_AgentBody):
    messages: list[Any] = msgspec.field(default_factory=list)
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop_sequences: list[str] | None = None


class _ResponsesBody(_AgentBody):
    input: str | list[Any] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    previous_response_id: Any = None


def parse_messages(body: bytes, default_model: str) -> SimulatedChat:
    """Read a request to `/messages`. Raises ChatError."""
    asked = _read(body, _MessagesBody)
    if not asked.messages:
        raise ChatError("messages: at least one message is required")
    turns = [turn for turn in asked.messages if isinstance(turn, dict)]
    last = turns[-1].get("content") if turns else None
    answered = _holds(last, "tool_result")
    return _chat(asked, default_model, "messages", turns, answered).replaced(
        max_tokens=asked.max_tokens, stop=tuple(asked.stop_sequences or ())
    )


def parse_responses(body: bytes, default_model: str) -> SimulatedChat:
    """Read a request to `/responses`. Raises ChatError."""
    asked = _read(body, _ResponsesBody)
    if asked.previous_response_id is not None:
        raise ChatError("previous_response_id is not supported")
    if not asked.input:
        raise ChatError("input: expected a text or a list of items")
    turns = [{"role": "user", "content": asked.input}]
    if isinstance(asked.input, list):
        turns = [turn for turn in asked.input if isinstance(turn, dict)]
    answered = _holds(turns[-1:], "function_call_output")
    return _chat(asked, default_model, "responses", turns, answered).replaced(
        max_tokens=asked.max_output_tokens
    )


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ChatError(f"the body is no request: {exc}") from exc


def _chat(
    asked: _AgentBody,
    default_model: str,
    dialect: str,
    turns: list[dict[str, Any]],
    answered: bool,
) -> SimulatedChat:
    model = asked.model or (asked.models or [default_model])[0]
    users = [turn for turn in turns if turn.get("role") == "user"]
    choice = asked.tool_choice
    none = "none" in (choice, choice.get("type") if isinstance(choice, dict) else "")
    return SimulatedChat(
        model=ALIASES.get(model, model),
        prompt=text_in((users or turns or [{}])[-1].get("content")),
        faults=faults_of(model, default_model),
        stream=bool(asked.stream),
        tools=() if answered or none else _tools(asked.tools or []),
        session_id=asked.session_id,
        dialect=dialect,
    )


def _holds(content: Any, kind: str) -> bool:
    """Whether a tool has answered, so that loops end."""
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, dict) and part.get("type") == kind for part in parts)


def _tools(tools: list[Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the functions that the client itself can call."""
    return tuple(
        {
            "name": tool["name"],
            "parameters": tool.get("input_schema", tool.get("parameters")),
        }
        for tool in tools
        if isinstance(tool, dict)
        and "name" in tool
        and tool.get("type", "custom") in {"custom", "function"}
        and ("input_schema" in tool or "parameters" in tool)
    )
