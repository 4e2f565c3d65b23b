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
    temperature: float | None = None
    top_p: float | None = None


class _MessagesBody(_AgentBody):
    messages: list[Any] = msgspec.field(default_factory=list)
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop_sequences: list[str] | None = None
    output_config: Any = None


class _ResponsesBody(_AgentBody):
    input: str | list[Any] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    previous_response_id: Any = None
    background: bool | None = None
    frequency_penalty: float | None = None
    instructions: Any = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: float | None = None
    prompt: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    reasoning: dict[str, Any] | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    text: dict[str, Any] | None = None
    top_logprobs: int | None = None
    truncation: str | None = None
    user: str | None = None


_REPEATED = set(_ResponsesBody.__struct_fields__) - {
    "input",
    "model",
    "models",
    "previous_response_id",
    "session_id",
    "stream",
}


def parse_messages(body: bytes, default_model: str) -> SimulatedChat:
    """Read a request to `/messages`. Raises ChatError."""
    asked = _read(body, _MessagesBody)
    if not asked.messages:
        raise ChatError("messages: at least one message is required")
    turns = [turn for turn in asked.messages if isinstance(turn, dict)]
    last = turns[-1].get("content") if turns else None
    answered = _holds(last, "tool_result")
    config = asked.output_config
    return _chat(asked, default_model, "messages", turns, answered).replaced(
        max_tokens=asked.max_tokens,
        stop=tuple(asked.stop_sequences or ()),
        schema=_schema(config.get("format") if isinstance(config, dict) else None),
    )


def parse_responses(body: bytes, default_model: str) -> SimulatedChat:
    """Read a request to `/responses`. Raises ChatError."""
    asked = _read(body, _ResponsesBody)
    if asked.previous_response_id is not None:
        raise ChatError("previous_response_id is not supported")
    if not (asked.input or asked.prompt):
        raise ChatError("input: expected a text or a list of items")
    turns = [{"role": "user", "content": asked.input or "a stored prompt"}]
    if isinstance(asked.input, list):
        turns = [turn for turn in asked.input if isinstance(turn, dict)]
    answered = _holds(turns[-1:], "function_call_output")
    return _chat(asked, default_model, "responses", turns, answered).replaced(
        max_tokens=asked.max_output_tokens,
        schema=_schema((asked.text or {}).get("format")),
        repeated=_repeated(asked),
    )


def _repeated(asked: _ResponsesBody) -> dict[str, Any]:
    """Return what the response says of its request, as OpenAI's own does."""
    said: dict[str, Any] = {
        name: value for name in _REPEATED if (value := getattr(asked, name)) is not None
    }
    if isinstance(said.get("tools"), list):
        said["tools"] = [
            {"description": None, "strict": None, **tool}
            if isinstance(tool, dict) and tool.get("type") == "function"
            else tool
            for tool in said["tools"]
        ]
    if "text" in said:
        said["text"] = {"format": {"type": "text"}, **said["text"]}
    if "reasoning" in said:
        said["reasoning"] = {"effort": None, "summary": None, **said["reasoning"]}
    return said


def _schema(form: Any) -> Any:
    """Return the JSON schema that the answer has to match; None if it is free text."""
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    return form.get("schema", {}) if kind == "json_schema" else None


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
    # A turn of a user's may hold nothing but what tools have answered.
    users = [turn for turn in users if text_in(turn.get("content"))] or users
    choice = asked.tool_choice
    wanted = choice if isinstance(choice, dict) else {"type": choice}
    tools = _tools(asked.tools or [])
    named = [tool for tool in tools if tool["name"] == wanted.get("name")]
    return SimulatedChat(
        model=ALIASES.get(model, model),
        prompt=text_in((users or turns or [{}])[-1].get("content")),
        faults=faults_of(model, default_model),
        stream=bool(asked.stream),
        tools=() if wanted.get("type") == "none" else tuple(named) or tools,
        answered=answered,
        session_id=asked.session_id,
        dialect=dialect,
    )


def _holds(content: Any, kind: str) -> bool:
    """Whether a part of a content, or an item, is of this kind."""
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
