"""The raw clients: they see what is sent, in whatever pieces, and end it as told."""

from __future__ import annotations

import itertools
import time

import h2.config
import h2.connection
import h2.events
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from cancel_lab.clients.acts import Act, Transport, impossible
from cancel_lab.clients.chat_stream import ChatRequest
from cancel_lab.clients.connection import ConnectionEndedError
from cancel_lab.clients.dial import dial
from cancel_lab.clients.sse import EventParser, Seen, classify
from cancel_lab.upstream import get

STREAM = (
    b'data: {"type":"connected"}\n\n: heartbeat\n\n'
    b'data: {"type":"content","content":"a"}\r\n\r\n'
    b'data: {"choices":[{"delta":{"content":"b"}}]}\n\n'
    b'data: {"choices":[]}\n\ndata: {"type":"done"}\n\n'
)
REQUEST = ChatRequest(path="/chat", body=b"{}")
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_split_of_the_bytes_gives_the_same_counts(cuts: list[int]) -> None:
    """Events, tokens, comments and the terminal are found however bytes arrive."""
    seen = Seen()
    parser = EventParser(seen)
    for start, end in itertools.pairwise([0, *sorted(cuts), len(STREAM)]):
        parser.feed(STREAM[start:end], 7)
    assert (seen.events, seen.tokens, seen.comments) == (5, 2, 1)
    assert seen.terminals == ["done"]
    assert seen.events_after_terminal == 0
    assert seen.first_token_ns == 7


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"[DONE]", "done"),
        (b'{"type":"error","error_type":"shutting_down"}', "error:shutting_down"),
        (b'{"error":{"code":502},"choices":[]}', "error"),
        (b'{"choices":[{"delta":{}}]}', None),
        (b'{"type":"message_stop"}', "done"),
        (b'{"type":"content_block_delta","delta":{"text":"a"}}', "token"),
        (b'{"type":"content_block_delta","delta":{"text":""}}', None),
        (b'{"type":"ping"}', None),
        (b'{"type":"response.output_text.delta","delta":"a"}', "token"),
        (b'{"type":"response.incomplete","response":{}}', "done"),
        (b'{"type":"response.failed","response":{}}', "error"),
        (b"[1]", None),
        (b'{"choices":["x"]}', None),
        (b'{"choices":{"0":1}}', None),
        (b'{"choices":[{"delta":"x"}]}', None),
        (b'{"type":["done"]}', None),
        (b'{"type":"content_block_delta","delta":"x"}', None),
        (b"not json", None),
    ],
)
def test_events_of_each_vocabulary_are_told_apart(
    data: bytes, kind: str | None
) -> None:
    """A terminal is named; what is neither token nor terminal is nothing."""
    assert classify(data) == kind


def test_a_mark_behind_an_end_of_its_own_is_no_second_one() -> None:
    """Responses end with an event, and OpenRouter sends `[DONE]` behind it."""
    seen = Seen()
    end = b'data: {"type":"response.completed","response":{}}\n\n'
    EventParser(seen).feed(end + b"data: [DONE]\n\n", 7)
    assert (seen.terminals, seen.events_after_terminal) == (["done"], 0)
    EventParser(seen).feed(b"data: [DONE]\n\n", 8)
    assert seen.events_after_terminal == 1


def test_an_impossible_act_has_a_reason() -> None:
    """HTTP/1.1 cannot reset a stream; TLS cannot be half closed."""
    assert impossible(Act.RST_STREAM, Transport.H1) is not None
    assert impossible(Act.HALF_CLOSE, Transport.H2_TLS) is not None
    assert impossible(Act.RST_STREAM, Transport.H2C) is None


class Peer:
    """A server for one connection: sends what it was given, notes what it then sees."""

    def __init__(self, answer: bytes) -> None:
        """Answer every request with the same bytes."""
        self.answer = answer
        self.ended: trio.Event = trio.Event()
        self.ending = ""
        self.ended_ns = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Read a request, answer, and wait for the client to end the connection."""
        try:
            await stream.receive_some()
            await stream.send_all(self.answer)
            while data := await stream.receive_some():
                self.ending = f"more: {data!r}"
            self.ending = "fin"
        except trio.BrokenResourceError:
            self.ending = "rst"
        self.ended_ns = time.monotonic_ns()
        self.ended.set()


async def listen(peer: Peer, nursery: trio.Nursery) -> int:
    """Start the peer and return its port."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, peer.serve, listeners)
    return int(listeners[0].socket.getsockname()[1])


@pytest.mark.parametrize(
    ("act", "ending"),
    [(Act.FIN, "fin"), (Act.RST, "rst"), (Act.HALF_CLOSE, "fin")],
)
async def test_a_close_reaches_the_peer_as_what_it_is(act: Act, ending: str) -> None:
    """FIN, RST and half-close arrive as such, and not before the instant noted."""
    chunk = b'data: {"type":"content"}\n\n'
    unread = b"5\r\nhello\r\n" * 50
    peer = Peer(HEAD + b"%x\r\n%b\r\n" % (len(chunk), chunk) + unread)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            port = await listen(peer, nursery)
            stream = await dial(port, REQUEST, Transport.H1)
            await stream.start()
            await stream.read_tokens(1)
            told = await stream.act(act)
            await peer.ended.wait()
            stream.connection.close()
            nursery.cancel_scope.cancel()
    assert peer.ending == ending
    assert peer.ended_ns >= told
    assert stream.seen.tokens == 1


async def test_a_ledger_of_megabytes_comes_whole() -> None:
    """As a burst of thousands of streams makes it."""
    length = 3_000_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length
    peer = Peer(head + bytes(length))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            port = await listen(peer, nursery)
            assert await get(port, "/") == bytes(length)
            nursery.cancel_scope.cancel()


async def test_half_an_answer_is_none() -> None:
    """What is said about it is how it ended."""
    peer = Peer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            port = await listen(peer, nursery)
            with pytest.raises(OSError, match="expected an answer"):
                await get(port, "/")
            nursery.cancel_scope.cancel()


async def test_a_chunked_answer_is_complete_only_with_its_last_chunk() -> None:
    """A connection that ends earlier cut the answer."""
    whole = b"%x\r\n%b\r\n" % (len(STREAM), STREAM)
    for answer, ending in ((whole + b"0\r\n\r\n", "done"), (whole[:30], "cut: closed")):
        peer = Peer(HEAD + answer)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                port = await listen(peer, nursery)
                stream = await dial(port, REQUEST, Transport.H1)
                await stream.start()
                if ending.startswith("cut"):
                    await stream.act(Act.HALF_CLOSE)  # the peer then closes
                await stream.read_to_end()
                stream.connection.close()
                nursery.cancel_scope.cancel()
        assert stream.seen.ending == ending


async def test_an_act_of_http2_is_refused_on_http1() -> None:
    """The error says what it would need."""
    peer = Peer(b"")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            stream = await dial(await listen(peer, nursery), REQUEST, Transport.H1)
            with pytest.raises(ValueError, match="needs HTTP/2"):
                await stream.act(Act.RST_STREAM)
            stream.connection.close()
            nursery.cancel_scope.cancel()


class HTTP2Peer:
    """An HTTP/2 server for one connection; says goodbye, then finishes its stream."""

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self.events: list[h2.events.Event] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the first request with GOAWAY, DATA and the end of the stream."""
        config = h2.config.H2Configuration(client_side=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        await stream.send_all(connection.data_to_send())
        async for data in stream:
            events = connection.receive_data(data)
            self.events += events
            if any(isinstance(event, h2.events.StreamEnded) for event in events):
                connection.send_headers(1, [(":status", "200")])
                head = connection.data_to_send()
                connection.send_data(1, STREAM, end_stream=True)
                body = connection.data_to_send()
                goaway = bytes.fromhex("0000080700000000000000000100000000")
                await stream.send_all(head + goaway + body)


async def test_streams_below_a_goaways_last_id_are_read_to_their_end() -> None:
    """A draining server says GOAWAY and finishes what it has (RFC 9113, 6.8)."""
    peer = HTTP2Peer()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, peer.serve, listeners)
            port = listeners[0].socket.getsockname()[1]
            stream = await dial(port, REQUEST, Transport.H2C)
            await stream.start()
            await stream.read_to_end()
            stream.connection.close()
            nursery.cancel_scope.cancel()
    assert stream.seen.ending == "done"
    assert stream.seen.tokens == 2


async def test_sending_to_a_peer_that_is_gone_says_so() -> None:
    """A reset connection is reported as ended, not as some library's error."""
    peer = Peer(b"")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            stream = await dial(await listen(peer, nursery), REQUEST, Transport.H1)
            stream.connection.close()
            with pytest.raises(ConnectionEndedError, match="reset"):
                await stream.start()
            nursery.cancel_scope.cancel()
