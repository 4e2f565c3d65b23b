"""Metrics: what they count, at what cost, and that several workers add up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from tests.support.descriptors import no_descriptors
from tests.support.records import ended
from trio_ai_stream.telemetry.families import FAMILIES, Family, Layout
from trio_ai_stream.telemetry.metrics import Metrics
from trio_ai_stream.telemetry.sampling import KEPT, run_sampling, sample_process
from trio_ai_stream.telemetry.slots import Slots
from trio_ai_stream.wire.problems import Fault
from trio_ai_stream.wire.record import Basis, Bill, Outcome

WORKER = """
import sys
from pathlib import Path
from tests.support.records import ended
from trio_ai_stream.telemetry.metrics import Metrics
metrics = Metrics(version="1", upstream="simulator", directory=Path(sys.argv[1]))
metrics.stream_started("/chat")
metrics.stream_started("/chat")
metrics.stream_ended(ended(first_content_s=0.2))
print("ready", flush=True)
sys.stdin.read()
"""


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return every sample by its short name and its label values."""
    _, body = metrics.render()
    return {
        (sample.name.removeprefix("trio_ai_stream_"), *sample.labels.values()): (
            sample.value
        )
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def metrics(directory: Path | None = None) -> Metrics:
    return Metrics(version="1.2", upstream="simulator", directory=directory)


@contextmanager
def worker(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(directory)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_a_streams_life_is_counted() -> None:
    """Start and end of a stream move every number that its record speaks of."""
    subject = metrics()
    subject.stream_started("/chat")
    assert values(subject)["streams_live", "/chat"] == 1
    subject.content_gap(0.02)
    subject.stream_ended(
        ended(
            outcome=Outcome.CANCELLED,
            fault=Fault.CALLER,
            duration_s=3.0,
            first_content_s=0.3,
            cancel_latency_s=0.002,
            events=7,
            blocks=4,
            bytes_out=900,
            bill=Bill(Basis.EXACT, prompt_tokens=11, completion_tokens=13),
        )
    )
    found = values(subject)
    assert found["streams_live", "/chat"] == 0
    assert found["streams_total", "/chat", "caller", "cancelled"] == 1
    assert found["stream_duration_seconds_sum",] == 3.0
    assert found["time_to_first_content_seconds_count",] == 1
    assert found["cancellation_latency_seconds_bucket", "0.0025"] == 1
    assert found["cancellation_latency_seconds_bucket", "0.001"] == 0
    assert found["event_gap_seconds_bucket", "0.025"] == 1
    assert found["event_gap_seconds_bucket", "+Inf"] == 1
    assert found["sent_bytes_total",] == 900
    assert found["sent_events_total",] == 7
    assert found["sent_blocks_total",] == 4
    assert found["tokens_total", "input"] == 11
    assert found["tokens_total", "output"] == 13


def test_a_stream_without_content_has_no_time_to_first_content() -> None:
    """What did not happen is not observed as zero."""
    subject = metrics()
    subject.stream_started("/chat")
    subject.stream_ended(ended())
    found = values(subject)
    assert found["time_to_first_content_seconds_count",] == 0
    assert found["cancellation_latency_seconds_count",] == 0


def test_everything_else_is_counted() -> None:
    """Refusals, draining, the gate and the log have their numbers."""
    subject = metrics()
    subject.refused("rate_limit")
    subject.draining(active=True)
    subject.gate_fallback(active=True)
    subject.gate_fallback(active=False)
    subject.gate_failed("timeout")
    subject.redis_lost()
    subject.gate_decided(0.0007)
    subject.upstream_buffers(held=70_000, refused=2)
    subject.log_records_dropped(3)
    subject.log_records_dropped(5)
    found = values(subject)
    assert found["refused_total", "rate_limit"] == 1
    assert found["draining",] == 1
    assert found["gate_fallback",] == 0
    assert found["gate_failures_total", "timeout"] == 1
    assert found["redis_lost_total",] == 1
    assert found["gate_decision_seconds_bucket", "0.001"] == 1
    assert found["upstream_buffer_bytes",] == 70_000
    assert found["upstream_buffer_refused_total",] == 2
    assert found["log_records_dropped_total",] == 5
    assert found["workers",] == 1


async def test_what_others_count_is_brought_in_every_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The server's totals and the loop's lag are there without anybody scraping."""
    subject = metrics()
    counts = deque([(3, 5, {"flood": 1}), (2, 9, {"flood": 4, "unheard of": 2})])

    def sample(_resident: int) -> None:
        open_now, total, interventions = counts.popleft()
        subject.server_counts(
            connections_open=open_now,
            connections_total=total,
            interventions=interventions,
            workers_expected=2,
            certificate_expires_at=2e9,
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_sampling, subject, sample)
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel(reason="the test is over")
    found = values(subject)
    assert found["connections_open",] == 2
    assert found["connections_total",] == 9
    assert found["guard_interventions_total", "flood"] == 4
    assert found["guard_interventions_total", "other"] == 2
    assert found["loop_lag_seconds_count",] == 1
    assert found["loop_lag_seconds_sum",] == 0
    assert found["workers_expected",] == 2
    assert found["certificate_expiry_timestamp_seconds",] == 2e9
    assert found["process_resident_memory_bytes",] > 1e6
    assert found["process_max_fds",] >= found["process_open_fds",] > 2
    assert found["process_cpu_seconds_total",] > 0
    assert found["process_start_time_seconds",] > 1.7e9
    assert not counts


def test_who_has_no_descriptor_left_says_so() -> None:
    """It said that it had none open, so the alert ended when it was needed."""
    subject = metrics()
    with no_descriptors():
        sample_process(subject)
    found = values(subject)
    assert found["process_open_fds",] == found["process_max_fds",] > 0


async def test_a_long_turn_of_the_loop_is_seen(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A task that holds the thread shows in the gauge for a minute, and then goes."""
    subject = metrics()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_sampling, subject, lambda _resident: None)
        await trio.sleep(0.5)
        time.sleep(1)  # noqa: ASYNC251 - the loop is held on purpose
        await trio.sleep(1)
        assert values(subject)["loop_longest_turn_seconds",] >= 1
        await trio.sleep(KEPT + 1)
        assert values(subject)["loop_longest_turn_seconds",] < 1
        nursery.cancel_scope.cancel(reason="the test is over")


def test_requests_and_upstreams_answers_are_counted_by_status() -> None:
    """A status has its own series, or is `other`; none was sent to who left before."""
    subject = metrics()
    for status in (200, 200, 503, 599, None):
        subject.request_ended(status)
    for status in (200, 401, 429, 700):
        subject.upstream_answered(status)
    subject.ready(active=True)
    subject.upstream_key_rejected(active=True)
    found = values(subject)
    assert found["requests_total", "200"] == 2
    assert found["requests_total", "503"] == 1
    assert found["requests_total", "other"] == 1
    assert found["requests_total", "none"] == 1
    assert found["upstream_responses_total", "2xx"] == 1
    assert found["upstream_responses_total", "4xx"] == 2
    assert found["upstream_responses_total", "other"] == 1
    assert found["ready",] == 1
    assert found["upstream_key_rejected",] == 1


def test_some_gauges_are_the_greatest_of_all_workers(tmp_path: Path) -> None:
    """Descriptors are those of the fullest worker; a sum would hide it."""
    first, second = metrics(tmp_path), metrics(tmp_path)
    for subject, number in ((first, 1), (second, 2)):
        subject.process(
            cpu_s=number,
            resident_bytes=100,
            open_fds=5 + 2 * number,
            max_fds=1024,
            started_at=4 + number,
        )
    first.longest_turn(0.5)
    for subject in (first, second):
        found = values(subject)
        assert found["process_open_fds",] == 9
        assert found["process_max_fds",] == 1024
        assert found["process_start_time_seconds",] == 6
        assert found["process_cpu_seconds_total",] == 3
        assert found["process_resident_memory_bytes",] == 200
        assert found["loop_longest_turn_seconds",] == 0.5
    second.close()
    assert values(first)["process_open_fds",] == 7
    first.close()


def test_an_unknown_label_counts_as_other() -> None:
    """No caller and no client can create a time series."""
    subject = metrics()
    before = len(values(subject))
    subject.refused("no such reason")
    found = values(subject)
    assert found["refused_total", "other"] == 1
    assert len(found) == before


def test_two_metrics_in_one_process_are_apart() -> None:
    """There is no global registry: each object counts for itself."""
    first, second = metrics(), metrics()
    first.refused("rate_limit")
    assert values(first)["refused_total", "rate_limit"] == 1
    assert values(second)["refused_total", "rate_limit"] == 0


def test_openmetrics_is_served_to_those_who_ask() -> None:
    """The scraper's Accept header chooses the format."""
    subject = metrics()
    plain, _ = subject.render()
    asked, body = subject.render("application/openmetrics-text; version=1.0.0")
    assert plain.startswith("text/plain")
    assert asked.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_histograms_are_cumulative_and_complete() -> None:
    """Each bucket holds all that is below it, and +Inf holds the count."""
    subject = metrics()
    for gap in (0.0, 0.001, 0.0011, 3.0, 1_000.0):
        subject.content_gap(gap)
    found = values(subject)
    counts = [found["event_gap_seconds_bucket", b] for b in ("0.001", "0.005", "5.0")]
    assert counts == [2, 3, 4]
    assert found["event_gap_seconds_bucket", "+Inf"] == 5
    assert found["event_gap_seconds_count",] == 5
    assert found["event_gap_seconds_sum",] == pytest.approx(1003.0021)


def test_workers_add_up(tmp_path: Path) -> None:
    """Any worker's answer is the sum over all living workers."""
    subject = metrics(tmp_path)
    subject.stream_started("/chat")
    with worker(tmp_path), worker(tmp_path):
        found = values(subject)
    assert found["workers",] == 3
    assert found["streams_live", "/chat"] == 3
    assert found["streams_total", "/chat", "none", "completed"] == 2
    assert found["time_to_first_content_seconds_count",] == 2
    subject.close()


def test_a_killed_worker_leaves_its_counters_and_takes_its_gauges(
    tmp_path: Path,
) -> None:
    """After kill -9 counters do not go back, and live streams are not counted on."""
    subject = metrics(tmp_path)
    with worker(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
        found = values(subject)
    assert found["workers",] == 1
    assert found["streams_live", "/chat"] == 0
    assert found["streams_total", "/chat", "none", "completed"] == 1
    subject.close()


def test_a_new_worker_adopts_a_dead_ones_file(tmp_path: Path) -> None:
    """However often workers are replaced, there are no more files than workers."""
    subject = metrics(tmp_path)
    for round_number in range(1, 4):
        with worker(tmp_path):
            found = values(subject)
            assert found["streams_total", "/chat", "none", "completed"] == round_number
            assert found["streams_live", "/chat"] == 1
    assert len(list(tmp_path.glob("metrics-*"))) == 2
    subject.close()


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
"""


def test_a_file_that_does_not_fit_is_named_and_not_left(tmp_path: Path) -> None:
    """A disk with room for a part of it; its next try finds the same room."""
    done = subprocess.run(
        [sys.executable, "-c", FULL + WORKER, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("OSError: [Errno 28] No space left on device: '")
    assert str(tmp_path) in last
    assert not list(tmp_path.iterdir())


def test_a_closed_worker_counts_on_alone(tmp_path: Path) -> None:
    """After `close` late observations reach nobody's sum and do no harm."""
    first, second = metrics(tmp_path), metrics(tmp_path)
    first.refused("rate_limit")
    first.close()
    first.refused("rate_limit")
    assert values(second)["refused_total", "rate_limit"] == 1
    second.close()


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    """Numbers laid out otherwise are neither added nor adopted."""
    other = Slots(Layout([Family("x", "counter", "X.")]), tmp_path)
    other.numbers[0] = 5.0
    subject = metrics(tmp_path)
    assert values(subject)["workers",] == 1
    other.close()
    third = metrics(tmp_path)
    assert len(list(tmp_path.glob("metrics-*"))) == 3
    subject.close()
    third.close()


def test_every_open_label_has_a_place_for_the_unknown() -> None:
    """A label whose values come from elsewhere ends in `other`."""
    open_labels = [
        allowed
        for family in FAMILIES
        for label, allowed in family.labels
        if label != "direction"
    ]
    assert open_labels
    assert all(allowed[-1] == "other" for allowed in open_labels)
