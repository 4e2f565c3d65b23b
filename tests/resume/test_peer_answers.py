"""Where a peer should be, something else answers: nothing, rubbish, or a stranger."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.resume.test_resuming import look
from tests.support.completions import over
from tests.support.logs import logged
from tests.support.world import BUDGETS, Visit, World, world
from trio_ai_stream.admission.directory import Address, LocalDirectory, read_address
from trio_ai_stream.http import resume_routes
from trio_ai_stream.http.application import peer_app
from trio_ai_stream.upstream import peer_link
from trio_ai_stream.upstream.peer_link import PeerGoneError, PeerLink, PeerLostError

WAY = f"/streams/mine/events?token=0123456789ab.{32 * 'A'}"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
BEGUN = HEAD + b"transfer-encoding: chunked\r\n\r\n6\r\n: hi\n\n\r\n"
PAGE = b"HTTP/1.1 %d x\r\ncontent-type: text/html\r\ncontent-length: 3\r\n\r\n<a>"


class Directory(LocalDirectory):
    """Every process is at one address."""

    def __init__(self, w: World, address: Address) -> None:
        super().__init__(w.services.registry)
        self._address = address

    async def address_of(self, process: str) -> Address | None:
        """Return it."""
        await trio.lowlevel.checkpoint()
        return self._address


@asynccontextmanager
async def beside(
    answer: bytes, *, hold: bool = False
) -> AsyncIterator[tuple[World, list[bytes]]]:
    """Give an application whose peers all answer this, and what they were asked."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                asked.append(await stream.receive_some(65536))
                await stream.send_all(answer)
                if hold:
                    await stream.receive_some()

    budgets = replace(BUDGETS, first_token_s=0.05, idle_s=0.05)
    async with world(budgets=budgets) as w:
        start = partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        listeners = await w.nursery.start(start)
        port = listeners[0].socket.getsockname()[1]
        w.services.directory = Directory(w, ("127.0.0.1", port))
        yield w, asked


@pytest.mark.parametrize("answer", [b"", HEAD, PAGE.replace(b"<a>", b"") % 404])
async def test_a_peer_that_hangs_is_not_waited_for(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for its head nor for the document that it refuses with: 503."""
    monkeypatch.setattr(resume_routes, "SPARE_S", 0.05)
    monkeypatch.setattr(resume_routes, "DOCUMENT_S", 0.05)
    answer = answer.replace(b"text/html", b"application/json")
    async with beside(answer, hold=True) as (w, _):
        visit = look(w, WAY)
        await over(visit)
        assert visit.status == 503


async def test_only_who_refuses_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A host to which the way is broken is 503: its streams may live.

    The kernel drops who knocks where the queue is full, as a broken network does.
    """
    monkeypatch.setattr(peer_link, "CONNECT_S", 0.1)
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(full.getsockname())
        async with world() as w:
            w.services.directory = Directory(w, full.getsockname())
            with logged() as records:
                visit = look(w, WAY)
                await over(visit)
            assert visit.status == 503
            (lost,) = [one for one in records if one["event"] == "peer_lost"]
            assert lost["cause"].startswith("timeout: ")
            full.close()
            for _ in range(8):  # and is refused each time, not by us in the end
                visit = look(w, WAY)
                await over(visit)
                assert visit.status == 410
    with pytest.raises(PeerGoneError):  # a worker that has ended
        await PeerLink(tmp_path).ask(("x.sock", 0), "GET", "/", [], silent_s=1)


async def test_a_peer_that_falls_silent_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client is cut off without an end, and the log says why."""
    monkeypatch.setattr(resume_routes, "SPARE_S", 0.05)
    async with beside(BEGUN, hold=True) as (w, _):
        with logged() as records:
            visit = look(w, WAY)
            await over(visit)
        assert (visit.status, visit.body) == (200, b": hi\n\n")
        assert not visit.ended.is_set()
        assert "peer_lost" in [record["event"] for record in records]


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        PAGE % 200,
        PAGE % 404,
        PAGE % 301,
        b"HTTP/1.1 200 OK\r\n\r\nabc",
    ],
)
async def test_a_stranger_says_nothing_to_a_client(answer: bytes) -> None:
    """Only what a peer says is passed on: events, and errors as JSON."""
    async with beside(answer) as (w, _):
        visit = look(w, WAY)
        await over(visit)
        assert visit.status == 503
        assert b"<a>" not in visit.body


async def test_no_request_goes_in_a_circle() -> None:
    """What peers are asked leads nowhere at the first port, even of this process."""
    async with beside(b"") as (w, asked):
        await over(look(w, WAY))
        path = asked[0].split(b" ")[1].decode()
        visit = look(w, path)
        await over(visit)
        assert visit.status == 404
        assert len(asked) == 1


async def test_who_leaves_is_no_lost_peer() -> None:
    """A client that goes away while it reads from a peer is nobody's fault."""
    async with beside(BEGUN, hold=True) as (w, _):
        with logged() as records:
            visit = look(w, WAY)
            await visit.news.wait()
            visit.leave()
            await over(visit)
        assert "peer_lost" not in [record["event"] for record in records]


async def test_a_peers_port_says_of_no_key_whether_it_is_right() -> None:
    """Requests are not counted there, so guesses would not be either."""
    async with world(env={"API_KEYS": "first-key"}) as w:
        app = peer_app(w.services)
        here = w.services.directory.process
        for process, more in (("0123456789ab", ""), (here, ""), (here, "&after=x")):
            seen = set()
            for key in ("first-key", "wrong"):
                query = WAY.partition("?")[2].replace("0123456789ab", process) + more
                visit = Visit(
                    app,
                    "/peers/streams/mine/events",
                    b"",
                    method="GET",
                    query=query,
                    headers={"x-api-key": key},
                )
                w.nursery.start_soon(visit.task)
                await over(visit)
                seen.add((visit.status, visit.body.partition(b'"request_id"')[0]))
            assert len(seen) == 1


@pytest.mark.parametrize(
    "told",
    [
        b"", b" ", b"host", b"host port", b"a b 80", b"a 0", b"a -1", b"a 65536",
        b"a/b 80", b"../a.sock 0", b"u@a 80", b"a#b 80", b"\xff 80", b"a\r\n 80",
        b"\xd9\xa1 \xd9\xa1",
    ],
)  # fmt: skip
def test_what_is_no_address_leads_nowhere(told: bytes) -> None:
    """Whatever stands in Valkey: no socket of this host, no other part of a URL."""
    assert read_address(told) is None
    assert read_address(b"10.0.0.2 65535") == ("10.0.0.2", 65535)
    assert read_address(b"fd00::2 8081") == ("fd00::2", 8081)


async def test_an_address_of_a_host_is_no_file(tmp_path: Path) -> None:
    """Only the directory's own names are sockets, and no other file is removed."""
    path = tmp_path / "kept"
    path.write_bytes(b"")
    for host in ("kept", "kept.unix"):
        with pytest.raises(PeerLostError):  # as a name it is nobody's
            await PeerLink(tmp_path).ask((host, 1), "GET", "/", [], silent_s=1)
    assert path.exists()


async def test_a_field_of_a_client_need_not_be_ascii(tmp_path: Path) -> None:
    """One beside the key that counts, say: it is handed on as it came."""
    fields = [("X-API-Key", "caf\xe9")]
    with pytest.raises(PeerGoneError):
        await PeerLink(tmp_path).ask(("x.sock", 0), "GET", "/", fields, silent_s=1)
