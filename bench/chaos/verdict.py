"""What must hold once all is quiet, from what clients, logs, metrics and Valkey say."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

from bench.chaos.clients import Sight
from bench.chaos.faults import Fault
from bench.chaos.hosts import LIMIT, Host

SLACK_S: Final = 2.0
DEADLY: Final = {"kill-worker", "kill-host"}
_ENDED: Final = re.compile(r"(?m)^trio_ai_stream_streams_total\{[^}]*\} (\S+)$")
_DROPPED: Final = re.compile(r"(?m)^trio_ai_stream_log_records_dropped_total (\S+)$")
BY_END: Final = {
    "done": {"completed"},
    "": {"client_disconnected", "client_stalled", "shutdown", "completed"},
}


@dataclass(frozen=True, slots=True)
class Quiet:
    """What the parts said after the last fault, when all clients had gone."""

    streams: int  # that Valkey counts
    clients: int
    listed: list[str]  # streams that the hosts list
    metrics: list[str]  # one text for each host
    works: list[str]  # the end of a new stream, for each host


def complaints(
    hosts: list[Host], sights: list[Sight], faults: list[Fault], quiet: Quiet
) -> list[str]:
    """Return what does not add up; empty is good.

    Excused is what nobody can know: a killed process cannot tell what it was doing, a
    log that nobody reads drops records, and a client behind a fault sees no end.
    """
    found = []
    if quiet.streams or quiet.clients:
        found.append(f"Valkey counts {quiet.streams} streams of {quiet.clients}")
    found += [f"{name} is still listed" for name in quiet.listed]
    for number, end in enumerate(quiet.works):
        if end != "done":
            found.append(f"host {number} answers a new stream with {end!r}")
    found += [f"{one.request_id} got 500" for one in sights if one.status == 500]
    for number, host in enumerate(hosts):
        found += [
            f"host {number} logged {record['message']}: {record['exception'][-2000:]}"
            for record in host.records
            if record.get("exception") and "EMFILE" not in record["message"]
        ]
        mine = [one for one in sights if one.host == number]
        around = [fault for fault in faults if fault.host == number]
        found += _records(host, mine, around)
        deaths = sum(fault.kind in DEADLY for fault in around)
        found += _totals(number, host, quiet.metrics[number], deaths)
    found += [
        f"{one.request_id} ({one.temper}) got {one.status}, {one.end!r}, and no fault"
        for one in sights
        if one.temper == "normal"
        and one.end != "done"
        and one.status not in {429, 503}
        and not _disturbed(one, faults)
    ]
    return found


def _records(host: Host, sights: list[Sight], faults: list[Fault]) -> list[str]:
    ended = [record for record in host.records if record["event"] == "stream_ended"]
    count = Counter(str(record["request_id"]) for record in ended)
    found = [f"{name} has {n} records" for name, n in count.items() if n > 1]
    outcomes = {str(record["request_id"]): record["outcome"] for record in ended}
    for one in sights:
        outcome = outcomes.get(one.request_id)
        if outcome is None:
            silent = _disturbed(one, faults, DEADLY | {"slow-log"})
            if one.status == 200 and not silent:
                found.append(f"{one.request_id} ({one.temper}) has no record")
        elif one.status not in {0, 200}:
            found.append(f"{one.request_id} got {one.status} and has a record")
        elif one.end in BY_END:
            whole = outcome in BY_END[one.end]
            if not whole and not (one.end == "" and _disturbed(one, faults)):
                found.append(f"{one.request_id} saw {one.end!r}, recorded {outcome}")
        elif outcome == "completed":
            found.append(f"{one.request_id} was told {one.end}, recorded {outcome}")
    return found


def _totals(number: int, host: Host, metrics: str, deaths: int) -> list[str]:
    recent = host.records[host.since :]
    logged = sum(record["event"] == "stream_ended" for record in recent)
    counted = sum(float(value) for value in _ENDED.findall(metrics))
    dropped = sum(float(value) for value in _DROPPED.findall(metrics))
    if logged <= counted <= logged + dropped + deaths * LIMIT:
        return []
    return [f"host {number}: {counted:g} streams counted, {logged} logged, {dropped:g}"]


def _disturbed(
    sight: Sight, faults: list[Fault], kinds: set[str] | None = None
) -> bool:
    """Whether a fault fell into the time of a request."""
    return any(
        fault.at_s - SLACK_S <= sight.over
        and sight.began <= fault.at_s + fault.for_s + SLACK_S
        for fault in faults
        if kinds is None or fault.kind in kinds
    )
