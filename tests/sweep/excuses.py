"""Await sites that no act can meet in memory, each with a reviewed reason.

A key is a pattern for `package/file.py:Class.function`. A test holds that each of them
is needed: that it matches a site, and that no act met all of those.
"""

from __future__ import annotations

from typing import Final

SWEPT: Final = tuple(
    f"trio_ai_stream.{room}" for room in ("http", "stream", "upstream", "admission")
)
EXCUSES: Final[dict[str, str]] = {
    "trio_ai_stream/upstream/transport/links.py:TlsLink.handshake": (
        "its own request of a few hundred bytes never waits to be sent"
    ),
    "trio_ai_stream/upstream/transport/dial.py:Resolver.resolve": (
        "DNS runs in a thread"
    ),
    "trio_ai_stream/upstream/transport/dial.py:Dialer.dial": ("DNS and TCP"),
    "trio_ai_stream/upstream/transport/dial.py:_connect_first": ("real sockets"),
    "trio_ai_stream/upstream/transport/dial.py:_attempt": ("real sockets"),
    "trio_ai_stream/upstream/transport/dial.py:_connect_one": ("real sockets"),
    "trio_ai_stream/upstream/transport/pool.py:*.exchange": (
        "a request in one write needs a socket: a stream in memory takes an await"
    ),
    "trio_ai_stream/upstream/transport/links.py:ClosedLink.wait": (
        "only for a link that was closed meanwhile"
    ),
    "trio_ai_stream/upstream/transport/http1_messages.py:RequestMessage.write": (
        "no request of ours is chunked"
    ),
    "trio_ai_stream/upstream/transport/upstream_transport.py:TransportBody.receive": (
        "only under httpx's read budget"
    ),
    "trio_ai_stream/upstream/transport/upstream_transport.py:TransportBody.__anext__": (
        "for httpx's own readers"
    ),
    "trio_ai_stream/upstream/bodies.py:_DecodedBody.receive": (
        "the simulator compresses nothing"
    ),
    "trio_ai_stream/upstream/bodies.py:_DecodedBody.drain": ("the same"),
    "trio_ai_stream/upstream/openrouter.py:OpenRouter.get": (
        "no stream: upstream refuses a GET"
    ),
    "trio_ai_stream/admission/directory.py:*": (
        "no stream: a list of the live ones, over workers' sockets"
    ),
    "trio_ai_stream/http/probes.py:*": (
        "no stream: a listener of its own, tests/e2e runs it"
    ),
    "trio_ai_stream/http/streams.py:*": ("no stream: one short answer"),
    "trio_ai_stream/upstream/transport/upstream_transport.py:*.handle_async_request": (
        "for httpx's own clients; the server sends without them"
    ),
    "trio_ai_stream/http/accounts.py:*": ("no stream: one short answer"),
    "trio_ai_stream/stream/registry.py:Registry.snapshot": ("the same"),
    "trio_ai_stream/http/usage_routes.py:*": (
        "no stream: one short answer, which a thread reads from the ledger"
    ),
    "trio_ai_stream/http/page/page_routes.py:*": ("no stream: text that is rendered"),
    "trio_ai_stream/http/models.py:*": (
        "no stream: the scenario `models` takes its longest way"
    ),
    "trio_ai_stream/http/live_view.py:*": (
        "no chat stream: `live` takes the usual way; others' are over their sockets"
    ),
    "trio_ai_stream/http/application.py:Lifespan.*": (
        "no request is under way when start-up fails"
    ),
    "trio_ai_stream/admission/shared/shared_directory.py:*": (
        "no stream: one short answer"
    ),
    "trio_ai_stream/admission/shared/shared_gate.py:Changes.run": (
        "no request: the log's timer"
    ),
    "trio_ai_stream/admission/shared/leases.py:Leases._keep": (
        "no request: the model test runs it"
    ),
    "trio_ai_stream/admission/shared/leases.py:Leases._synchronise": ("the same"),
    "trio_ai_stream/admission/shared/valkey_link.py:_evaluate": (
        "if Valkey forgot the scripts"
    ),
    "trio_ai_stream/admission/shared/valkey_link.py:ValkeyLink.publish": (
        "no stream: see the bus"
    ),
    "trio_ai_stream/admission/shared/valkey_link.py:ValkeyLink.reply": ("the same"),
    "trio_ai_stream/http/resumable_run.py:*": (
        "a stream with a grace: `tests.resume.pairs` acts before every step of it"
    ),
    "trio_ai_stream/http/resume_routes.py:*": (
        "another process' stream, over a socket: tests/resume/test_processes.py runs it"
    ),
    "trio_ai_stream/upstream/peer_link.py:*": ("the same"),
    "trio_ai_stream/stream/registry.py:Registry.until_over": (
        "no request: a draining worker waits"
    ),
    "trio_ai_stream/http/services.py:Drain.until_over": ("the same"),
    "trio_ai_stream/http/http_responses.py:EventResponder.ended": (
        "nothing is awaited between admission and the first write"
    ),
}
