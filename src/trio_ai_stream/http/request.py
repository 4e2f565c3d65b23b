"""What is known of one request: its head, its id, its client, its stream."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import trio
from quart import request

from trio_ai_stream.admission.gate import Decision
from trio_ai_stream.server.http_stream import EXTENSION, Exchange
from trio_ai_stream.settings.values import NamedKey
from trio_ai_stream.wire.keys import Role
from trio_ai_stream.wire.record import Outcome

_KEY: Final = "trio_ai_stream.context"
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
# 32 members of at most 512 characters each are allowed; nobody has to pass on as many.
_TRACESTATE: Final = re.compile(rb"[\x20-\x7e\t]{1,2048}")
_FIELD: Final = re.compile(rb"[\x21-\x7e]([\x20-\x7e\t]{0,4094}[\x21-\x7e])?")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Held(Protocol):
    """What a request holds: the stream that it starts, or one that it reads.

    Both methods are synchronous and idempotent.
    """

    def end(self, outcome: Outcome, /) -> object:
        """Let go of it now: the client is gone, or a bug of ours has ended it."""
        ...

    def close(self, *, outcome: Outcome) -> None:
        """Give back what is left: the request is over."""
        ...


# What the scope of a request is after its release: one for all of them.
_RELEASED: Final[dict[str, Any]] = {"headers": ()}


@dataclass(slots=True, eq=False, repr=False)  # no log shows what a scope holds
class RequestContext:
    """One request; it holds the stream that it starts, so its end is the stream's."""

    scope: dict[str, Any]
    request_id: str
    method: str = field(init=False)
    http_version: str = field(init=False)
    path: str = field(init=False)
    secure: bool = field(init=False)
    exchange: Exchange = field(init=False)
    began_at: float = field(default_factory=trio.current_time)
    body_bytes: int = 0
    left: Outcome | None = None  # how its client did, once it is gone
    client_id: str = ""
    client_scope: trio.CancelScope | None = None  # around all that it does
    role: Role | None = None
    limits: NamedKey | None = None  # of a key that has a name
    decision: Decision | None = None
    stream: Held | None = None
    keeps_id: bool = False  # for its stream, which lives on without it
    status: int | None = None
    varies_by_origin: bool = False  # whether CORS would answer others differently

    def __post_init__(self) -> None:
        scope = self.scope
        self.method = scope["method"]
        self.http_version = scope.get("http_version", "")
        # Quart's routes pass over slashes in front as well (a base URL with one more).
        self.path = "/" + scope["path"].lstrip("/")
        self.secure = scope["scheme"] == "https"
        self.exchange = scope.get("extensions", {}).get(EXTENSION) or Exchange()

    @classmethod
    def enter(cls, scope: dict[str, Any], taken: set[str]) -> RequestContext:
        """Put a fresh one into the ASGI scope of a request, and its id into `taken`.

        Whoever enters it calls `leave` at the request's end.
        """
        context = cls(scope, _request_id(scope["headers"], taken))
        taken.add(context.request_id)
        scope[_KEY] = context
        return context

    def leave(self, taken: set[str]) -> None:
        """Take it and its id out again: with the scope it would be a cycle."""
        if not self.keeps_id:
            taken.discard(self.request_id)
        self.release_scope()

    def release_scope(self) -> None:
        """Let go of what the request said; idempotent. Its headers are read before."""
        self.scope.pop(_KEY, None)
        self.scope = _RELEASED

    def client_left(self) -> None:
        """End what the request does: its client is gone. Synchronous.

        The connection to upstream is closed before this returns, whether upstream has
        answered or not; one that is being made is given up as the cancel reaches it.
        """
        if self.exchange.stalled:
            outcome = Outcome.CLIENT_STALLED
        elif self.exchange.drained:
            outcome = Outcome.SHUTDOWN
        else:
            outcome = Outcome.CLIENT_DISCONNECTED
        self.left = outcome
        if self.stream is not None:
            self.stream.end(outcome)
        if self.client_scope is not None:
            self.client_scope.cancel(reason=outcome.value)

    @classmethod
    def current(cls) -> RequestContext:
        """Return that of the request which Quart is handling."""
        context: RequestContext = request.scope[_KEY]  # type: ignore[typeddict-item]
        return context

    def fields(self, name: bytes) -> list[str]:
        """Return the values of a header field, one for each line; `name` in lower case.

        Bytes become the characters of Latin-1 (RFC 9110 section 5.5).
        """
        headers = self.scope["headers"]
        return [value.decode("latin-1") for key, value in headers if key == name]

    def field(self, name: bytes) -> str | None:
        """Return the value of a header field's first line; None if there is none."""
        for key, value in self.scope["headers"]:
            if key == name:
                text: str = value.decode("latin-1")
                return text
        return None

    def forwarded(self, names: frozenset[bytes]) -> tuple[tuple[bytes, bytes], ...]:
        """The fields that go on to upstream: those of `names`, and the trace.

        The lines of one field become one, as a list (RFC 9110 section 5.2); what is
        odd or endless is left out.
        """
        said: dict[bytes, list[bytes]] = {}
        for name, value in self.scope["headers"]:
            if name in names:
                said.setdefault(name, []).append(value)
        joined = [(name, b", ".join(values)) for name, values in said.items()]
        plain = [field for field in joined if _FIELD.fullmatch(field[1])]
        return (*plain, *self.trace)

    @property
    def trace(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields that carry the client's trace, to be passed on as they came.

        Nothing unless there is one valid `traceparent`; without it `tracestate` means
        nothing (W3C Trace Context, sections 3.2 and 3.3).
        """
        headers = self.scope["headers"]
        parents = [value for name, value in headers if name == b"traceparent"]
        if len(parents) != 1 or not _TRACEPARENT.fullmatch(parents[0]):
            return ()
        states = [value for name, value in headers if name == b"tracestate"]
        state = b",".join(states)
        if not _TRACESTATE.fullmatch(state):
            return ((b"traceparent", parents[0]),)
        return ((b"traceparent", parents[0]), (b"tracestate", state))

    @property
    def media_type(self) -> str:
        """The type of the body without its parameters; empty if it is not said."""
        said = self.field(b"content-type") or ""
        return said.partition(";")[0].strip().lower()


def _request_id(headers: Iterable[tuple[bytes, bytes]], taken: Container[str]) -> str:
    """Take the client's id if it is safe to repeat and no live request has it."""
    for name, value in headers:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text) and text not in taken:
                return text
    return secrets.token_hex(16)
