"""Host names to addresses, without letting a name server hold the process.

getaddrinfo blocks a thread and cannot be interrupted. So a look-up belongs to the
resolver, not to the task that asked: whoever asks only waits for an event, and leaves
at once when cancelled; the thread goes on until the C library gives up. At most
`dns_threads` of them exist, on a limit of their own, so that Trio's threads stay free.
Identical questions share one look-up. A host that answered before is still reachable
while DNS fails or hangs (RFC 8767, serving stale data).
"""

from __future__ import annotations

import contextlib
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from trio_ai_stream.upstream.transport.limits import TransportLimits

if TYPE_CHECKING:
    import outcome  # Trio's own dependency; only named here

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""What a socket needs: its family, and the address in that family's form."""

Answer = tuple[Address, ...]
Lookup = Callable[..., Sequence[tuple[Any, ...]]]

_CACHE_SIZE = 256
"""Hosts remembered: a gateway talks to a handful, so this only bounds a mistake."""


@dataclass(slots=True)
class _Question:
    """One look-up under way, and what became of it."""

    key: tuple[str, int]
    done: trio.Event = field(default_factory=trio.Event)
    answer: Answer | None = None
    failure: Exception | None = None


class Resolver:
    """Resolves host names for one Trio run, with a cache on the Trio clock."""

    def __init__(
        self, limits: TransportLimits, *, lookup: Lookup = socket.getaddrinfo
    ) -> None:
        self._limits = limits
        self._lookup = lookup
        self._cache: OrderedDict[tuple[str, int], tuple[float, Answer]] = OrderedDict()
        self._questions: dict[tuple[str, int], _Question] = {}
        self._queue: deque[_Question] = deque()
        self.threads = 0

    def __repr__(self) -> str:
        return (
            f"<Resolver cached={len(self._cache)} asking={len(self._questions)} "
            f"threads={self.threads}>"
        )

    async def resolve(self, host: str, port: int) -> Answer:
        """Return the host's addresses, those of the two families alternating.

        Errors: `OSError` (gaierror) when the name has no address. Cancellation: leaves
        at once; the look-up goes on for others, and fills the cache.
        """
        if (numeric := _numeric(host, port)) is not None:
            return numeric
        key = (host, port)
        age, known = self._remembered(key)
        if known is not None and age < self._limits.dns_ttl_s:
            return known
        question = self._ask(key)
        if known is None:
            await question.done.wait()
        else:
            with trio.move_on_after(self._limits.dns_patience_s):
                await question.done.wait()
        answer = question.answer or known
        if answer is None:
            raise OSError(f"no address: {question.failure}") from question.failure
        return answer

    def _remembered(self, key: tuple[str, int]) -> tuple[float, Answer | None]:
        asked_at, answer = self._cache.get(key, (0.0, None))
        age = trio.current_time() - asked_at
        return age, answer if age < self._limits.dns_stale_ttl_s else None

    def _ask(self, key: tuple[str, int]) -> _Question:
        question = self._questions.get(key)
        if question is None:
            question = self._questions[key] = _Question(key)
            self._queue.append(question)
            self._start_queued()
        return question

    def _start_queued(self) -> None:
        while self._queue and self.threads < self._limits.dns_threads:
            self._start(self._queue.popleft())

    def _start(self, question: _Question) -> None:
        token = trio.lowlevel.current_trio_token()
        host, port = question.key

        def look_up() -> Answer:
            return _answer(self._lookup(host, port, type=socket.SOCK_STREAM))

        def deliver(result: outcome.Outcome[Answer]) -> None:
            # The run may be over: nobody waits for the answer then.
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._settle, question, result)

        trio.lowlevel.start_thread_soon(look_up, deliver, "trio-ai-stream DNS")
        self.threads += 1

    def _settle(self, question: _Question, result: outcome.Outcome[Answer]) -> None:
        self.threads -= 1
        del self._questions[question.key]
        try:
            question.answer = result.unwrap()
        except Exception as exc:
            question.failure = exc
        else:
            self._cache[question.key] = (trio.current_time(), question.answer)
            self._cache.move_to_end(question.key)
            if len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
        question.done.set()
        self._start_queued()


def _numeric(host: str, port: int) -> Answer | None:
    """Return the address if the host is written as one: that needs no thread."""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        return _answer(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        )
    except socket.gaierror:
        return None


def _answer(rows: Sequence[tuple[Any, ...]]) -> Answer:
    """Let the two families alternate, the preferred one first (RFC 8305, section 4)."""
    addresses = [(family, address) for family, _, _, _, address in rows]
    if not addresses:
        raise OSError("the name server knows no address of this host")
    first = addresses[0][0]
    preferred = [address for address in addresses if address[0] == first]
    others = [address for address in addresses if address[0] != first]
    mixed: list[Address] = []
    while preferred or others:
        mixed += preferred[:1] + others[:1]
        del preferred[:1], others[:1]
    return tuple(mixed)
