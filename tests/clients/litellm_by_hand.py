"""`litellm.responses` against a server: text, tools, errors, retries, leaving.

`by_hand.py` runs it, in an environment that has litellm and nothing of ours:
`python litellm_by_hand.py SERVER SIMULATOR`. Prints one line a check.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import sys
import time
import urllib.request
import uuid
import warnings
from collections.abc import Callable
from typing import Any, Final

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch it
warnings.simplefilter("ignore")
import litellm  # type: ignore[import-not-found]  # noqa: E402

SERVER, SIMULATOR = sys.argv[1:3]
WEATHER: Final = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
FAULTS: Final = (
    "bad-request", "unauthorized", "forbidden", "not-found", "timeout", "too-large",
    "at-capacity", "rate-limited?retry_after=0", "server-error",
    "overloaded?retry_after=0", "gateway-timeout", "provider-overloaded",
)  # fmt: skip
PHASES: Final = {
    "no-answer": "awaiting_headers",
    "fast?opening_ms=forever&comment_every_ms=100": "awaiting_first_token",
    "no-token": "awaiting_first_token",
    "endless?reasoning=10000&delay_ms=10": "streaming",
    "endless?delay_ms=10": "streaming",
}


def known(name: str) -> str:
    """Return a model that litellm knows: of others it asks no stream, and fakes one."""
    model = f"simulator/{name}"
    streams = {"litellm_provider": "openai", "supports_native_streaming": True}
    litellm.register_model({model: streams, f"openai/{model}": streams})
    return f"openai/{model}"


def asked(name: str, **fields: Any) -> dict[str, Any]:
    """Return what every request says."""
    kind = {"api_base": f"{SERVER}/v1", "api_key": "any", "input": "hello"}
    return {"model": known(name), **kind, **fields}


def seen(request_id: str) -> list[dict[str, Any]]:
    """Return upstream's records of a request."""
    with urllib.request.urlopen(
        f"{SIMULATOR}/stats?request_id={request_id}", timeout=10
    ) as response:
        found: list[dict[str, Any]] = json.load(response)["requests"]
    return found


def say(what: str, said: object) -> None:
    """Print one line."""
    sys.stdout.write(f"litellm: {what}: {said}\n")


def answers() -> None:
    """Text, reasoning, a tool and its result, streamed and whole."""
    whole = litellm.responses(**asked("agent", tools=[WEATHER]))
    events = list(litellm.responses(**asked("agent", tools=[WEATHER], stream=True)))
    kinds = [item.type for item in events[-1].response.output]
    say("items, whole and streamed", ([item.type for item in whole.output], kinds))
    call = events[-1].response.output[-1]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "x"}
    turns = [{"role": "user", "content": "hi"}, output]
    after = litellm.responses(**asked("fast", tools=[WEATHER], input=turns))
    say("after the tool's result", [item.type for item in after.output])
    text = litellm.responses(**asked("fast")).output_text
    deltas = [
        event.delta
        for event in litellm.responses(**asked("fast", stream=True))
        if event.type == "response.output_text.delta"
    ]
    say("pieces, and the same text", (len(deltas), "".join(deltas) == text))
    began = time.monotonic()
    slow = asked("thinking?opening_ms=1000&chunks=3", stream=True)
    kinds = [str(event.type) for event in litellm.responses(**slow)]
    alive = kinds.count("keepalive")
    say("thinking: seconds, keepalives", (round(time.monotonic() - began, 1), alive))


def errors() -> None:
    """The class of each refusal, and how often upstream was asked."""
    for name in FAULTS:
        request_id = uuid.uuid4().hex
        fields = asked(name, stream=True, extra_headers={"X-Request-ID": request_id})
        told = outcome(lambda f=fields: list(litellm.responses(**f)))  # type: ignore[misc]
        say(name, (*told, f"{len(seen(request_id))} requests to upstream"))
    for name in ("error", "error?shape=empty", "drop", "truncated", "bad-json"):
        events: list[Any] = []

        def read(name: str = name, events: list[Any] = events) -> None:
            events.extend(litellm.responses(**asked(name, stream=True)))

        told = outcome(read)
        say(name, (*told, f"after {len(events)} events"))


def outcome(run: Callable[[], Any]) -> tuple[object, ...]:
    """Return the class and status of what a call raises."""
    try:
        run()
    except Exception as exc:
        return type(exc).__name__, getattr(exc, "status_code", None)
    return ("no error",)


async def leaving() -> None:
    """Cancel a task in each phase; print when upstream saw it, in milliseconds."""

    async def read(fields: dict[str, Any]) -> None:
        async for _event in await litellm.aresponses(**fields):
            pass

    for model, phase in PHASES.items():
        request_id = uuid.uuid4().hex
        headers = {"X-Request-ID": request_id}
        fields = asked(model, stream=True, extra_headers=headers)
        task = asyncio.create_task(read(fields))
        least: int = 5 if model.startswith("endless") else 0
        for _ in range(500):
            await asyncio.sleep(0.02)
            found = seen(request_id)
            said: dict[str, Any] = (
                found[-1] if found else {"phase": "", "events_sent": 0}
            )
            if said["phase"] == phase and said["events_sent"] >= least:
                break
        left_ns = time.monotonic_ns()
        task.cancel()
        await asyncio.wait([task], timeout=5)
        await asyncio.sleep(1)
        (record,) = seen(request_id)
        gone_ns = record.get("client_gone_ns")
        after_ms = None if gone_ns is None else round((gone_ns - left_ns) / 1e6, 1)
        say(f"left in {record['gone_phase'] or record['phase']}", (model, after_ms))


def main() -> None:
    """Run all."""
    litellm.suppress_debug_info = True
    say("version", importlib.metadata.version("litellm"))
    answers()
    errors()
    asyncio.run(leaving())


if __name__ == "__main__":
    main()
