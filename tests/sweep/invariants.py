"""What must hold after every run, whatever befell it: I1 to I12 (I9 needs sockets).

A check returns None, or what it found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.sweep import endings
from tests.sweep.endings import terminals
from tests.sweep.fidelity import wrong_outcome
from tests.sweep.judged import Judged
from tests.sweep.scenario import TARGET
from trio_ai_stream.stream.budgets import REUSE_S
from trio_ai_stream.wire.record import Outcome, Record

Check = Callable[[Judged], str | None]
EPSILON_S: Final = 1e-6
LONGEST_RUN_S: Final = 20 + 4 + REUSE_S  # the deadline, the last write, the clean-up
TOLD_S: Final = 4 + REUSE_S  # WRITE_TIMEOUT_SECS for the terminal event
LATE: Final = "no time was left for it: "  # by a cancel of the scope that gives it


def _record(run: Judged) -> Record | None:
    mine = [record for record in run.world.records if record.request_id == TARGET]
    return mine[0] if mine else None


def _did(run: Judged, *names: str) -> bool:
    return any(one.cause.name in names for one in run.acts)


def _upstream_closed(run: Judged) -> str | None:
    sighting, world = run.world.sighting, run.world
    if sighting is None:
        return None
    held = [wire for wire in world.network.wires if wire.owner == TARGET and wire.open]
    if sighting.generating and sighting.open_wires and held:
        return "upstream still answers on a connection that the server holds"
    return f"{world.left_open} connections outlive the server" * bool(world.left_open)


def _pool_whole(run: Judged) -> str | None:
    world, sighting = run.world, run.world.sighting
    if world.after is None or sighting is None or world.after.status != 200:
        return None
    if world.scenario.looks_up:
        return None  # the look-ups use the pool as well
    if sighting.in_use or sighting.idle != sighting.open_wires:
        return (
            f"{sighting.in_use} connections count as in use, {sighting.idle} as idle,"
            f" and {sighting.open_wires} are open"
        )
    if any(one.cause.upstream for one in run.acts):
        return None  # what upstream broke may be found broken only by using it
    record = _record(run)
    whole = record is not None and record.outcome is Outcome.COMPLETED
    keeps = world.scenario.keeps
    if whole and keeps and not sighting.kept_wires:
        said = "the answer was whole, and its connection was not kept"
        return LATE * run.unkept + said
    attempts = [one.attempts for one in world.records if one.request_id == "after"]
    if sighting.open_wires and world.dials - sighting.dials >= max(attempts, default=1):
        return "a connection was kept but not used by the next request"
    return None


def _no_task_left(run: Judged) -> str | None:
    sighting = run.world.sighting
    if sighting is None:
        return None
    gone = _did(run, "kill")
    extra = () if gone else sighting.new_tasks
    return f"tasks are left: {', '.join(extra)}" if extra else None


def _one_record(run: Judged) -> str | None:
    count = sum(record.request_id == TARGET for record in run.world.records)
    expected = int(run.world.stream is not None)
    return None if count == expected else f"{count} records, expected {expected}"


def _terminal_event(run: Judged) -> str | None:
    world, record = run.world, _record(run)
    shape = world.scenario.shape
    found = terminals(world.client, shape)
    if len(found) > 1:
        return f"{len(found)} terminal events: {', '.join(found)}"
    if found and not endings.ends_with_terminal(world.client, shape):
        return "something follows the terminal event"
    if world.client.late_writes > 1:  # one may be under way; it goes nowhere
        return f"{world.client.late_writes} writes after the client was known gone"
    if world.client.overlaps:
        return f"{world.client.overlaps} writes began while another was under way"
    if world.client.gone or _did(run, "kill", "cancel"):
        return None
    if world.scenario.read_every_s > TOLD_S:
        return None  # this client does not read, so it may or may not be told
    said = _untold(run, found, record)
    return said and LATE * run.untold + said


def _untold(run: Judged, found: list[str], record: Record | None) -> str | None:
    """Say how a client that is there was not told the ending."""
    world, shape = run.world, run.world.scenario.shape
    if world.client.status is None or not world.client.response_ended:
        return "the client waits, and its response is not whole"
    if record is None:
        return None
    expected = endings.ERROR_TYPES.get(record.outcome)
    if record.outcome is Outcome.COMPLETED:
        expected = "done"
    if shape in {"document", "messages", "responses"} and found == ["done"]:
        return None  # a document that is on its way has no room for an error
    if shape == "responses" and found == ["upstream_failed"]:
        return None  # nor after upstream's own last event, which was being written
    if found == [world.scenario.tells] and record.outcome is world.scenario.ends:
        return None
    if not found or (expected is not None and found != [expected]):
        told = ", ".join(found) or "nothing"
        return f"{record.outcome}: the client was told {told}"
    return None if record.told else "the client was told, and the record denies it"


def _record_agrees(run: Judged) -> str | None:
    """Compare the record's numbers with what was seen, in both directions."""
    world, record = run.world, _record(run)
    if record is None or world.sighting is None:
        return None
    shape = world.scenario.shape
    unheard = world.client.gone and not world.scenario.reports_disconnect
    if record.told and not terminals(world.client, shape) and not unheard:
        return "the record says that the client was told, and nothing told it"
    content = (record.events > 0, record.blocks > 0, record.bytes_out > 0)
    begun = record.first_content_s is not None and any(content)
    if shape in {"messages", "responses"}:  # events of another kind come first
        begun = any(content)
    if len({*content, begun}) > 1:
        return f"events {record.events}, blocks {record.blocks}, {record.bytes_out} B"
    if record.bytes_out > len(world.client.body) and not world.client.gone:
        return f"{record.bytes_out} B delivered, {len(world.client.body)} arrived"
    asked = sum(wire.requests for wire in world.network.wires)
    dialled = sum(dial.whose == "body" for dial in world.network.dials)
    if record.attempts < asked - record.attempts * (world.scenario.warm > 0):
        return f"{asked} requests went out in {record.attempts} attempts"
    cut = sum(one.cause.upstream for one in run.acts)  # an attempt before its dial
    if record.attempts > asked + dialled + cut + 1:
        return f"{record.attempts} attempts with {asked} requests, {dialled} dials"
    late = record.cancel_latency_s
    if late is not None and (late > EPSILON_S or record.outcome is Outcome.COMPLETED):
        return f"{record.outcome}: upstream was closed {late:.3f} s after the cause"
    if late is None and world.held_at_end and record.outcome is not Outcome.COMPLETED:
        return f"{record.outcome}: upstream was held, and no latency is recorded"
    return None


def _metrics_agree(run: Judged) -> str | None:
    """Compare what the metrics have counted since the run began with the records."""
    sighting = run.world.sighting
    return None if sighting is None else "; ".join(sighting.miscounted) or None


def _permits_back(run: Judged) -> str | None:
    seen = run.world.sighting
    if run.world.counted_last:
        return f"Valkey counts {run.world.counted_last} streams, and none lives"
    if seen is not None and seen.counted:
        return f"Valkey counts {seen.counted} streams a round trip after the last"
    if seen is None or not (seen.permits_held or seen.live_streams or seen.unwatched):
        return None
    return f"{seen.permits_held} permits, {seen.unwatched} watches, {seen.live_streams}"


def _silent_upstream(run: Judged) -> str | None:
    ended = run.world.ended_at_tick
    if ended is None:
        return None
    network = run.world.network
    dials = sum(d.tick > ended and d.whose == "body" for d in network.dials)
    sent = [one for wire in network.wires for one in wire.sends]
    sends = sum(tick > ended and owner == TARGET for tick, owner in sent)
    if dials or sends > 1:  # one may be under way
        return f"{dials} dials and {sends} sends upstream after the ending"
    return None


def _nothing_escapes(run: Judged) -> str | None:
    world = run.world
    if world.client.error is not None:
        return f"the request raised {world.client.error!r}"
    if world.escaped:
        return f"the server raised {world.escaped[0]!r}"
    return None


def _still_serves(run: Judged) -> str | None:
    world = run.world
    if world.health is None or world.after is None:
        return None if _did(run, "kill") else "the server went away"
    if world.health.status != 200:
        return f"/health answers {world.health.status}"
    if world.registry.draining.is_set():
        ok = world.after.status == 503
        return None if ok else f"a draining server answers {world.after.status}"
    scenario = world.scenario
    shape = scenario.shape if scenario.repeated else "chat"
    natural = (scenario.ends if scenario.repeated else None) or Outcome.COMPLETED
    again = [one.outcome for one in world.records if one.request_id == "after"]
    if again == [natural] and len(terminals(world.after, shape)) == 1:
        return None
    return f"asked again: {again}, {world.after.status}, {world.after.body[-80:]!r}"


def _drains(run: Judged) -> str | None:
    for one in run.acts:
        early = one.cause.name in {"drain", "begin-drain"} and one.phase == "admission"
        if early and run.world.stream is not None:
            return "a stream was admitted while the server drained"
    return None


def _exit_bounded(run: Judged) -> str | None:
    world, record = run.world, _record(run)
    if world.ended_at is None or world.sighting is None or world.stream is None:
        return None  # what is no stream, the server bounds
    took = world.ended_at - world.began_at
    limit, since = LONGEST_RUN_S, "the start"
    for one in run.acts:
        bound = one.cause.bound_s
        told = one.cause.outcome is not None and not one.cause.upstream
        decided = record is None or record.outcome is one.cause.outcome
        if bound is None and told and decided:  # I6 says whether it had to
            bound = TOLD_S
        if bound is None:
            continue
        if record is not None and record.outcome is Outcome.COMPLETED:
            bound = max(bound, REUSE_S)
        if world.ended_at - one.at > bound + EPSILON_S:
            took, limit, since = world.ended_at - one.at, bound, one.cause.name
    return f"{took:.3f} s from {since}, at most {limit:g}" if took > limit else None


def _bill_kept(run: Judged) -> str | None:
    """Compare the ledger with the records, once the server has stopped."""
    billed = run.world.billed
    ended = sorted(record.request_id for record in run.world.records)
    return None if billed in (None, ended) else f"{billed}, not {ended}"


def _others_untouched(run: Judged) -> str | None:
    neighbour = run.world.neighbour
    general = any(one.cause.server for one in run.acts) or _did(run, "refuse")
    if neighbour is None or general:
        return None
    if run.world.scenario.ends is None and neighbour.status == 503:
        return None
    told = terminals(neighbour, "chat")
    return None if told == ["done"] else f"its neighbour was told {told}"


CHECKS: Final[dict[str, Check]] = {
    "I1 upstream closed": _upstream_closed,
    "I2 no task left": _no_task_left,
    "I3 one record": _one_record,
    "I3 one terminal event": _terminal_event,
    "I3 record agrees": _record_agrees,
    "I3 metrics agree": _metrics_agree,
    "I4 permit and entry released": _permits_back,
    "I6 cause recorded": wrong_outcome,
    "I8 pool whole": _pool_whole,
    "I10 nothing escapes": _nothing_escapes,
    "I11 nothing sent upstream": _silent_upstream,
    "I11 others untouched": _others_untouched,
    "I13 bill kept": _bill_kept,
    "I12 still serves": _still_serves,
    "I12 drains": _drains,
    "exit bounded": _exit_bounded,
}


def violations(run: Judged) -> list[str]:
    """Return the invariants that do not hold, each with what was found."""
    found = [(name, check(run)) for name, check in CHECKS.items()]
    return [f"{name}: {what}" for name, what in found if what]
