"""The relay: one task reads blocks from upstream and writes them to the client.

Pushing from one task means that backpressure is the plain blocking of a write, and that
there is never a second writer. The budgets are cancel scopes around the conversation;
the terminal event is written after they have ended. A write is not interrupted by them:
the server's `send` either completes or the connection is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence

import trio

from trio_ai_stream.stream.budgets import REUSE_S
from trio_ai_stream.stream.lifecycle import EndStream, Event, State
from trio_ai_stream.stream.protocols import Responder, Upstream, UpstreamResponse
from trio_ai_stream.stream.retries import Retries
from trio_ai_stream.stream.stream import Stream
from trio_ai_stream.stream.timers import StreamTimers, TimerQueue
from trio_ai_stream.stream.transcript import Transcript, holds_output
from trio_ai_stream.wire.events import Answer, Item
from trio_ai_stream.wire.record import Outcome

logger = logging.getLogger(__name__)


async def relay(
    stream: Stream,
    upstream: Upstream,
    responder: Responder,
    timer_queue: TimerQueue,
    retries: Retries,
) -> None:
    """Run a stream to its end, whatever that is; the outcome is in `stream.ending`.

    `timer_queue` keeps the times of the stream's timers, whose heartbeats are written
    by a task in its nursery; `retries` says whether upstream is asked again.

    *Cancellation:* from outside means that the client is gone: the upstream connection
    is closed at once and nothing more is written. *Errors:* none; our bugs are logged
    and end the stream as `internal_error`.
    """
    timers = StreamTimers(stream.budgets, responder, timer_queue, stream.request_id)
    conversation = _Conversation(stream, upstream, responder, retries, timers)
    try:
        async with trio.open_nursery() as nursery:
            stream.nursery, stream.timers = nursery, timers
            timers.begin(nursery)
            try:
                await conversation.run()
                await conversation.write_ending()
            finally:
                timers.end()
            if nursery.child_tasks:
                nursery.cancel_scope.cancel(reason="stream over")
    except Exception:
        logger.exception("stream failed")
        stream.end(Outcome.INTERNAL_ERROR)
    finally:
        response = _take_answered(stream)
        if response is not None:
            # Read what follows [DONE], so that upstream's connection is used again;
            # shielded, because a client that has its answer may be gone already.
            stream.scopes = {}
            try:
                with trio.move_on_after(REUSE_S, shield=True) as stream.scopes["rest"]:
                    stream.begin_rest()
                    await response.finish()
            finally:
                stream.end_rest()
            response.abort()
        stream.release_upstream()


def _take_answered(stream: Stream) -> UpstreamResponse | None:
    """Close a stream whose answer is whole; return the connection that it leaves.

    It is over for its client: nothing but the connection is held for the rest, if there
    is any: mostly the end of the body has come with that of the answer.
    """
    if not stream.completed:
        return None
    response, stream.response = stream.response, None
    try:
        stream.close()
    except Exception:
        if response is not None:
            response.abort()
        raise
    if response is None or not response.ended:
        return response
    response.abort()  # nothing is open, but something may be held
    return None


class _Conversation:
    def __init__(
        self,
        stream: Stream,
        upstream: Upstream,
        responder: Responder,
        retries: Retries,
        timers: StreamTimers,
    ) -> None:
        self.stream = stream
        self.upstream = upstream
        self.responder = responder
        self.retries = retries
        self.timers = timers
        self._begin_answer()
        self.accepted = False
        self.graced = False  # the answer is whole, and only its usage is waited for

    def _begin_answer(self) -> None:
        """Know nothing of an answer yet."""
        stream = self.stream
        stream.answer = Answer()
        self.transcript = Transcript(stream.answer, stream.request.choices)

    async def run(self) -> None:
        """Converse inside the budgets, and see that there is an ending."""
        stream = self.stream
        if stream.ending is not None:  # ended between admission and here
            return
        stream.step(Event.START)
        deadline = stream.began_at + stream.budgets.deadline_s
        try:
            with stream.stop_scope, trio.CancelScope(deadline=deadline) as whole:
                stream.scopes["deadline"] = whole
                await self._converse()
                stream.end(Outcome.COMPLETED)
            if whole.cancelled_caught:
                stream.end(
                    Outcome.COMPLETED
                    if self.graced or self.transcript.complete
                    else Outcome.DEADLINE_EXCEEDED
                )
        except EndStream as exc:
            stream.end(exc.outcome, problem=exc.problem, detail=exc.detail)
        except Exception:
            logger.exception("stream failed")
            stream.end(Outcome.INTERNAL_ERROR)

    async def _converse(self) -> None:
        stream = self.stream
        first = trio.CancelScope(
            deadline=stream.began_at + stream.budgets.first_token_s
        )
        stream.scopes["first_token"] = first
        with first:
            response = await self._begin()
        if first.cancelled_caught:
            raise EndStream(Outcome.FIRST_TOKEN_TIMEOUT)
        stream.release_body()  # an answer that has begun is not asked for again
        del stream.scopes["first_token"], first  # the scope is over, the stream is not
        with trio.CancelScope() as idle:
            self.timers.idle_scope = stream.scopes["idle"] = idle
            await self._relay(response, until_begun=False)
        if idle.cancelled_caught:
            raise EndStream(Outcome.STREAM_IDLE_TIMEOUT)
        self.timers.idle_scope = None
        if not self.transcript.complete:
            await self._await_done(response)

    async def _await_done(self, response: UpstreamResponse) -> None:
        """Wait a short time for what may follow a whole answer: usage and `[DONE]`.

        The time counts from the last output. Nothing but a client that left, a stop or
        an error event of upstream's makes a failure of a whole answer any more.
        """
        stream, transcript = self.stream, self.transcript
        deadline = trio.current_time() + stream.budgets.done_grace_s
        while not transcript.complete:
            items: Sequence[Item] | None = None
            with trio.CancelScope(deadline=deadline) as grace:
                stream.scopes["done_grace"] = grace
                self.graced = True
                try:
                    items = await self._receive(response)
                except EndStream:
                    if stream.ending is not None:
                        raise
                self.graced = False
            self.timers.waiting_since = None
            if items is None:  # the time is over, or the connection is
                return
            await self._pass(items)
            if holds_output(items):
                deadline = trio.current_time() + stream.budgets.done_grace_s

    async def _begin(self) -> UpstreamResponse:
        """Open upstream and relay up to the first content, with retries before it."""
        self.retries.note_request()
        while True:
            try:
                return await self._attempt()
            except EndStream as exc:
                wait_s = self._wait_before_retry(exc)
                if wait_s is None:
                    raise
            # A try that failed before any output costs nothing, nor says anything.
            self._begin_answer()
            await trio.sleep(wait_s)

    async def _attempt(self) -> UpstreamResponse:
        stream, timers = self.stream, self.timers
        if stream.state is State.WAITING:
            stream.step(Event.RETRY)
        stream.attempts += 1
        stream.answer.asked = True
        try:
            response = await self.upstream.open(
                stream.request, self._accept, stream.attach_abort
            )
        except EndStream as exc:
            self.transcript.note(exc.said)
            raise
        stream.attach_response(response)
        if stream.ending is not None:  # it came while this answer was on its way here
            raise EndStream(stream.ending.outcome)
        stream.step(Event.OPENED)
        timers.waiting_since = None
        await timers.writable()
        await self.responder.opened()
        try:
            await self._relay(response, until_begun=True)
        except EndStream:
            stream.release_upstream()
            raise
        return response

    async def _accept(self) -> None:
        """Tell the client that upstream is being asked, and begin to wait for it.

        Between the request and its answer, because that is when nothing else is to do:
        the client's first event does not wait for this write.
        """
        timers = self.timers
        if not self.accepted:
            self.accepted = True
            await self.responder.accepted()
            timers.sent_at = trio.current_time()
        timers.waiting_since = trio.current_time()

    def _wait_before_retry(self, failure: EndStream) -> float | None:
        """Return how long to wait for another try, None if there is none.

        An answer may have begun unseen: with reasoning that this client did not ask
        for. Once the stream has its ending, what fails is the connection that was
        closed for it.
        """
        stream = self.stream
        finished = stream.answer.finish_reason is not None
        begun = stream.events or self.transcript.begun or finished
        if begun or stream.ending is not None:
            return None
        due = min(stream.scopes[name].deadline for name in ("first_token", "deadline"))
        left_s = due - trio.current_time()
        return self.retries.wait_s(failure, attempts=stream.attempts, left_s=left_s)

    async def _relay(self, response: UpstreamResponse, *, until_begun: bool) -> None:
        """Relay all that has arrived in one write, block by block, up to the end."""
        transcript = self.transcript
        while not (transcript.complete or transcript.whole):
            items = await self._receive(response)
            self.timers.waiting_since = None
            if items is None:
                transcript.end()
            else:
                await self._pass(items)
            if until_begun and transcript.begun:
                return

    def _receive(self, response: UpstreamResponse) -> Awaitable[Sequence[Item] | None]:
        """Begin to wait; every live stream would hold the frame of a coroutine."""
        stream = self.stream
        if stream.ending is not None:  # it came while this task was due to run
            raise EndStream(stream.ending.outcome)
        self.timers.waiting_since = trio.current_time()
        return response.receive()

    async def _pass(self, items: Sequence[Item]) -> None:
        stream, timers, transcript = self.stream, self.timers, self.transcript
        failed_at = transcript.note(items)
        if transcript.begun and stream.state is State.WAITING:
            stream.step(Event.CONTENT)
            stream.first_content_at = trio.current_time()
        if failed_at is not None:
            items = items[:failed_at]
        if items:
            if timers.heartbeat_done is not None:
                await timers.writable()
            if stream.request.whole and transcript.complete:
                # Behind the head of a document nothing else can be told. So what has
                # ended the stream by now does so before it.
                await trio.lowlevel.checkpoint_if_cancelled()
                stream.seal()
            events, size = await self.responder.deliver(items)
            if size:
                stream.blocks += 1
                stream.bytes_out += size
            if events:
                now = timers.sent_at = trio.current_time()
                if stream.delivered_at is not None:
                    stream.on_gap(now - stream.delivered_at)
                stream.delivered_at = now
                stream.events += events
        if failed_at is not None:
            transcript.fail()

    async def write_ending(self) -> None:
        """Write the terminal event, within a bound, if the client can still be told."""
        ending = self.stream.ending
        assert ending is not None
        with trio.move_on_after(self.stream.budgets.write_s) as terminal_scope:
            self.stream.scopes = {"terminal_event": terminal_scope}
            self.timers.waiting_since = None  # a heartbeat now would be a second writer
            await self.timers.writable()
            # Before the client is told: it may ask again before this task goes on.
            self.stream.release_permit()
            self.stream.tell_bill()
            told = await self.responder.ended(ending, self.stream.answer)
            self.stream.told = told
            if told:
                events, size = self.responder.held
                self.stream.blocks += events
                self.stream.events += events
                self.stream.bytes_out += size
