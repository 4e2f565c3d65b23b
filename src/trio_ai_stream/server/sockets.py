"""The listening sockets: whose they are, and how clients are taken from them."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hypercorn.config import Config, Sockets

# Out of descriptors or memory: what ends gives some back.
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
# SD_LISTEN_FDS_START of sd_listen_fds(3).
_FIRST_ACTIVATED: Final = 3
# The listener itself is no more: closed, or shut down by a process that shares it.
_DEAD: Final = {errno.EINVAL, errno.EBADF, errno.ENOTSOCK}


class ListenerClosedError(Exception):
    """Nobody can be accepted from this socket any more."""


class ExhaustedError(Exception):
    """The process has no room for another connection now; the message says why."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket.

    `secure`: TLS is spoken on it. `shared`: it was given to this process by another,
    which goes on accepting from it (systemd, `fd://`), so it is never shut down.
    """

    sock: socket.socket
    secure: bool
    shared: bool = False

    def accept(self) -> socket.socket | None:
        """Return the next client's socket, not blocking; None if there is none now.

        :raises ListenerClosedError: there will never be one.
        :raises ExhaustedError: no descriptor or no memory is left.
        """
        try:
            sock, _ = self.sock.accept()
        except MemoryError as exc:
            raise ExhaustedError("no memory is left") from exc
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                raise ExhaustedError(str(exc)) from exc
            if exc.errno in _DEAD:
                raise ListenerClosedError from exc
            # None waits, or the one that did has gone (accept(2), "Error handling").
            return None
        sock.setblocking(False)
        return sock

    def shut_down(self) -> None:
        """Refuse new clients, in every process that has the socket."""
        if not self.shared:
            with suppress(OSError):  # another worker was first
                self.sock.shutdown(socket.SHUT_RDWR)


class ActivationError(ValueError):
    """What the service manager has handed over cannot be listened on."""


def activated(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Return the service manager's sockets as Hypercorn's binds (sd_listen_fds(3)).

    None without one. The variables are taken out: they are for this process alone.

    :raises ActivationError: naming what was expected and what came.
    """
    number, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return []
    if not number.isdigit():
        raise ActivationError(f"LISTEN_FDS: expected a number, got {number!r}")
    descriptors = range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + int(number))
    for descriptor in descriptors:
        try:
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            listens = 0
        if not listens:
            raise ActivationError(
                f"LISTEN_FDS: expected listening stream sockets (Accept=no), got"
                f" something else as descriptor {descriptor}"
            )
        os.set_inheritable(descriptor, False)
    return [f"fd://{descriptor}" for descriptor in descriptors]


class Reserve:
    """Descriptors kept back, so that a process without any can still be asked."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[int] = []
        self.restore()

    def lend(self) -> bool:
        """Free one descriptor; False if none is left."""
        if not self._held:
            return False
        os.close(self._held.pop())
        return True

    def restore(self) -> None:
        """Keep back again what was lent, as far as there is any."""
        with suppress(OSError):
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Give all of them back."""
        while self.lend():
            pass


def allow_descriptors(wanted: int) -> int:
    """Raise the soft limit of open files as far as the hard one lets us; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        with suppress(OSError, ValueError):  # a container may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
    return soft


def listeners_of(config: Config, sockets: Sockets) -> list[Listener]:
    """Return the sockets that Hypercorn has made, with whose they are."""
    secure = _marked(sockets.secure_sockets, config.bind, secure=True)
    binds = config.insecure_bind if config.ssl_enabled else config.bind
    return secure + _marked(sockets.insecure_sockets, binds, secure=False)


def _marked(
    sockets: list[socket.socket], binds: Iterable[str], *, secure: bool
) -> list[Listener]:
    return [
        Listener(sock, secure, shared=bind.startswith("fd://"))
        for sock, bind in zip(sockets, binds, strict=False)
    ]
