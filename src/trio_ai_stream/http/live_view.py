"""`GET /streams/live`: the running streams as trees of tasks, as server-sent events.

Events: `snapshot` (whenever something differs from the last one, four times a second at
most), `ended` (one for each stream that ended since) and at last `bye`. While the
server drains the watching goes on, `draining` is true, and `bye` comes with the end of
the last stream. One subscriber too many gets `bye` under status 503. A snapshot shows
the streams that the caller may cancel, the oldest first: forty with their tasks, then
two hundred without, as are those of other processes; `total` and `states` count them
all. `?tree=ID` asks for the tasks of one more. A stream that has ended is listed last,
and not counted, while a task of it reads the rest of upstream's answer (`finishing`).
`complete` is false while other processes may have streams that are not heard of.

Streams of other processes are heard of, not looked into. A directory asks every process
for its streams, which costs each of them something. So all subscribers of one owner
share what was heard, and it is asked for once a second at most. A tree of tasks exists
only where the tasks are: these streams come without one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

import msgspec
import trio
from quart import Blueprint, Response, request

from trio_ai_stream.admission.directory import Entry, LocalDirectory, StreamDirectory
from trio_ai_stream.http.auth import visible_owner
from trio_ai_stream.http.endpoint import StreamResponse
from trio_ai_stream.http.http_responses import ASGIWriter, Headers, Send
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.services import Services, Subscriber
from trio_ai_stream.stream.lifecycle import State
from trio_ai_stream.stream.registry import SLICE
from trio_ai_stream.stream.snapshot import StreamView, snapshot
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.wire.dialect import CONTENT_TYPE, HEARTBEAT
from trio_ai_stream.wire.record import Record

ASK_S: Final = 1.0
# Owners whose subscribers have left are forgotten once there are more than subscribers.
MAX_OWNERS: Final = 64


@dataclass(slots=True)
class Heard:
    """What other processes have said; not `complete` if one has not answered yet."""

    asked_at: float = 0.0
    streams: Sequence[StreamView] = ()
    complete: bool = False


class RemoteStreams:
    """What was last heard of other processes' streams, by owner."""

    def __init__(
        self, directory: StreamDirectory, is_here: Callable[[str], bool]
    ) -> None:
        self._directory = directory
        self._is_here = is_here
        self._heard: dict[str | None, Heard] = {}

    async def streams(self, owner: str | None) -> Heard:
        """Return them, asking first if it is time; the directory bounds its answer.

        *Cancellation:* what was heard before stands.
        """
        if isinstance(self._directory, LocalDirectory):
            return Heard(complete=True)
        now = trio.current_time()
        heard = self._heard.get(owner)
        if heard is not None and now - heard.asked_at < ASK_S:
            return heard
        if heard is None:
            while len(self._heard) >= MAX_OWNERS:
                del self._heard[next(iter(self._heard))]
            heard = self._heard[owner] = Heard()
        heard.asked_at = now  # so that other subscribers take the old answer until then
        listing = await self._directory.list_streams(owner)
        heard.streams = [
            view(entry, trio.current_time())
            for entry in listing.entries
            if not self._is_here(entry["id"])
        ]
        heard.complete = listing.complete
        return heard


def view(entry: Entry, now: float) -> StreamView:
    """Return a directory's entry (`wire.documents.StreamDocument`) as a view."""
    return StreamView(
        id=entry["id"],
        state=entry["state"],
        outcome=entry["outcome"],
        endpoint=entry["endpoint"],
        model=entry["model"],
        began_at=now - entry["age_s"],
        attempts=entry["attempts"],
        events=entry["events"],
        task=None,
        elsewhere=True,
        owner=entry["client"],
    )


# Trio does not say when its task tree changes, so a subscriber looks: four times a
# second looks alive to a person.
LOOK_S: Final = 0.25
MAX_TREES: Final = 40
MAX_ROWS: Final = 240


def live_blueprint(services: Services) -> Blueprint:
    """Return the blueprint with the live view's endpoint."""
    blueprint = Blueprint("live", __name__)
    remote = RemoteStreams(services.directory, services.registry.__contains__)

    @blueprint.get("/streams/live")
    async def live() -> Response:
        """Watch the live streams of this process as trees of tasks and deadlines."""
        if request.method == "HEAD":
            return Response("", content_type=CONTENT_TYPE)
        context = RequestContext.current()
        subscriber = Subscriber(visible_owner())
        tree = request.args.get("tree", "")

        async def run(send: Send, headers: Headers) -> None:
            writer = ASGIWriter(send, headers, context)
            if services.subscribers.full:
                await writer.start(status=503, content_type=CONTENT_TYPE)
                await writer.write(_frame("bye", {"reason": "too_many_watchers"}))
                await writer.finish()
                return
            with services.subscribers.subscribe(subscriber):
                view = LiveView(services, subscriber, writer, tree)
                await view.run(partial(remote.streams, subscriber.owner))

        return StreamResponse(run)

    return blueprint


class LiveView:
    """Writes to one subscriber what has changed."""

    def __init__(
        self,
        services: Services,
        subscriber: Subscriber,
        writer: ASGIWriter,
        tree: str = "",
    ) -> None:
        self._services = services
        self._subscriber = subscriber
        self._writer = writer
        self._tree = tree
        self._last = b""

    async def run(self, remote: Callable[[], Awaitable[Heard]]) -> None:
        """Write until the last stream of a server that drains has ended.

        `remote` gives other processes' streams. *Cancellation:* the client went away;
        nothing is left behind.
        """
        writer, registry = self._writer, self._services.registry
        await writer.start(status=200, content_type=CONTENT_TYPE)
        sent_at = trio.current_time()
        while not (registry.draining.is_set() and not len(registry)):
            if block := await self.changes(await remote()):
                await writer.write(block)
                sent_at = trio.current_time()
            elif trio.current_time() - sent_at >= self._services.budgets.heartbeat_s:
                await writer.write(HEARTBEAT)
                sent_at = trio.current_time()
            draining = registry.draining.is_set()
            with trio.move_on_after(LOOK_S):
                await (registry.until_over if draining else registry.draining.wait)()
        last = await self.changes(Heard(complete=True))
        await writer.write(last + _frame("bye", {"reason": "draining"}))
        await writer.finish()

    async def changes(self, heard: Heard) -> bytes:
        """Return the frames of what differs from the last look; empty if nothing.

        Other tasks run meanwhile: one turn of the loop looks at a hundred streams.
        """
        shown: list[Stream] = []
        states = Counter(one.state for one in heard.streams)
        for number, one in enumerate(self._services.registry):
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
            if one.state is State.ENDED or not self._subscriber.sees(one.owner):
                continue
            if len(shown) < MAX_ROWS or one.request_id == self._tree:
                shown.append(one)
            else:
                states[one.shown_state] += 1
        # Some have ended meanwhile.
        shown = [one for one in shown if one.state is not State.ENDED]
        states.update(one.shown_state for one in shown)
        total = states.total()
        streams = [
            snapshot(one, tree=at < MAX_TREES or one.request_id == self._tree)
            for at, one in enumerate(shown)
        ]
        streams += heard.streams[: max(0, MAX_ROWS - len(streams))]
        more = total - len(streams)
        finishing = self._finishing()
        streams += finishing.values()
        body = {
            "streams": streams,
            "more": more,
            "total": total,
            "states": states,
            "complete": heard.complete,
            "draining": self._services.registry.draining.is_set(),
        }
        frames = [
            _frame("ended", {**_ended_view(r), "finishing": r.request_id in finishing})
            for r in self._subscriber.take()
        ]
        encoded = msgspec.json.encode(body)
        if encoded != self._last:
            self._last = encoded
            frames.append(_frame("snapshot", {"now": trio.current_time(), **body}))
        return b"".join(frames)

    def _finishing(self) -> dict[str, StreamView]:
        """Return those of the first few that the caller may see, by id."""
        some = islice(self._services.registry.finishing, MAX_TREES)
        return {
            one.request_id: snapshot(one)
            for one in some
            if self._subscriber.sees(one.owner)
        }


def _ended_view(record: Record) -> dict[str, Any]:
    """Return what a subscriber is told of an ended stream; times in milliseconds."""
    return {
        "id": record.request_id,
        "endpoint": record.endpoint,
        "model": record.model,
        "outcome": record.outcome.value,
        "duration_ms": _ms(record.duration_s),
        "first_content_ms": _ms(record.first_content_s),
        "upstream_closed_ms": _ms(record.cancel_latency_s),
        "ending_ms": _ms(record.ending_s),
        "attempts": record.attempts,
        "events": record.events,
        "blocks": record.blocks,
        "bytes": record.bytes_out,
        "told": record.told,
        "finish_reason": record.finish_reason,
        **record.bill.fields(),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)


def _frame(event: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), msgspec.json.encode(data))
