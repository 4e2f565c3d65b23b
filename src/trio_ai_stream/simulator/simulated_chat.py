"""One chat request as the simulator understands it, in each of the three APIs.

Pure. It is as lenient as OpenRouter: unknown fields are ignored. What it needs and
does not get is refused with OpenRouter's 400.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

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


class _Asked(msgspec.Struct, kw_only=True):
    """What is read of every request; null is as good as absent."""

    model: str | None = None
    models: list[str] | None = None
    stream: bool | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    session_id: str | None = None


class _Completion(_Asked):
    messages: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    seed: int | None = None
    response_format: Any = None
    debug: dict[str, Any] | None = None


class _Message(_Asked):
    messages: list[Any] = msgspec.field(default_factory=list)
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    output_config: Any = None


class _Response(_Asked):
    input: str | list[Any] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    previous_response_id: Any = None
    temperature: float | None = None
    top_p: float | None = None
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


_REPEATED = set(_Response.__struct_fields__) - {
    "input",
    "model",
    "models",
    "previous_response_id",
    "session_id",
    "stream",
}


def parse_chat(body: bytes, default_model: str) -> SimulatedChat:
    """Read a chat request; models that are not `simulator/…` act as `default_model`.

    Raises ChatError with the status that OpenRouter would give.
    """
    asked = _read(body, _Completion)
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or ()
    functions = [t.get("function") for t in asked.tools or () if isinstance(t, dict)]
    known = tuple(function for function in functions if isinstance(function, dict))
    return dataclasses.replace(
        _chat(asked, default_model, asked.messages),
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        stop=tuple(stop),
        seed=asked.seed,
        tools=() if asked.tool_choice == "none" else known,
        answered=asked.messages[-1].get("role") == "tool",
        schema=_schema(asked.response_format),
        debug=bool((asked.debug or {}).get("echo_upstream_body")),
    )


def parse_messages(body: bytes, default_model: str) -> SimulatedChat:
    """Read a request to `/messages`. Raises ChatError."""
    asked = _read(body, _Message)
    if not asked.messages:
        raise ChatError("messages: at least one message is required")
    turns = [turn for turn in asked.messages if isinstance(turn, dict)]
    last = turns[-1].get("content") if turns else None
    config = asked.output_config
    return dataclasses.replace(
        _chat(asked, default_model, turns),
        max_tokens=asked.max_tokens,
        stop=tuple(asked.stop_sequences or ()),
        tools=_own_tools(asked),
        answered=_holds(last, "tool_result"),
        schema=_schema(config.get("format") if isinstance(config, dict) else None),
        dialect="messages",
    )


def parse_responses(body: bytes, default_model: str) -> SimulatedChat:
    """Read a request to `/responses`. Raises ChatError."""
    asked = _read(body, _Response)
    if asked.previous_response_id is not None:
        raise ChatError("previous_response_id is not supported")
    if not (asked.input or asked.prompt):
        raise ChatError("input: expected a text or a list of items")
    turns = [{"role": "user", "content": asked.input or "a stored prompt"}]
    if isinstance(asked.input, list):
        turns = [turn for turn in asked.input if isinstance(turn, dict)]
    return dataclasses.replace(
        _chat(asked, default_model, turns),
        max_tokens=asked.max_output_tokens,
        tools=_own_tools(asked),
        answered=_holds(turns[-1:], "function_call_output"),
        schema=_schema((asked.text or {}).get("format")),
        dialect="responses",
        repeated=_repeated(asked),
    )


T = TypeVar("T", bound=_Asked)


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ChatError(f"the body is no chat request: {exc}") from exc


def _chat(
    asked: _Asked, default_model: str, turns: list[dict[str, Any]]
) -> SimulatedChat:
    """Return what every request says; `turns` are its messages, or its items."""
    model = asked.model or (asked.models or [default_model])[0]
    users = [turn for turn in turns if turn.get("role") == "user"]
    # A turn of a user's may hold nothing but what tools have answered.
    users = [turn for turn in users if _text_in(turn)] or users
    return SimulatedChat(
        model=ALIASES.get(model, model),
        prompt=_text_in((users or turns or [{}])[-1]),
        faults=_faults_of(model, default_model),
        stream=bool(asked.stream),
        session_id=asked.session_id,
    )


def _faults_of(model: str, default_model: str) -> Faults:
    """Return how a model behaves. Raises ChatError if it does not exist."""
    if model in RETIRED:
        raise ChatError(f"No endpoints found for {model}.", 404)
    try:
        return parse_model(model if model.startswith(PREFIX) else default_model)
    except FaultError as exc:
        raise ChatError(str(exc)) from exc


def _text_in(turn: dict[str, Any]) -> str:
    """Return the text of a message or an item; what is odd in it is no text."""
    content = turn.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _schema(form: Any) -> Any:
    """Return the JSON schema that the answer has to match; None if it is free text.

    Chat completions have the schema one level deeper than the other two.
    """
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    if kind != "json_schema":
        return None
    holder = form.get("json_schema", form)
    return holder.get("schema", {}) if isinstance(holder, dict) else {}


def _holds(content: Any, kind: str) -> bool:
    """Whether a part of a content, or an item, is of this kind."""
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, dict) and part.get("type") == kind for part in parts)


def _own_tools(asked: _Asked) -> tuple[Mapping[str, Any], ...]:
    """Return the functions that the client itself can call, or the one it wants."""
    choice = asked.tool_choice
    wanted = choice if isinstance(choice, dict) else {"type": choice}
    if wanted.get("type") == "none":
        return ()
    tools = [
        {
            "name": tool["name"],
            "parameters": tool.get("input_schema", tool.get("parameters")),
        }
        for tool in asked.tools or ()
        if isinstance(tool, dict)
        and "name" in tool
        and tool.get("type", "custom") in {"custom", "function"}
        and ("input_schema" in tool or "parameters" in tool)
    ]
    named = [tool for tool in tools if tool["name"] == wanted.get("name")]
    return tuple(named or tools)


def _repeated(asked: _Response) -> dict[str, Any]:
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
