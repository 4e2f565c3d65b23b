"""Scripts: every preset as a schedule of steps, and the stream they add up to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulator.client import Response, body_of
from trio_ai_stream.simulator.faults import PRESETS, parse_model
from trio_ai_stream.simulator.schedule import (
    BLOCK,
    End,
    Generation,
    Pause,
    ResponsePhase,
    SimulatedHead,
    Step,
    StreamSchedule,
    Write,
    status_script,
)
from trio_ai_stream.simulator.simulated_chat import SimulatedChat, parse_chat

GENERATION = Generation("gen-1", 1)
MANY = 5000  # steps after which an endless script is believed to be one


def chat(model: str, **fields: Any) -> SimulatedChat:
    """Return the parsed request for a model."""
    return parse_chat(body_of(model, **fields), "simulator/fast")


def steps(model: str, **fields: Any) -> list[Step]:
    """Return the steps of a stream, at most MANY."""
    script = StreamSchedule(chat(model, **fields), GENERATION, lambda: 7).steps()
    return list(itertools.islice(script, MANY))


def rendered(model: str, **fields: Any) -> Response:
    """Return a stream's body as a response."""
    script = steps(model, **fields)
    body = b"".join(step.data for step in script if isinstance(step, Write))
    return Response(200, {}, body, True, [])


def pauses(script: list[Step]) -> list[float]:
    """Return the pauses that take time."""
    return [step.seconds for step in script if isinstance(step, Pause) if step.seconds]


HEALTHY = [
    name
    for name in PRESETS
    if (faults := parse_model(f"simulator/{name}")).status is None
    and faults.end == "ok"
    and faults.corrupt in ("none", "fields")
    and not faults.endless
    and not faults.trailing
    and math.inf not in (faults.headers_ms, faults.first_token_ms, faults.comments_ms)
]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_renders(name: str) -> None:
    """Every preset is a script that begins with a pause and one head, then a body."""
    faults = parse_model(f"simulator/{name}")
    script: Iterator[Step]
    if faults.status is not None:
        script = status_script(faults)
    else:
        script = StreamSchedule(
            chat(f"simulator/{name}"), GENERATION, lambda: 7
        ).steps()
    first = list(itertools.islice(script, MANY))
    assert [isinstance(step, SimulatedHead) for step in first].count(True) == 1
    assert isinstance(first[0], Pause)
    assert isinstance(first[1], SimulatedHead)
    ends = [step for step in first if isinstance(step, End)]
    assert ends in ([], first[-1:])


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_stream_is_whole(name: str) -> None:
    """A healthy preset ends with finish_reason, one usage and [DONE], in this order."""
    response = rendered(f"simulator/{name}")
    events = response.events
    assert response.data[-1] == b"[DONE]"
    reasons = [c["finish_reason"] for e in events for c in e["choices"]]
    assert [reason for reason in reasons if reason] == reasons[-1:]
    usages = [event["usage"] for event in events if "usage" in event]
    assert len(usages) == 1
    assert "usage" in events[-1]
    assert len({(event["id"], event["model"]) for event in events}) == 1


def test_no_delay_writes_blocks() -> None:
    """Without a delay many events are one write; with a delay each is its own."""
    fast = [
        s.events for s in steps("simulator/fast?chunks=300") if isinstance(s, Write)
    ]
    assert fast == [BLOCK, BLOCK, 300 - 2 * BLOCK, 3]
    paced = steps("simulator/fast?chunks=3&delay_ms=1")
    assert [s.events for s in paced if isinstance(s, Write)] == [1, 1, 1, 3]
    burst = steps("simulator/fast?chunks=5&burst=2&delay_ms=1")
    assert [s.events for s in burst if isinstance(s, Write)] == [2, 2, 1, 3]


def test_pauses_are_the_keys() -> None:
    """Each time key is a pause of its own, in order."""
    script = steps(
        "simulator/fast?chunks=3&headers_ms=1000&first_token_ms=2000&delay_ms=10"
        "&comments_ms=30&comment_every_ms=20&done_ms=50"
    )
    expected = [1, 0.02, 0.01, 2, 0.01, 0.01, 0.01, 0.05]
    assert pauses(script) == pytest.approx(expected)


def test_jitter_is_seeded() -> None:
    """Jitter adds to each delay within its bound, the same for the same prompt."""
    model = "simulator/fast?chunks=50&delay_ms=10&jitter_ms=5"
    first = pauses(steps(model))
    assert first == pauses(steps(model)) != pauses(steps(model, prompt="other"))
    assert all(0.01 <= pause <= 0.015 for pause in first)
    assert len(set(first)) > 40


@pytest.mark.parametrize("at", [0, 1, 5, 40])
@pytest.mark.parametrize("end", ["silence", "comments", "drop", "reset", "truncate"])
def test_an_ending_comes_after_so_many_events(end: str, at: int) -> None:
    """A stream that breaks has sent `at` content events and no finish_reason."""
    script = steps(f"simulator/fast?chunks=40&end={end}&at={at}")
    events = sum(step.events for step in script if isinstance(step, Write))
    assert events == at
    expected = {"drop": End.FIN, "reset": End.RST}.get(end)
    assert (script[-1] if isinstance(script[-1], End) else None) == expected
    assert (script[-1] == Pause(math.inf)) == (end == "silence")
    assert (len(script) == MANY) == (end == "comments")


@pytest.mark.parametrize(
    ("query", "code", "choices", "done"),
    [
        ("code=429", 429, 1, True),
        ("code=server_error&error_done=0", "server_error", 1, False),
        ("shape=empty", 502, 0, True),
        ("shape=bare", 502, None, True),
    ],
)
def test_an_error_in_the_stream(
    query: str, code: object, choices: int | None, done: bool
) -> None:
    """An error event has the code, the choices and the end mark that were asked for."""
    response = rendered(f"simulator/fast?end=error&at=2&{query}")
    assert (response.data[-1] == b"[DONE]") == done
    error = response.events[-1]
    assert error["error"]["code"] == code
    found = len(error["choices"]) if "choices" in error else None
    assert found == choices
    assert len(response.events) == 3


def test_usage_places() -> None:
    """Usage stands in its own event, on the last choice's, or nowhere."""
    own, last, none = (
        rendered(f"simulator/fast?chunks=1&usage={place}").events
        for place in ("own", "last", "none")
    )
    assert own[-1]["choices"] == []
    assert last[-1]["choices"][0]["finish_reason"] == "stop"
    assert "usage" in last[-1]
    assert not any("usage" in event for event in none)


def test_no_done() -> None:
    """`no_done` is a whole stream without the end mark."""
    response = rendered("simulator/no-done")
    assert b"[DONE]" not in response.data
    assert response.events[-2]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_fragments_are_the_same_bytes(size: int) -> None:
    """Fragmenting changes where writes are cut, and neither bytes nor counts."""
    model = "simulator/fast?chunks=5"
    whole, cut = steps(model), steps(f"{model}&fragment={size}")
    writes = [step for step in cut if isinstance(step, Write)]
    assert max(len(step.data) for step in writes) <= size
    body = rendered(model).body.replace(b"chunks=5", b"chunks=5&fragment=%d" % size)
    assert b"".join(step.data for step in writes) == body
    for count in ("events", "tokens"):
        assert sum(getattr(step, count) for step in writes) == sum(
            getattr(step, count) for step in whole if isinstance(step, Write)
        )


def test_stamp_reads_the_clock_when_the_step_is_asked_for() -> None:
    """A stamped event holds the clock's reading at the moment of its writing."""
    now = [0]
    model = "simulator/fast?chunks=3&stamp=1&delay_ms=1"
    script = StreamSchedule(chat(model), GENERATION, lambda: now[0]).steps()
    found = []
    for step in script:
        now[0] += 1
        if isinstance(step, Write) and step.phase is ResponsePhase.STREAMING:
            found.append((Response(200, {}, step.data, True, []).content, now[0] - 1))
    assert found == [(f"{at} ", at) for _, at in found]
    assert len(found) == 3


def test_corrupt_event_stands_between_healthy_ones() -> None:
    """A corrupt event comes after `at` events; the rest of the answer follows it."""
    response = rendered("simulator/giant?at=2&chunks=4&size=9")
    contents = [
        event["choices"][0]["delta"]["content"] for event in response.events[:5]
    ]
    assert contents[2] == "x" * 9
    healthy = rendered("simulator/fast?chunks=4").content
    assert "".join(contents[:2] + contents[3:]) == healthy


def test_debug_is_echoed_first() -> None:
    """`debug.echo_upstream_body` gives a first event with empty choices."""
    first = rendered("simulator/fast", debug={"echo_upstream_body": True}).events[0]
    assert first["choices"] == []
    assert "echo_upstream_body" in first["debug"]
