"""The programs that are swept, by name; those first that show most mistakes."""

from __future__ import annotations

from typing import Final

from tests.sweep.proxied import OPENED, REFUSED
from tests.sweep.scenario import RICH, Scenario
from trio_ai_stream.wire.record import Outcome

PACE: Final = "first_token_ms=50&delay_ms=100"

_ALL: Final = (
    Scenario("plain", "a stream of two pieces on a new connection"),
    Scenario(
        "late-end",
        "the body ends half a second after [DONE]: a cancel may find the stream done",
        upstream="simulator/fast?chunks=1&done_ms=500",
        # They must meet the clean-up's shield, and take its time.
        always=("disconnect", "scope@*:terminal_scope", "scope@*:relay:0"),
    ),
    Scenario(
        "finished-silent",
        "the answer is whole, then usage, then silence without [DONE]: the grace, and"
        " `done`",
        upstream="simulator/fast?chunks=1&end=no_done&done_ms=forever"
        "&fragment=450&fragment_ms=50",
        shape="openai",
        read_every_s=0.1,
        keeps=False,
        always=("disconnect", "whole"),  # they must meet the grace
    ),
    Scenario(
        "slow-heartbeat",
        "the same to a client that takes so long to read each write that a heartbeat"
        " would be due meanwhile",
        upstream="simulator/silent?at=1",
        read_every_s=1.9,
        always=("stop",),  # it must meet each state of a heartbeat
        ends=Outcome.STREAM_IDLE_TIMEOUT,
    ),
    Scenario(
        "no-head",
        "upstream takes the request and says nothing: heartbeats, of which one is under"
        " way when the budget is over",
        upstream="simulator/no-answer",
        read_every_s=1.3,
        ends=Outcome.FIRST_TOKEN_TIMEOUT,
    ),
    Scenario(
        "retry",
        "upstream answers 503 once, then well",
        upstream=f"simulator/flaky?fail_times=1&chunks=1&{PACE}",
        fails=Outcome.UPSTREAM_REJECTED,
    ),
    Scenario(
        "stuck-client",
        "a client that reads nothing, and no server that cuts it off",
        upstream="simulator/fast?chunks=1",
        read_every_s=60.0,
        ends=Outcome.FIRST_TOKEN_TIMEOUT,
    ),
    Scenario(
        "shared-slow",
        "the same, one permit, a Valkey that takes its time, and a second stream",
        upstream="simulator/fast?chunks=1",
        valkey="slow",
        settings={"MAX_CONCURRENT_STREAMS": "1"},
        neighbour="simulator/fast?chunks=1",
        warm=1,
        ends=None,
    ),
    Scenario(
        "reuse",
        "the same on a connection that a request before it left in the pool",
        warm=1,
    ),
    Scenario(
        "told-by-receive",
        "the same under a server that tells of a disconnect by `receive` alone",
        reports_disconnect=False,
    ),
    Scenario(
        "proxied",
        "the same through a proxy that opens a tunnel to upstream",
        proxy=OPENED,
        always=("stop",),
    ),
    Scenario(
        "proxy-refuses",
        "a proxy that refuses to open a tunnel, each time",
        proxy=REFUSED,
        ends=Outcome.UPSTREAM_UNREACHABLE,
    ),
    Scenario(
        "proxy-silent",
        "a proxy that takes the connection and says nothing",
        proxy=b"",
        settings={"RETRY_BUDGET_PERCENT": "0", "RETRY_BUDGET_FLOOR": "1"},
        ends=Outcome.UPSTREAM_UNREACHABLE,
    ),
    Scenario("sockets", "a stream over a socket", sockets="plain"),
    Scenario("tls", "the same, and upstream speaks TLS", sockets="tls"),
    Scenario(
        "tls-reuse",
        "the same on a connection that a request before it left in the pool",
        sockets="tls",
        warm=1,
    ),
    Scenario(
        "tls-proxied",
        "a new one through a proxy's tunnel, with a request of many writes",
        upstream="simulator/slow-read?read_ms=50&read_bytes=65536&chunks=1",
        prompt="word " * 50_000,
        settings={"MAX_PROMPT_LENGTH": "300000"},
        sockets="tls",
        proxy=OPENED,
    ),
    Scenario(
        "unheld",
        "the same from an upstream whose connection nobody can close before it is"
        " answered",
        unheld=True,
        always=("stop", "disconnect"),
    ),
    Scenario(
        "slow-client",
        "a client that takes a quarter of a second to read each write, so that the"
        " relay waits in `send` while upstream goes on",
        upstream="simulator/fast?chunks=3&delay_ms=100",
        read_every_s=0.25,
    ),
    Scenario(
        "flood",
        "upstream says more than the client reads: backpressure up to upstream",
        upstream="simulator/fast?chunks=900&burst=300&reasoning=1",
        read_every_s=0.1,
    ),
    Scenario(
        "unanswered",
        "upstream reads the request and breaks the connection: it is asked once",
        upstream="simulator/refuse",
        ends=Outcome.UPSTREAM_FAILED,
    ),
    Scenario(
        "retry-open",
        "upstream answers 200 and then an error before any content, once",
        upstream=f"simulator/error-first?code=429&fail_times=1&chunks=1&{PACE}",
        fails=Outcome.UPSTREAM_REJECTED,
    ),
    Scenario(
        "rejected",
        "upstream refuses: 400 with a body",
        upstream="simulator/bad-request",
        ends=Outcome.UPSTREAM_REJECTED,
    ),
    Scenario(
        "endless-error",
        "upstream refuses with a body that does not end",
        upstream="simulator/endless-error",
        ends=Outcome.UPSTREAM_REJECTED,
    ),
    Scenario(
        "error-200",
        "upstream sends a JSON error under status 200",
        upstream="simulator/error-200-json?code=400",
        ends=Outcome.UPSTREAM_REJECTED,
    ),
    Scenario(
        "reasoning",
        "reasoning, which this client asked for, before the answer",
        upstream="simulator/fast?reasoning=2&chunks=1&delay_ms=100",
        options={"include_reasoning": True},
    ),
    Scenario(
        "no-reuse",
        "the body does not end after [DONE]: the clean-up reaches its bound",
        upstream="simulator/fast?chunks=1&done_ms=forever",
        keeps=False,
    ),
    Scenario(
        "no-connection",
        "nobody answers the dial: the connect budget, twice, then no retry is left",
        upstream="simulator/fast",
        settings={"RETRY_BUDGET_PERCENT": "0", "RETRY_BUDGET_FLOOR": "1"},
        connect_s=float("inf"),
        ends=Outcome.UPSTREAM_UNREACHABLE,
    ),
    Scenario(
        "silent",
        "two pieces, then silence: heartbeats, then the idle budget",
        upstream="simulator/silent?at=2",
        ends=Outcome.STREAM_IDLE_TIMEOUT,
    ),
    Scenario(
        "content-over-heartbeat",
        "content that arrives while a heartbeat is being written waits for it",
        upstream="simulator/fast?chunks=2&first_token_ms=50&delay_ms=4000",
        read_every_s=1.5,
    ),
    Scenario(
        "endless",
        "a piece every three seconds, without end: the deadline",
        upstream="simulator/endless?delay_ms=3000",
        ends=Outcome.DEADLINE_EXCEEDED,
    ),
    Scenario(
        "messages",
        "Anthropic's Messages: thinking, then a text, with a silence in its block",
        upstream="simulator/fast?reasoning=1&chunks=2&delay_ms=2500",
        shape="messages",
    ),
    Scenario(
        "messages-cut",
        "the same, which breaks before `message_stop`",
        upstream=f"simulator/fast?chunks=1&end=no_done&{PACE}",
        shape="messages",
        ends=Outcome.UPSTREAM_FAILED,
    ),
    Scenario(
        "responses",
        "OpenAI's Responses: a tool call, after silence before the first event",
        upstream="simulator/fast?tool_calls=1&first_token_ms=2500&delay_ms=100",
        shape="responses",
    ),
    Scenario(
        "responses-failed",
        "the same API's own last event says that the answer failed",
        upstream=f"simulator/error?at=1&{PACE}",
        shape="responses",
        ends=Outcome.UPSTREAM_FAILED,
    ),
    Scenario(
        "broken",
        "upstream closes in mid-answer",
        upstream=f"simulator/drop?at=1&{PACE}",
        ends=Outcome.UPSTREAM_FAILED,
    ),
    Scenario(
        "error-event",
        "upstream sends an error as an event",
        upstream=f"simulator/error?at=1&{PACE}",
        ends=Outcome.UPSTREAM_FAILED,
    ),
    Scenario(
        "body-in-pieces",
        "the request's body arrives in three pieces, one a second",
        upstream="simulator/fast?chunks=1",
        pieces=3,
        piece_every_s=1.0,
    ),
    Scenario(
        "cross-origin",
        "a page of another origin asks, so the request goes through Quart's hooks",
        upstream="simulator/fast?chunks=1",
        origin="https://page.test",
        settings={"CORS_ALLOW_ORIGINS": "https://page.test"},
    ),
    Scenario(
        "large-request",
        "a request too large for one write, which upstream reads slowly",
        upstream="simulator/slow-read?read_ms=50&read_bytes=16384&chunks=1",
        prompt="word " * 20_000,
        settings={"MAX_PROMPT_LENGTH": "100000"},
    ),
    Scenario(
        "early-answer",
        "upstream refuses a large request before it has read it",
        upstream="simulator/fast",
        early=True,
        prompt="word " * 20_000,
        settings={"MAX_PROMPT_LENGTH": "100000", "FIRST_TOKEN_TIMEOUT_SECS": "2"},
        ends=Outcome.UPSTREAM_REJECTED,
    ),
    Scenario(
        "unread-request",
        "upstream takes so long to read a large request that the time is over",
        upstream="simulator/slow-read?read_ms=400&read_bytes=4096&chunks=1",
        prompt="word " * 20_000,
        settings={"MAX_PROMPT_LENGTH": "100000", "FIRST_TOKEN_TIMEOUT_SECS": "2"},
        ends=Outcome.FIRST_TOKEN_TIMEOUT,
    ),
    Scenario(
        "neighbour",
        "a second stream beside it, which must not notice",
        neighbour=f"simulator/fast?chunks=3&{PACE}",
    ),
    Scenario(
        "contention",
        "one permit and two streams: one of them is refused",
        upstream="simulator/fast?chunks=1&delay_ms=50",
        settings={"MAX_CONCURRENT_STREAMS": "1"},
        neighbour="simulator/fast?chunks=1&delay_ms=50",
        ends=None,  # which of the two is refused is the schedule's choice
    ),
    Scenario(
        "shared",
        "limits are shared through a Valkey",
        upstream="simulator/fast?chunks=1",
        valkey="up",
        warm=1,  # by then coredis has its connections
        always=("cancel",),  # it must meet an answer of Valkey's that is on its way
        beside=True,
    ),
    Scenario(
        "shared-lost",
        "the same, lost as the permit is granted; it comes back a little later",
        upstream="simulator/fast?chunks=2&first_token_ms=300&delay_ms=300",
        valkey="lost",
        warm=1,
    ),
    Scenario(
        "shared-refused",
        "the same, which nobody can connect to: the limits are this process's own",
        upstream="simulator/fast?chunks=1",
        valkey="refused",
    ),
    Scenario(
        "shared-silent",
        "the same, which says nothing any more when it is asked for the client's rate",
        upstream="simulator/fast?chunks=1",
        valkey="up",
        silent_at="admit",
        warm=1,
        always=("cancel", "disconnect"),
    ),
    Scenario(
        "shared-silent-late",
        "the same, when it is asked for the permit",
        upstream="simulator/fast?chunks=1",
        valkey="up",
        silent_at="change",
        warm=1,
        always=("cancel", "disconnect"),
    ),
    Scenario(
        "ledger",
        "each stream's row goes into a ledger, by a thread",
        ledger=True,
        always=("stop", "disconnect"),
    ),
    Scenario(
        "reconciling",
        "the bill of a stream before it, which upstream broke, is looked up meanwhile",
        upstream="simulator/fast?chunks=3&first_token_ms=50&delay_ms=700",
        ledger=True,
        warm=1,
        before="simulator/drop?at=1",
        settings={"RECONCILE_SECS": "300"},
    ),
    Scenario(
        "budget",
        "a key with a budget, whose spending all hosts count in a Valkey",
        upstream="simulator/fast?chunks=1",
        valkey="up",
        warm=1,
        key=RICH,
    ),
    Scenario(
        "budget-ends",
        "the key's budget is spent while the stream runs, which ends with it",
        upstream="simulator/fast?chunks=30&delay_ms=100",
        ledger=True,
        warm=1,  # what the model's tokens cost is known by that
        before="simulator/fast?chunks=30&delay_ms=100",
        key="poor-key",
        once=True,
        ends=Outcome.CANCELLED,
        tells="budget_exhausted",
    ),
    Scenario("openai", "`/v1/chat/completions`, streamed", shape="openai"),
    Scenario(
        "openai-refused",
        "the same, refused by upstream before the response has begun",
        upstream="simulator/bad-request",
        shape="openai",
        ends=Outcome.UPSTREAM_REJECTED,
    ),
    Scenario(
        "openai-late",
        "the same, answered so late that a heartbeat opens the response, then broken",
        upstream="simulator/error?headers_ms=3000&at=1",
        shape="openai",
        ends=Outcome.UPSTREAM_FAILED,
    ),
    Scenario("document", "`/v1/chat/completions`, not streamed", shape="document"),
    Scenario(
        "document-refused",
        "the same, refused by upstream",
        upstream="simulator/not-found",
        shape="document",
        ends=Outcome.UPSTREAM_REJECTED,
        always=("disconnect",),  # it must meet a head that has come, not yet told
        beside=True,
        seeds=3,
    ),
    Scenario(
        "models",
        "the list of models, fetched from upstream",
        shape="other",
        path="/v1/models",
        own_app=True,
        ends=None,
    ),
    Scenario(
        "live",
        "somebody watches the live streams, one of which runs, and leaves",
        shape="other",
        path="/streams/live",
        neighbour=f"simulator/fast?chunks=2&{PACE}",
        leaves_after_s=0.6,
        ends=None,
    ),
)
SCENARIOS: Final[dict[str, Scenario]] = {one.name: one for one in _ALL}
