"""The mutants: each a mistake that was made somewhere, or could be made here."""

from __future__ import annotations

from typing import Final

from tests.sweep.mutants.mutant import Mutant

_CHECKPOINT: Final = "await __import__('trio').lowlevel.checkpoint()"
_RELAY: Final = (
    Mutant(
        "unbounded-shield",
        "the clean-up's shield has no deadline",
        "relay",
        "trio.move_on_after(_1, shield=True)",
        "trio.CancelScope(shield=True)",
    ),
    Mutant(
        "long-shield",
        "the clean-up's shield has a deadline that helps nobody",
        "relay",
        "trio.move_on_after(_1, shield=True)",
        "trio.move_on_after(30 * _1, shield=True)",
    ),
    Mutant(
        "no-shield",
        "the clean-up is cancelled with the rest: a whole answer's connection is lost",
        "relay",
        "trio.move_on_after(_1, shield=True)",
        "trio.move_on_after(_1)",
    ),
    Mutant(
        "swallow-cancelled",
        "the relay takes Cancelled for an error of its own",
        "_Conversation.run",
        "Exception",
        "BaseException",
    ),
    Mutant(
        "second-terminal",
        "a stream that the drain ended is told so twice",
        "relay",
        "await _1.write_ending()",
        "await _1.write_ending()\n"
        "if stream.ending.outcome is Outcome.SHUTDOWN:\n"
        "    await _1.write_ending()",
    ),
    Mutant(
        "unbounded-farewell",
        "the terminal event waits for the client for ever",
        "relay:_Conversation.write_ending",
        "trio.move_on_after(_1)",
        "trio.CancelScope()",
    ),
    Mutant(
        "two-writers",
        "the terminal event does not wait for a heartbeat under way",
        "relay:_Conversation.write_ending",
        "await _1.writable()",
    ),
    Mutant(
        "heartbeat-in-farewell",
        "the timers go on while the terminal event is written (found by the sweep)",
        "relay:_Conversation.write_ending",
        "_1.waiting_since = None",
    ),
    Mutant(
        "step-after-end",
        "an answer that arrives after the ending is taken up (found by the sweep)",
        "relay:_attempt",
        "_1.ending is not None",
        "False",
    ),
    Mutant(
        "read-after-end",
        "the relay reads on after the ending (found by the sweep)",
        "_Conversation._receive",
        "_1.ending is not None",
        "False",
    ),
    Mutant(
        "cut-after-finish",
        "a connection that breaks after the finish makes a failure of a whole answer",
        "_await_done",
        "_1.ending is not None",
        "True",
    ),
    Mutant(
        "retry-after-content",
        "a stream that has delivered content is retried",
        "_wait_before_retry",
        "_1.events or _2 or _3",
        "False",
    ),
    Mutant(
        "retry-leaks",
        "a retry forgets the connection of the attempt before",
        "relay:_attempt",
        "_1.release_upstream()",
        "_1.source = None",
    ),
    Mutant(
        "still-to-be-watched",
        "a stream that is over stays in the queue of timers to be started",
        "StreamTimers.end",
        "_1.leave(_2)",
    ),
    Mutant(
        "watch-outlives",
        "a heartbeat is written by a task of the server's",
        "StreamTimers.look",
        "_1.start_soon",
        "trio.lowlevel.spawn_system_task",
    ),
)
_REQUEST: Final = (
    Mutant(
        "release-when-told",
        "the permit comes back only from a stream whose client could be told its end",
        "ASGIConnection.__call__",
        "_1.stream is not None",
        "_1.stream is not None and _1.stream.told",
    ),
    Mutant(
        "await-after-permit",
        "a checkpoint between taking the permit and handing it to the request",
        "admit_stream",
        "if not isinstance(_1, Permit):\n    ...",
        f"{_CHECKPOINT}\nif not isinstance(_1, Permit):\n    ...",
    ),
    Mutant(
        "await-before-entry",
        "a checkpoint between the registry's entry and the request's",
        "admit_stream",
        "_1.registry.add(_2)",
        f"_1.registry.add(_2)\n{_CHECKPOINT}",
    ),
    Mutant(
        "drain-admits",
        "a stream that was on its way when the drain began is admitted",
        "admit_stream",
        "_1.draining.is_set()",
        "False",
    ),
    Mutant(
        "gone-unheard",
        "the client's going is recorded, and nothing is cancelled",
        "RequestContext.client_left",
        "self.client_scope.cancel(...)",
    ),
    Mutant(
        "stall-unrecorded",
        "a client that stalled is recorded like one that left",
        "RequestContext.client_left",
        "self.stream.end(_1)",
    ),
    Mutant(
        "gone-untold",
        "nobody is told that the client is gone",
        "ASGIConnection.__call__",
        "_1.exchange.on_disconnect(...)",
    ),
    Mutant(
        "cut-by-shutdown-unrecorded",
        "a stream that dies with a draining server is recorded as the client's going",
        "ASGIConnection.__call__",
        "services.registry.draining.is_set()",
        "False",
    ),
)
_STREAM: Final = (
    Mutant(
        "end-keeps-upstream",
        "the ending is decided, and upstream goes on until the relay comes to it",
        "Stream.end",
        "_1 is not Outcome.COMPLETED",
        "False",
    ),
    Mutant(
        "late-answer-kept",
        "an answer that arrives after the ending keeps its connection",
        "Stream.attach_response",
        "self.ending is not None",
        "False",
    ),
    Mutant(
        "stop-is-only-noted",
        "a stream that is cancelled by id is not interrupted",
        "Stream.stop",
        "self.stop_scope.cancel(...)",
    ),
    Mutant(
        "last-cause-wins",
        "a cause that comes later replaces the first",
        "Stream.end",
        "if self.ending is not None:\n    return False",
        "if self.ending is not None:\n"
        "    self.ending = Ending(outcome, self.ending.at, None, detail)\n"
        "    return False",
    ),
    Mutant(
        "drain-forgets-waiting",
        "the drain tells only streams that have content",
        "registry:end_streams",
        "_1.stop(_2)",
        "if _1.events:\n    _1.stop(_2)",
    ),
    Mutant(
        "idle-never-fires",
        "the timers see upstream's silence and let it be",
        "StreamTimers.look",
        "_1.cancel(...)",
    ),
)
_TRANSPORT: Final = (
    Mutant(
        "refusal-not-held",
        "a refusal is read on after the ending, until the cancel comes there (found by"
        " the sweep)",
        "OpenRouter.open",
        "_1(_2.body.abort)",
    ),
    Mutant(
        "abort-keeps-socket",
        "an aborted body leaves its connection open",
        "TransportBody.abort",
        "_1.discard(_2)",
    ),
    Mutant(
        "cancelled-request-keeps-socket",
        "a request that is cancelled before its head leaves its connection open",
        "_try",
        "_1.discard(_2)\nraise",
        "raise",
    ),
    Mutant(
        "closed-connection-kept",
        "a connection closed while its answer came goes to the idle ones (found by the"
        " sweep)",
        "_exchange_large",
        "_1 is CLOSED_LINK",
        "False",
    ),
)
# Those that change a number or a promise, which the first sweep did not look at.
_COUNTS: Final = (
    Mutant(
        "told-never",
        "the record says that nobody was told",
        "relay:_Conversation.write_ending",
        "_1.told = _2",
        "_1.told = False",
    ),
    Mutant(
        "bytes-uncounted",
        "the record leaves out what was written",
        "_pass",
        "_1.bytes_out += _2",
    ),
    Mutant(
        "blocks-uncounted",
        "the record leaves out the writes",
        "_pass",
        "_1.blocks += 1",
    ),
    Mutant(
        "events-uncounted",
        "the record leaves out the events",
        "_pass",
        "_1.events += _2",
    ),
    Mutant(
        "attempts-doubled",
        "the record counts attempts that were not made",
        "relay:_attempt",
        "_1.attempts += 1",
        "_1.attempts += 5",
    ),
    Mutant(
        "attempts-uncounted",
        "the record leaves out the attempts",
        "relay:_attempt",
        "_1.attempts += 1",
    ),
    Mutant(
        "first-content-unrecorded",
        "the record leaves out when content came",
        "_pass",
        "_1.first_content_at = _2",
    ),
    Mutant(
        "latency-unrecorded",
        "the record leaves out when upstream was closed",
        "release_upstream",
        "self.upstream_closed_at = _1",
    ),
    Mutant(
        "recorded-twice",
        "a stream is recorded twice",
        "Stream.close",
        "self.on_close(_1, _2)",
        "self.on_close(_1, _2)\nself.on_close(_1, _2)",
    ),
    Mutant(
        "permit-kept",
        "the permit comes back only when the client is told",
        "Stream.close",
        "self.release_permit()",
    ),
    Mutant(
        "entry-kept",
        "the registry keeps a stream that is over",
        "Services.stream_closed",
        "self.registry.remove(_1)",
    ),
    Mutant(
        "first-token-ignored",
        "the budget of the first token is over, and nobody looks",
        "relay:_Conversation._converse",
        "first.cancelled_caught",
        "False",
    ),
    Mutant(
        "idle-ignored",
        "upstream's silence ends the wait, and the stream as if whole",
        "relay:_Conversation._converse",
        "idle.cancelled_caught",
        "False",
    ),
    Mutant(
        "deadline-ignored",
        "the deadline cuts the stream, and no ending says so",
        "_Conversation.run",
        "whole.cancelled_caught",
        "False",
    ),
    Mutant(
        "heartbeat-never-done",
        "a heartbeat that was written counts as under way",
        "_write_heartbeat",
        "_1.set()",
    ),
    Mutant(
        "request-not-held",
        "a request without its head is not closed by the ending",
        "_try",
        "on_abortable(partial(...))",
    ),
    Mutant(
        "live-count-kept",
        "a connection that went idle counts as live as well",
        "Pool.release",
        "_1.discard(_2)",
    ),
    Mutant(
        "discard-count-kept",
        "a connection that was closed counts as live",
        "Pool.discard",
        "_1.discard(_2)",
    ),
    Mutant(
        "dial-count-kept",
        "a dial that is over counts as under way",
        "upstream_transport:_open",
        "self._connecting -= 1",
    ),
    Mutant(
        "stop-of-ended",
        "a stop after the ending cancels what tells the client",
        "Stream.stop",
        "not _1",
        "False",
    ),
)
# Of metrics, which are compared with the records, and of the other parties.
_PARTIES: Final = (
    Mutant(
        "live-gauge-kept",
        "the gauge of live streams counts those that are over",
        "Metrics.stream_ended",
        'self._add("streams_live", _1, amount=-1)',
    ),
    Mutant(
        "bytes-unmetered",
        "the metrics leave out what was written",
        "Metrics.stream_ended",
        'self._add("sent_bytes", amount=_1)',
    ),
    Mutant(
        "outcome-unmetered",
        "the metrics leave out how streams end",
        "Metrics.stream_ended",
        'self._add("streams", _1, _2, _3)',
    ),
    Mutant(
        "cancelled-grant-kept",
        "a permit that Valkey grants as its request is cancelled is nobody's (a race)",
        "Leases.acquire",
        '_1.verdict == "granted"',
        "False",
    ),
    Mutant(
        "late-grant-kept",
        "a permit that Valkey grants after its request was cancelled is nobody's",
        "Leases._answer",
        "self._forget(_1)",
    ),
    Mutant(
        "bill-untold",
        "a stream's bill is told to nobody: its row is missing in the ledger",
        "Stream.tell_bill",
        "on_bill(_1)",
    ),
    Mutant(
        "error-after-the-last-event",
        "an API's own last event is followed by an error of ours",
        "NamedEventEncoder.ending",
        "self._over",
        "False",
    ),
    Mutant(
        "named-error-unsaid",
        "a stream of named events that failed ends without its error",
        "NamedEventEncoder.ending",
        "_1 is None",
        "True",
    ),
    Mutant(
        "early-answer-unheard",
        "a request goes on being sent after upstream has refused it",
        "_exchange_large",
        '_1.cancel(reason="upstream answered early")',
    ),
)
MUTANTS: Final[dict[str, Mutant]] = {
    mutant.name: mutant
    for mutant in (*_RELAY, *_REQUEST, *_STREAM, *_TRANSPORT, *_COUNTS, *_PARTIES)
}
