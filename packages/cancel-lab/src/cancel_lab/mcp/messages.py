"""Requests of the Model Context Protocol, and the messages in their answers; pure.

Two revisions are spoken: 2026-07-28 (no handshake; each request says in `_meta` and in
header fields what it needs) and 2025-11-25 (`initialize`, then a session).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cancel_lab.clients.chat_stream import ChatRequest

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
TOOL: Final = "work"
CLIENT: Final = {"name": "cancel-lab", "version": "1"}
_META: Final = "io.modelcontextprotocol/"

Message = Mapping[str, Any]


class Address(NamedTuple):
    """Where the server is, on the loopback interface."""

    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host field; a server that fears DNS rebinding looks at it."""
        return f"127.0.0.1:{self.port}"


def request(
    address: Address,
    method: str,
    params: Mapping[str, Any],
    *,
    version: str,
    number: int | None,
    session: str | None = None,
) -> ChatRequest:
    """Return one POST; without a `number` it is a notification."""
    params = dict(params)
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
    }
    if method != "initialize":
        headers["mcp-protocol-version"] = version
    if session is not None:
        headers["mcp-session-id"] = session
    if version == MODERN:
        headers["mcp-method"] = method
        if method == "tools/call":
            headers["mcp-name"] = params["name"]
        params["_meta"] = {
            **params.get("_meta", {}),
            f"{_META}protocolVersion": version,
            f"{_META}clientInfo": CLIENT,
            f"{_META}clientCapabilities": {},
        }
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if number is not None:
        message["id"] = number
    body = json.dumps(message).encode()
    return ChatRequest(
        path=address.path, authority=address.authority, body=body, headers=headers
    )


def tool_call(run: str, seconds: float, progress: int, number: int) -> dict[str, Any]:
    """Return the params of a call of the tool that reports its own life."""
    return {
        "name": TOOL,
        "arguments": {"run": run, "seconds": seconds, "progress": progress},
        "_meta": {"progressToken": number},
    }


def messages(body: bytes, content_type: str) -> list[Message]:
    """Return the JSON-RPC messages that a body holds so far; half ones are left out."""
    if "text/event-stream" in content_type:
        *lines, _ = body.split(b"\n")
        parts = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    else:
        parts = [body]
    found: list[Message] = []
    for part in parts:
        try:
            message = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(message, dict):
            found.append(message)
    return found


def part(message: object, *names: str) -> Message:
    """Return the object below these names; an empty one if there is none."""
    for name in names:
        message = message.get(name) if isinstance(message, dict) else None
    return message if isinstance(message, dict) else {}


def printable(text: object) -> str:
    """Return what a server said so that it cannot steer a terminal."""
    said = str(text)[:200]
    return "".join(
        sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in said
    )


def belongs(message: Message, number: int) -> bool:
    """Say whether a message on a call's stream is about that call.

    Progress names its token, which is the call's number here; an answer its id.
    """
    if "id" in message and "method" not in message:
        return bool(message["id"] == number)
    params = message.get("params")
    token = params.get("progressToken") if isinstance(params, dict) else None
    return token in (None, number)
