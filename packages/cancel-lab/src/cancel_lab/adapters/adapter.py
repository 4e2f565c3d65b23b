"""What the instrument has to know of a server in order to cancel its streams."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from cancel_lab.clients.acts import Transport
from cancel_lab.clients.http1 import ChatRequest

BODY = '{"prompt":"Tell me about nurseries.","model":"{model}"}'


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A server under test.

    ``{python}``, ``{port}`` and ``{upstream}`` (the simulator's base URL) are filled in
    in ``argv`` and ``env``, ``{model}`` in ``body``: the model names the simulator's
    script, so a server that does not hand it on can only be measured with the default.
    """

    name: str
    title: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    path: str = "/chat"
    body: str = BODY
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"content-type": "application/json"}
    )
    transports: frozenset[Transport] = frozenset({Transport.H1, Transport.H1_PIPELINED})
    requires: tuple[str, ...] = ()
    package: str | None = None
    ready_within_s: float = 20.0
    interpreter_env: str | None = None
    port: int | None = None  # where it listens; None is a free one each time

    @property
    def interpreter(self) -> str:
        """The Python that runs it: this one, or what ``interpreter_env`` names.

        A server that pins the versions of half the others needs an environment of its
        own.
        """
        return os.environ.get(self.interpreter_env or "") or sys.executable

    def missing(self) -> str | None:
        """Return why this server cannot be started here, ``None`` if it can."""
        if self.interpreter != sys.executable:
            return None
        absent = [name for name in self.requires if not importlib.util.find_spec(name)]
        if not absent:
            return None
        return f"not installed: {', '.join(absent)}"

    def version(self) -> str | None:
        """Return the version of the package that the server is known by."""
        if self.package is None:
            return None
        if self.interpreter != sys.executable:
            return _version_elsewhere(self.interpreter, self.package)
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def command(self, *, port: int, upstream: str) -> tuple[list[str], dict[str, str]]:
        """Return the argument list and the additions to the environment."""
        known = {"{python}": self.interpreter, "{port}": str(port)}
        known["{upstream}"] = upstream

        def fill(text: str) -> str:
            for mark, value in known.items():
                text = text.replace(mark, value)
            return text

        argv = [fill(argument) for argument in self.argv]
        return argv, {name: fill(value) for name, value in self.env.items()}

    def request(self, model: str) -> ChatRequest:
        """Return the chat request that asks for a script of the simulator."""
        body = self.body.replace("{model}", model).encode()
        return ChatRequest(path=self.path, body=body, headers=self.headers)


@cache
def _version_elsewhere(interpreter: str, package: str) -> str | None:
    program = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    asked = subprocess.run(  # noqa: S603 - no shell, a fixed program
        [interpreter, "-c", program, package],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return asked.stdout.strip() or None
