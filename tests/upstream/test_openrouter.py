"""What OpenRouter's answers mean, over the real transport and a scripted upstream."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_ai_stream.dialects.plain_chat import PLAIN_CHAT
from trio_ai_stream.stream.lifecycle import EndStream
from trio_ai_stream.stream.protocols import UpstreamRequest
from trio_ai_stream.upstream.openrouter import OpenRouter
from trio_ai_stream.upstream.transport import UpstreamTransport

KEY = b'{"error":{"message":"No auth credentials found","code":401}}'
BYOK = b'{"error":{"code":401,"message":"no","metadata":{"provider_name":"A"}}}'


def answer(status: str, body: bytes, *fields: str) -> bytes:
    """One response as it goes over the wire."""
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Scripted:
    """An upstream that gives each request the same answer and keeps what it read."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.requests: list[bytes] = []

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answer each request of one connection; each comes in one piece here."""
        async with stream:
            async for data in stream:
                self.requests.append(bytes(data))
                await stream.send_all(self.reply)


@asynccontextmanager
async def opened(
    reply: bytes, headers: dict[str, str] | None = None
) -> AsyncIterator[tuple[OpenRouter, Scripted]]:
    """Give an upstream client that talks to `reply` over memory streams."""
    scripted = Scripted(reply)
    async with trio.open_nursery() as nursery:

        async def connect(_host: str, _port: int, _tls: bool) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(scripted.serve, theirs)
            return ours

        upstream = OpenRouter(
            UpstreamTransport(connect=connect),
            base_url="http://upstream/api/v1",
            kind="openrouter",
            headers=headers or {},
            connect_s=5,
            buffer_bytes=1_000_000,
        )
        yield upstream, scripted
        await upstream.aclose()
        nursery.cancel_scope.cancel(reason="test over")


async def refusal(
    upstream: OpenRouter,
    *,
    whole: bool = False,
    trace: tuple[tuple[bytes, bytes], ...] = (),
) -> EndStream:
    """Ask once, and return why there is no stream."""

    async def nothing() -> None:
        await trio.lowlevel.checkpoint()

    call = UpstreamRequest("id", "model", b"{}", PLAIN_CHAT, whole=whole, headers=trace)
    with pytest.raises(EndStream) as caught:
        await upstream.open(call, nothing, lambda _abort: None)
    return caught.value


async def test_only_our_own_401_makes_the_server_unready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A key that the model's provider refuses says nothing about ours."""
    async with opened(answer("401 Unauthorized", BYOK)) as (upstream, scripted):
        failure = await refusal(upstream)
        assert failure.problem is not None
        assert failure.problem.error_type == "provider_authentication"
        assert not upstream.rejected_key
        scripted.reply = answer("401 Unauthorized", KEY)
        await refusal(upstream)
        assert upstream.rejected_key


@pytest.mark.parametrize("whole", [True, False])
async def test_a_web_page_is_no_answer(
    whole: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """A page under 200 is refused before the client has a status, and says why."""
    page = answer("200 OK", b"<html>log in</html>", "Content-Type: Text/HTML; x=y")
    async with opened(page) as (upstream, _):
        failure = await refusal(upstream, whole=whole)
        assert failure.problem is not None
        assert failure.problem.error_type == "upstream_misconfigured"
        assert "http://upstream/api/v1/chat/completions" in failure.detail


async def test_a_compressed_error_is_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Some proxies compress although we asked them not to."""
    body = b'{"error":{"message":"max_tokens is too large"}}'
    packed = gzip.compress(body, mtime=0)
    reply = answer("400 Bad Request", packed, "Content-Encoding: gzip")
    async with opened(reply) as (upstream, _):
        failure = await refusal(upstream)
        assert failure.problem is not None
        assert "max_tokens is too large" in failure.problem.message


async def test_upstream_is_told_the_request_id_and_the_trace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """So that the operator of what is behind us can find the same request."""
    async with opened(answer("400 Bad Request", b"")) as (upstream, scripted):
        trace = ((b"traceparent", b"00-a-b-01"), (b"tracestate", b"x=1"))
        await refusal(upstream, trace=trace)
        head = scripted.requests[0].lower()
        assert b"x-request-id: id\r\n" in head
        assert b"traceparent: 00-a-b-01\r\ntracestate: x=1\r\n" in head


async def test_a_clients_title_takes_the_place_of_our_title_and_address(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The two name one application together."""
    ours = {"HTTP-Referer": "https://ours", "X-OpenRouter-Title": "ours"}
    async with opened(answer("400 Bad Request", b""), ours) as (upstream, scripted):
        await refusal(upstream)
        assert scripted.requests[0].count(b"ours") == 2
        await refusal(upstream, trace=((b"x-title", b"theirs"),))
        assert b"ours" not in scripted.requests[1]
        assert b"x-title: theirs\r\n" in scripted.requests[1]
