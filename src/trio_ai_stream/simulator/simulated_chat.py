"""One chat request as the simulator understands it, read from its JSON body.

Pure. It is as lenient as OpenRouter: unknown fields are ignored. What it needs and
does not get is refused with OpenRouter's 400.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

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
    """The fields of a chat request that change the simulator's answer.

    `answered`: a tool has answered last, so no other is called, and loops end.
    `repeated` are those that its answer says again.
    """

    model: str
    prompt: str
    faults: Faults
    stream: bool = False
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    answered: bool = False
    schema: Any = None
    session_id: str | None = None
    debug: bool = False
    dialect: str = "chat"  # or `messages`, `responses`
    repeated: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def replaced(self, **fields: Any) -> SimulatedChat:
        """Return the same with other values."""
        return dataclasses.replace(self, **fields)


class _Message(msgspec.Struct):
    """One message; what is odd in it is read as no text."""

    role: Any = None
    content: Any = None


class _Body(msgspec.Struct):
    """What is read of a request's body; null is as good as absent."""

    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    model: str | None = None
    models: list[str] | None = None
    stream: bool | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    seed: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    response_format: Any = None
    session_id: str | None = None
    debug: dict[str, Any] | None = None


def parse_chat(body: bytes, default_model: str) -> SimulatedChat:
    """Read a chat request; models that are not `simulator/…` act as `default_model`.

    Raises ChatError with the status that OpenRouter would give.
    """
    try:
        asked = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ChatError(f"the body is no chat request: {exc}") from exc
    model = asked.model or (asked.models or [default_model])[0]
    faults = faults_of(model, default_model)
    users = [message for message in asked.messages if message.role == "user"]
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or ()
    return SimulatedChat(
        model=ALIASES.get(model, model),
        prompt=text_in((users or asked.messages)[-1].content),
        faults=faults,
        stream=bool(asked.stream),
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        stop=tuple(stop),
        seed=asked.seed,
        tools=_tools(asked),
        answered=asked.messages[-1].role == "tool",
        schema=_schema(asked.response_format),
        session_id=asked.session_id,
        debug=bool((asked.debug or {}).get("echo_upstream_body")),
    )


def faults_of(model: str, default_model: str) -> Faults:
    """Return how a model behaves. Raises ChatError if it does not exist."""
    if model in RETIRED:
        raise ChatError(f"No endpoints found for {model}.", 404)
    try:
        return parse_model(model if model.startswith(PREFIX) else default_model)
    except FaultError as exc:
        raise ChatError(str(exc)) from exc


def text_in(content: Any) -> str:
    """Return the text of a message's content."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _tools(asked: _Body) -> tuple[Mapping[str, Any], ...]:
    """Return the functions that may be called."""
    if asked.tool_choice == "none":
        return ()
    functions = [t.get("function") for t in asked.tools or () if isinstance(t, dict)]
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
