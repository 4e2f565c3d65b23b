"""A program to sweep: one chat stream with its surroundings.

A scenario is data: what the client asks, how it reads, how upstream behaves (a model
name of the simulator, which is deterministic under a mock clock), and which settings
differ. The budgets are all different, so that a time tells which of them ended a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from trio_ai_stream.settings import Settings, load_settings
from trio_ai_stream.wire.record import Outcome

KEYS: Final = str(Path(__file__).with_name("keys.toml"))
RICH: Final = "rich-key"
TARGET: Final = "target"  # the request id of the stream that is swept
HOST: Final = "192.0.2.1"  # upstream's over sockets: of no machine, and no DNS
BUDGETS: Final = {
    "CONNECT_TIMEOUT_SECS": "3",
    "WRITE_TIMEOUT_SECS": "4",
    "STREAM_IDLE_TIMEOUT_SECS": "5",
    "FIRST_TOKEN_TIMEOUT_SECS": "8",
    "STREAM_DEADLINE_SECS": "20",
    "HEARTBEAT_SECS": "2",
}
Shape = Literal["chat", "openai", "messages", "responses", "document", "other"]
PATHS: Final[dict[Shape, str]] = {
    "chat": "/chat",
    "openai": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "document": "/v1/chat/completions",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One program to sweep; `ends` is what becomes of it when nobody interferes."""

    name: str
    about: str
    upstream: str = "simulator/fast?chunks=2&first_token_ms=50&delay_ms=100"
    ends: Outcome | None = Outcome.COMPLETED
    fails: Outcome | None = None  # what its first attempt ends with, if it is the last
    shape: Shape = "chat"
    prompt: str = "hello"
    options: dict[str, object] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    read_every_s: float = 0.0
    origin: str = ""  # of the page that asks, if a page does
    # The server under the application tells of a disconnect at once.
    reports_disconnect: bool = True
    proxy: bytes | None = None  # what one that upstream is behind answers to CONNECT
    sockets: Literal["", "plain", "tls"] = ""  # what upstream is reached by
    unheld: bool = False  # nothing closes upstream's connection before it is answered
    early: bool = False  # upstream refuses before it has read the request
    pieces: int = 1  # in which the request's body arrives
    piece_every_s: float = 0.0  # from one of them to the next
    connect_s: float = 0.01
    warm: int = 0  # requests before, which leave a connection in the pool
    before: str = "simulator/fast?chunks=1"  # the upstream of those
    key: str = ""  # that the client asks with; others ask with `rich-key` then
    tells: str = ""  # what its client is told, if it is not its outcome's usual error
    once: bool = False  # the same request again would be refused
    neighbour: str = ""  # the upstream of a second stream beside the target
    path: str = ""  # of a GET, for the shape `other`
    leaves_after_s: float | None = None  # the client leaves by itself
    keeps: bool = True  # a whole answer leaves its connection in the pool
    always: tuple[
        str, ...
    ] = ()  # patterns of causes for every state, also in a quick sweep
    seeds: int = 1  # of the quick sweep: more, where one schedule shows too little
    beside: bool = False  # `always` means states of other tasks than the request's too
    valkey: Literal["", "up", "slow", "lost", "refused"] = ""  # where limits are shared
    silent_at: str = ""  # with the target's script of this name Valkey falls silent
    ledger: bool = False  # rows are kept in a file
    own_app: bool = False  # its routes hold state: compile them for each run

    @property
    def repeated(self) -> bool:
        """Whether the same request follows: not if its client would not read it."""
        quick = self.shape != "other" and self.read_every_s < 10
        return quick and not self.once

    @property
    def looks_up(self) -> bool:
        """Whether bills of cut streams are asked for."""
        return "RECONCILE_SECS" in self.settings

    @property
    def upstream_origin(self) -> str:
        """Where upstream is; what is dialled is a number, which needs no DNS."""
        scheme = "https" if self.sockets == "tls" else "http"
        return f"{scheme}://{HOST if self.sockets else 'upstream.test'}"

    def make_settings(self, **more: str) -> Settings:
        """Return the server's settings."""
        environ = {
            "UPSTREAM": "openrouter",
            "OPENROUTER_API_KEY": "none",
            "OPENROUTER_BASE_URL": f"{self.upstream_origin}/api/v1",
            "RATE_LIMIT": "1000",
            "RECONCILE_SECS": "0",  # what follows a stream is the ledger's scenario's
            **BUDGETS,
            **self.settings,
            **more,
        }
        if self.key:
            environ |= {"KEYS_FILE": KEYS, "LEDGER_FILE": "one-a-run.db"}
        return load_settings(environ, None)

    def body(self) -> dict[str, object]:
        """Return the JSON that the client sends."""
        model = self.upstream
        if self.shape == "chat":
            return {"prompt": self.prompt, "model": model, **self.options}
        messages = [{"role": "user", "content": self.prompt}]
        if self.shape == "responses":
            return {"input": messages, "model": model, "stream": True, **self.options}
        stream = self.shape in {"openai", "messages"}
        return {"messages": messages, "model": model, "stream": stream, **self.options}
