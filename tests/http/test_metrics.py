"""`/metrics`: what a scraper reads after something has happened."""

from __future__ import annotations

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.completions import ask, over
from tests.support.world import Visit, World, world

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(w: World, **headers: str) -> Visit:
    """Send the scraper's request."""
    visit = w.visit({}, "/metrics", method="GET", headers=headers)
    await over(visit)
    assert visit.status == 200
    return visit


async def samples(w: World) -> Samples:
    """Read all samples, by name and labels."""
    text = (await scrape(w)).body.decode()
    return {
        (sample.name.removeprefix("trio_ai_stream_"), tuple(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


ENDPOINT = ("endpoint", "/v1/chat/completions")


async def test_streams_are_counted_by_what_ended_them(
    autojump_clock: MockClock,
) -> None:
    """A stream is live, then it is one more of its outcome; its tokens are added up."""
    async with world() as w:
        visit = ask(w, "simulator/endless")
        await trio.sleep(1)
        live = await samples(w)
        assert live["streams_live", (ENDPOINT,)] == 1
        assert live["event_gap_seconds_count", ()] > 10
        visit.leave()
        await over(visit)
        await over(ask(w, max_tokens=7))
        found = await samples(w)
        assert found["streams_live", (ENDPOINT,)] == 0
        gone = ("outcome", "client_disconnected")
        caller, nobody = ("fault", "caller"), ("fault", "none")
        assert found["streams_total", (ENDPOINT, caller, gone)] == 1
        whole = ("outcome", "completed")
        assert found["streams_total", (ENDPOINT, nobody, whole)] == 1
        assert found["requests_total", (("status", "200"),)] == 3
        assert found["upstream_responses_total", (("status", "2xx"),)] == 2
        assert found["tokens_total", (("direction", "output"),)] == 7
        assert found["cancellation_latency_seconds_count", ()] == 1
        assert found["time_to_first_content_seconds_count", ()] == 2


async def test_gaps_are_between_writes_of_content(autojump_clock: MockClock) -> None:
    """A gap is observed at its length; heartbeats between do not shorten it."""
    async with world() as w:
        await over(ask(w, "simulator/fast?chunks=3&delay_ms=5000"))
        found = await samples(w)
        assert found["event_gap_seconds_count", ()] == 3
        assert found["event_gap_seconds_sum", ()] == pytest.approx(15, abs=0.1)


async def test_refusals_are_counted_by_reason(autojump_clock: MockClock) -> None:
    """Each refusal counts once, under the reason that it was refused for."""
    async with world(
        permits=1, env={"API_KEYS": "some-long-key", "MAX_BODY_BYTES": "1000"}
    ) as w:
        key = {"authorization": "Bearer some-long-key"}
        holder = ask(w, "simulator/endless", headers=key)
        await wait_all_tasks_blocked()
        await over(ask(w, headers=key))
        await over(ask(w))
        await over(ask(w, messages=[], headers=key))
        await over(w.visit(b"x" * 2_000, headers=key))
        w.services.registry.begin_drain()
        await over(ask(w, headers=key))
        visit = await scrape(w, **key)
        lines = visit.body.decode().splitlines()
        for reason, count in [
            ("server_permits", 1),
            ("unauthorized", 1),
            ("invalid_request", 1),
            ("too_large", 1),
            ("draining", 1),
            ("rate_limit", 0),
        ]:
            sample = f'trio_ai_stream_refused_total{{reason="{reason}"}} {count}.0'
            assert sample in lines
        holder.leave()
        await over(holder)


async def test_a_scraper_gets_the_format_it_asks_for(
    autojump_clock: MockClock,
) -> None:
    """OpenMetrics for who accepts it, else Prometheus' text format."""
    async with world() as w:
        plain = await scrape(w)
        assert plain.headers["content-type"].startswith("text/plain")
        modern = await scrape(w, accept="application/openmetrics-text; version=1.0.0")
        assert modern.headers["content-type"].startswith("application/openmetrics-text")
        assert modern.body.endswith(b"# EOF\n")


async def test_a_scraper_is_never_limited(autojump_clock: MockClock) -> None:
    """Scrapes cost no request of anybody's rate."""
    async with world() as w:
        visit = await scrape(w)
        assert "ratelimit-limit" not in visit.headers
