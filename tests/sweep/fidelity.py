"""Which outcomes may be recorded after what was done: the first cause wins.

A natural end is allowed only where it really came first. Trio's rule decides that: a
task that was due to run with a result when the cancel was called takes its result, and
the Cancelled at its next checkpoint (python-trio/trio#2973).
"""

from __future__ import annotations

import trio

from tests.sweep.causes import CAUSES, Cause, Met
from tests.sweep.judged import Judged
from trio_ai_stream.stream.retries import ATTEMPTS
from trio_ai_stream.wire.record import Outcome, Record

CLIENT = frozenset({"disconnect", "stall"})
BUDGETS = frozenset({"first-token", "idle", "whole"})
UPSTREAM = frozenset({"eof", "reset", "error"})


def wrong_outcome(run: Judged) -> str | None:
    """Say how the recorded outcome differs from what happened, if it does."""
    records = [r for r in run.world.records if r.request_id == run.world.client.name]
    if not records:
        return None
    outcome = records[0].outcome
    allowed = _allowed(run) | _by_another_way(run, records[0])
    if outcome in allowed:
        return None
    names = "+".join(one.cause.name for one in run.acts) or "nothing"
    expected = " or ".join(sorted(allowed))
    return f"{names} was recorded as {outcome}, expected {expected}"


def _allowed(run: Judged) -> set[Outcome]:
    """Return the outcomes that may be recorded."""
    acts = run.acts
    allowed: set[Outcome] = set()
    for number, injection in enumerate(acts):
        if number and injection.decided and not acts[0].decided:
            break  # the first act, or nature after it, had decided already
        allowed |= _after(injection, run) | injection.cause.also
    return allowed or _natural(run)


def _by_another_way(run: Judged, record: Record) -> set[Outcome]:
    """Return what a stream comes to that the acts sent another way, if this one did.

    Another attempt: the wait for it leaves less time for the first content, and what
    the scenario's upstream fails with at first may find no attempt left. And a stream
    that another task of the server's ends may be ended by it before its own task has
    its turn to take a cancel.
    """
    world, found = run.world, set[Outcome]()
    scenario, stream = world.scenario, world.stream
    if stream is not None and record.attempts > 1 and any(map(_may_retry, run.acts)):
        if world.decided_at == stream.began_at + stream.budgets.first_token_s:
            found.add(Outcome.FIRST_TOKEN_TIMEOUT)
        if scenario.fails is not None and record.attempts == ATTEMPTS:
            found.add(scenario.fails)
    if scenario.tells and record.detail == scenario.tells:
        found |= _natural(run)
    return found


def _may_retry(act: Met) -> bool:
    return act.cause.upstream and not act.decided and not act.begun


def _natural(run: Judged) -> set[Outcome]:
    ends = run.world.scenario.ends
    return {Outcome.COMPLETED} if ends is None else {ends}


def _after(injection: Met, run: Judged) -> set[Outcome]:
    """Return what one act allows."""
    cause, natural = injection.cause, _natural(run)
    if injection.decided or cause.name in {"begin-drain", "own"}:
        return natural
    stream = run.world.stream
    finished = injection.finished or (
        cause.name == "whole"
        and stream is not None
        and stream.answer.finish_reason is not None
    )
    if finished and cause.name in UPSTREAM | {"whole"}:
        # A whole answer stays whole; an error of upstream's or a time that is over
        # while something of it is written says otherwise.
        broken = cause.name in {"eof", "reset"}
        return natural | (set() if broken or cause.outcome is None else {cause.outcome})
    if cause.name == "eof" and injection.sent:
        return natural  # what is in flight arrives, and makes the answer whole
    if cause.name in UPSTREAM:
        return {Outcome.UPSTREAM_FAILED} | (
            natural - {Outcome.COMPLETED} if injection.begun else natural
        )
    if cause.outcome is None:
        return natural | {Outcome.UPSTREAM_UNREACHABLE}
    own = {cause.outcome}
    fails = run.world.scenario.fails
    if cause.name in BUDGETS and fails is not None:
        # Upstream failed first; then no time was left to ask it again.
        own |= _unless(_must_win(cause, injection, run), {fails})
    if cause.name in {"kill", "cancel"} and run.world.registry.draining.is_set():
        own = {Outcome.SHUTDOWN}
    return own | _unless(_must_win(cause, injection, run), natural)


def _must_win(cause: Cause, injection: Met, run: Judged) -> bool:
    """Tell whether nothing could come between an act and the ending."""
    if cause.name in CLIENT:
        noticed, ended = run.world.client.gone_noticed, run.world.ended_at_tick
        return noticed is not None and (ended is None or ended >= noticed)
    if cause.name in BUDGETS:
        scope = injection.hit
        return isinstance(scope, trio.CancelScope) and scope.cancelled_caught
    if cause.name in {"kill", "cancel"}:
        return "deferred" not in injection.fates
    if cause is CAUSES["drain"]:
        return injection.phase != "admission"
    return True


def _unless(condition: bool, outcomes: set[Outcome]) -> set[Outcome]:
    return set() if condition else outcomes
