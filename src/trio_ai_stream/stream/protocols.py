"""What a stream needs of its upstream and of its client, as protocols.

`upstream/` and `http/` fulfil them; so this room knows neither httpx nor Quart, and a
test can put memory streams on both sides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trio_ai_stream.stream.lifecycle import Ending
from trio_ai_stream.wire.dialect import Dialect
from trio_ai_stream.wire.events import Answer, Item

OnSent = Callable[[], Awaitable[None]]
OnAbortable = Callable[[Callable[[], None] | None], None]
"""Is given what closes a connection at once, and None when that is no longer so."""


@dataclass(slots=True)
class UpstreamRequest:
    """One request to upstream, ready to send.

    `body` is JSON; `dialect` says where it goes and how the answer is read. With
    `whole` upstream is asked for one JSON document instead of a stream. `choices` is
    how many answers are asked for at a time (`n`). `headers` are the fields of the
    client's that go on to upstream. `prompt_size` is how long what is asked is
    (`estimate.text_size`); `user` is the caller's own user, as it says. A stream lets
    go of the body once its answer has begun: a long conversation is a megabyte.
    """

    request_id: str
    model: str
    body: bytes
    dialect: Dialect
    whole: bool = False
    choices: int = 1
    headers: tuple[tuple[bytes, bytes], ...] = ()
    prompt_size: int = 0
    user: str | None = None


class UpstreamResponse(Protocol):
    """An upstream that has answered 200 and now delivers."""

    @property
    def generation_id(self) -> str | None:
        """Upstream's name for this answer, if it gave one."""

    @property
    def ended(self) -> bool:
        """Whether all has been read, and the connection given back."""

    async def receive(self) -> Sequence[Item] | None:
        """Return all items that have arrived; wait for one block; `None` at the end.

        Cancelling loses nothing: what had not been returned is returned by the next
        call.

        :raises EndStream: when upstream breaks or sends what is no stream.
        """

    async def finish(self) -> None:
        """Read what is left after `[DONE]`: the connection can be used again."""

    def abort(self) -> None:
        """Close the connection at once; synchronous and idempotent."""


class Upstream(Protocol):
    """Opens answers; one object serves all streams."""

    @property
    def kind(self) -> str:
        """`openrouter` or `simulator`: who answers."""

    async def open(
        self, request: UpstreamRequest, on_sent: OnSent, on_abortable: OnAbortable
    ) -> UpstreamResponse:
        """Send the request and wait for upstream's headers, once.

        `on_sent` is awaited before the first wait, with the request on its way if a
        connection was at hand. It may be awaited again: a connection turned out to be
        stale. Cancelling closes the connection at once; so does what
        `on_abortable` is given, for as long as there is a connection and no answer.

        :raises EndStream: when upstream refuses or cannot be reached.
        """


class Responder(Protocol):
    """The response as the stream writes it; one task calls it, one call at a time."""

    async def accepted(self) -> None:
        """The stream has begun; upstream has not answered yet."""

    async def opened(self) -> None:
        """Upstream answered 200."""

    @property
    def held(self) -> tuple[int, int]:
        """What of the answer `ended` writes besides: (events, bytes)."""

    async def deliver(self, items: Sequence[Item]) -> tuple[int, int]:
        """Write a block, but what is held; return (events, bytes) written."""

    async def heartbeat(self) -> None:
        """Write a sign of life."""

    async def ended(self, ending: Ending, answer: Answer) -> bool:
        """Write the one terminal event and the end of the response.

        Return whether it has all left for the client; False if it was lost on the way.
        """
