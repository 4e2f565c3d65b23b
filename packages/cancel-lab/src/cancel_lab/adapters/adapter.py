"""What the instrument has to know of a server in order to cancel its streams."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from cancel_lab.adapters.install import Install, fill
from cancel_lab.clients.acts import Transport
from cancel_lab.clients.chat_stream import ChatRequest

BODY = '{"prompt":"Tell me about nurseries.","model":"{model}"}'


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A server under test.

    ``{python}``, ``{port}`` and ``{upstream}`` (the simulator's base URL) are filled in
    in ``argv``, ``env`` and ``headers``, ``{home}`` and ``{apps}`` as in ``install``,
    ``{model}`` in ``body``: the model names the simulator's script, so a server that
    does not hand it on can only be measured with the default.
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
    install: Install | None = None  # how it comes into an environment of its own
    home_of: str | None = None  # whose environment that is, if another's
    port: int | None = None  # where it listens; None is a free one each time

    @property
    def home(self) -> str:
        """The name of its environment."""
        return self.home_of or self.name

    def missing(self) -> str | None:
        """Return why this server cannot be started here, ``None`` if it can."""
        if self.install is not None:
            if self.install.ready(self.home):
                return None
            return f"not installed: cancel-lab install {self.home}"
        absent = [name for name in self.requires if not importlib.util.find_spec(name)]
        if not absent:
            return None
        return f"not installed: {', '.join(absent)}"

    def version(self) -> str | None:
        """Return the version of the package that the server is known by."""
        if self.install is not None:
            return _installed_version(self.install, self.home)
        if self.package is None:
            return None
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def command(self, *, port: int, upstream: str) -> tuple[list[str], dict[str, str]]:
        """Return the argument list and the additions to the environment."""

        def filled(text: str) -> str:
            (text,) = fill([text], self.home)
            return text.replace("{port}", str(port)).replace("{upstream}", upstream)

        argv = [filled(argument) for argument in self.argv]
        return argv, {name: filled(value) for name, value in self.env.items()}

    def before(self, upstream: str) -> Adapter:
        """Return it for one upstream, which some servers are told in each request."""
        headers = {
            name: value.replace("{upstream}", upstream)
            for name, value in self.headers.items()
        }
        return dataclasses.replace(self, headers=headers)

    def request(self, model: str) -> ChatRequest:
        """Return the chat request that asks for a script of the simulator."""
        body = self.body.replace("{model}", model).encode()
        return ChatRequest(path=self.path, body=body, headers=self.headers)


@cache
def _installed_version(install: Install, name: str) -> str | None:
    return install.installed_version(name)
