"""One chat request as the simulator understands it, read from its JSON body.

Pure. It is as lenient as OpenRouter: unknown fields are ignored. What it needs and
does not get is refused with OpenRouter's 400.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from trio_ai_stream.simulator.faults import PREFIX, FaultError, Faults, parse_model

# Response `model` of an alias (OpenRouter resolves `~author/family-latest`).
ALIASES = {
    "~anthropic/claude-sonnet-latest": "anthropic/claude-sonnet-5",
    "~anthropic/claude-opus-latest": "anthropic/claude-opus-5",
    "~anthropic/claude-haiku-latest": "anthropic/claude-haiku-4.5",
}
RETIRED = frozenset({"anthropic/claude-3.5-sonnet", "anthropic/claude-3.7-sonnet"})


class ChatError(ValueError):
    """A request that OpenRouter would refuse: `status` and the text say how and why."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedChat:
    """The fields of a chat request that change the simulator's answer."""

    model: str
    prompt: str
    faults: Faults
    stream: bool = False
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    schema: Any = None
    session_id: str | None = None
    debug: bool = False


def _first_fallback(data: dict[str, Any], default_model: str) -> str:
    models = data.get("models") or [default_model]
    if not isinstance(models, list) or not isinstance(models[0], str):
        raise ChatError("models: expected a list of names")
    return models[0]


def parse_chat(body: bytes, default_model: str) -> SimulatedChat:
    """Read a chat request; models that are not `simulator/…` act as `default_model`.

    Raises ChatError with the status that OpenRouter would give.
    """
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ChatError("expected a JSON body, got something else") from exc
    if not isinstance(data, dict):
        raise ChatError("expected a JSON object as the body")
    model = _field(data, "model", str, None) or _first_fallback(data, default_model)
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ChatError("messages: expected a list of at least one message")
    if model in RETIRED:
        raise ChatError(f"No endpoints found for {model}.", 404)
    try:
        faults = parse_model(model if model.startswith(PREFIX) else default_model)
    except FaultError as exc:
        raise ChatError(str(exc)) from exc
    return SimulatedChat(
        model=ALIASES.get(model, model),
        prompt=_prompt(messages),
        faults=faults,
        stream=_field(data, "stream", bool, False),
        max_tokens=_max_tokens(data),
        stop=_stop(data.get("stop")),
        seed=_field(data, "seed", int, None),
        tools=_tools(data, messages),
        schema=_schema(data.get("response_format")),
        session_id=_field(data, "session_id", str, None),
        debug=bool(_field(data, "debug", dict, {}).get("echo_upstream_body")),
    )


def _field(data: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ChatError(f"{key}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _max_tokens(data: dict[str, Any]) -> int | None:
    for key in ("max_completion_tokens", "max_tokens"):
        value: int | None = _field(data, key, int, None)
        if value is not None:
            if value < 1:
                raise ChatError(f"{key}: expected at least 1, got {value}")
            return value
    return None


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or len(words) > 4:
        raise ChatError("stop: expected a string or a list of at most 4 strings")
    if not all(isinstance(word, str) for word in words):
        raise ChatError("stop: expected strings")
    return tuple(words)


def _prompt(messages: list[Any]) -> str:
    """Return the text of the last user message, or of the last message at all."""
    texts = [
        (message.get("role"), _text(message.get("content")))
        for message in messages
        if isinstance(message, dict)
    ]
    if len(texts) != len(messages):
        raise ChatError("messages: expected objects with role and content")
    users = [text for role, text in texts if role == "user"]
    return users[-1] if users else texts[-1][1]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _tools(data: dict[str, Any], messages: list[Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the functions to call: none once a tool has answered, so loops end."""
    if data.get("tool_choice") == "none" or messages[-1].get("role") == "tool":
        return ()
    tools = _field(data, "tools", list, [])
    functions = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    return tuple(function for function in functions if isinstance(function, dict))


def _schema(response_format: Any) -> Any:
    if not isinstance(response_format, dict):
        return None
    if response_format.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    if response_format.get("type") == "json_schema":
        wrapper = response_format.get("json_schema")
        return wrapper.get("schema") if isinstance(wrapper, dict) else {}
    return None
