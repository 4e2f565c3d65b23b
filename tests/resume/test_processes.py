"""Readers that come to another worker or host than the one that has their stream.

One deployment for all tests: a host of two workers and a host of one, with one Valkey
and one simulator. Each kind of other process gets the same questions.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx
import pytest

from cancel_lab.process import free_port
from tests.admission.valkey import running
from tests.support.process import children
from tests.support.serving import ServerProcess, until

SHORT: Final = "simulator/fast?chunks=20&delay_ms=10"
ENDLESS: Final = "simulator/endless"
_ID: Final = re.compile(rb"^id: (\d+)$", re.MULTILINE)


class Client(httpx.Client):
    """A client with one connection, so with one process until it breaks a response."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=1)
        super().__init__(base_url=url, timeout=20, limits=limits)

    @contextmanager
    def chat(self, model: str, grace: str = "20") -> Iterator[httpx.Response]:
        """Begin a stream."""
        headers = {"X-Stream-Grace": grace} if grace else {}
        body = {"prompt": "hello", "model": model}
        with self.stream("POST", "/chat", json=body, headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            yield answer


def way_of(answer: httpx.Response) -> str:
    """Where a client of this response's comes back to."""
    return answer.headers["x-stream-resume"]


def id_of(way: str) -> str:
    """The stream that a way leads to."""
    return way.split("/")[2]


def ids(data: bytes) -> list[int]:
    """The ids of the events."""
    return [int(number) for number in _ID.findall(data)]


def owner_of(way: str) -> str:
    """The process that has the stream."""
    return way.partition("token=")[2].partition(".")[0]


@dataclass
class Deployment:
    """A host of two workers, whose streams are asked for, and a host of one.

    `kind` says which other process is asked: a worker of the same host, or the host.
    `host` starts one more, of a name and so many workers.
    """

    one: ServerProcess
    two: ServerProcess
    kind: str = ""
    host: Callable[[str, int], ServerProcess] = field(kw_only=True)

    def begun(
        self, model: str = SHORT, grace: str = "20", events: int = 4
    ) -> tuple[str, bytes]:
        """Begin a stream and lose it; return the way back and what came."""
        with Client(self.one.url) as client, client.chat(model, grace) as answer:
            data = b""
            for block in answer.iter_raw():
                data += block
                if data.count(b"\n\n") >= events:
                    break
            return way_of(answer), data

    @contextmanager
    def other(self, way: str) -> Iterator[Client]:
        """Give a client that is connected to another process than the owner."""
        url = self.one.url if self.kind == "worker" else self.two.url
        for _ in range(200):
            with Client(url) as client:
                with client.chat("simulator/fast?chunks=1") as response:
                    response.read()
                if owner_of(way_of(response)) != owner_of(way):
                    yield client
                    return
        raise AssertionError("all connections came to one worker")

    def listed(self, way: str) -> dict[str, Any]:
        """What the live streams say of one, whichever process is asked."""
        url = self.one.url if self.kind == "worker" else self.two.url

        whole: list[dict[str, Any]] = []

        def listed() -> bool:
            document = httpx.get(f"{url}/streams").json()
            whole[:] = document["streams"]
            return bool(document["complete"])

        until(listed)  # a busy process may not have answered in time
        found = [one for one in whole if one["id"] == id_of(way)]
        return found[0] if found else {}

    def state(self, way: str) -> str:
        """The state of a stream; empty if it lives no more."""
        return str(self.listed(way).get("state", ""))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Start all of it; stop all of it."""
    folder = tmp_path_factory.mktemp("deployment")
    port = free_port()
    simulate = [sys.executable, "-m", "trio_ai_stream.simulator", "--port", str(port)]
    with running("valkey") as valkey, subprocess.Popen(simulate) as simulator:

        def host(name: str, workers: int) -> ServerProcess:
            return ServerProcess(
                folder / name,
                WORKERS=str(workers),
                UPSTREAM="openrouter",
                OPENROUTER_API_KEY="sk-or-test-key",
                OPENROUTER_BASE_URL=f"http://127.0.0.1:{port}/api/v1",
                REDIS_URL=valkey.url,
                REDIS_TIMEOUT_SECS="5",
                PEER_ADDRESS=f"127.0.0.1:{free_port()}",
                WRITE_TIMEOUT_SECS="1",
                DRAIN_TIMEOUT_SECS="2",
                GRACE_STREAM_BYTES="65536",
            )

        one, two = host("one", 2), host("two", 1)
        try:
            yield Deployment(one, two, host=host)
        finally:
            one.stop()
            two.stop()
            simulator.terminate()


@pytest.fixture(params=["worker", "host"])
def deployment(servers: Deployment, request: pytest.FixtureRequest) -> Deployment:
    """The deployment, asked at a worker or at a host that is not the owner."""
    return replace(servers, kind=request.param)


def test_who_comes_to_another_process_goes_on(deployment: Deployment) -> None:
    """All events once, byte for byte as the owner has them; 204 when all are had."""
    way, first = deployment.begun()
    last = ids(first)[-1]
    with deployment.other(way) as other:
        back = other.get(way, headers={"Last-Event-ID": str(last)})
        assert back.headers["x-stream-grace"] == "20"
        assert way_of(back) == way
        assert back.headers["content-type"] == "text/event-stream; charset=utf-8"
        together = ids(first)[:last] + ids(back.content)
        assert together == list(range(1, len(together) + 1))
        assert back.content.count(b'"type":"done"') == 1
        assert other.get(f"{way}&after={last}").content == back.content
        assert other.get(f"{way}&after={together[-1]}").status_code == 204
        assert other.head(way).status_code == 200


def test_what_is_wrong_is_as_wrong_there(deployment: Deployment) -> None:
    """A wrong token or id is 404, no id 400, and a process that never was 410."""
    way, _ = deployment.begun(ENDLESS)
    with deployment.other(way) as other:
        for path, status in {
            way[:-1] + ("A" if way[-1] != "A" else "B"): 404,
            way.replace(id_of(way), "other"): 404,
            way.replace("token=", "token=x"): 404,
            f"{way}&after=x": 400,
            f"{way}&after=999": 400,
            way.replace(owner_of(way), "0123456789ab"): 410,
        }.items():
            assert other.get(path).status_code == status, path
        assert other.delete(f"/streams/{id_of(way)}").status_code == 200


def test_a_reader_that_leaves_is_gone_for_the_owner(deployment: Deployment) -> None:
    """The stream is detached, any process says so, and any may cancel it."""
    way, _ = deployment.begun(ENDLESS)
    with deployment.other(way) as other, other.stream("GET", way) as back:
        blocks = back.iter_raw()
        assert next(blocks).startswith(b"id: 1\n")
        assert deployment.state(way) == "streaming"
    until(lambda: deployment.state(way) == "detached")
    with deployment.other(way) as other:
        answer = other.delete(f"/streams/{id_of(way)}").json()
        assert (answer["outcome"], answer["state"]) == ("cancelled", "detached")
        last = other.get(way).content
    assert last.count(b'"error_type":"cancelled"') == 1
    record = deployment.one.ended(id_of(way))
    assert (record["outcome"], record["resumes"]) == ("cancelled", 1)


def test_a_reader_that_does_not_read_holds_nobody(deployment: Deployment) -> None:
    """Upstream waits for it through both processes; then it counts as gone."""
    flood = "simulator/flood?first_token_ms=200"
    way, _ = deployment.begun(flood, events=1)
    with deployment.other(way) as other, other.stream("GET", way) as back:
        blocks = back.iter_raw()
        next(blocks)  # it is its reader now, and reads no more
        until(lambda: deployment.state(way) == "detached")
        events = deployment.listed(way)["events"]
        assert deployment.listed(way)["events"] == events, "the log is full"
    with deployment.other(way) as other:
        other.delete(f"/streams/{id_of(way)}")
    record = deployment.one.ended(id_of(way))
    assert (record["outcome"], record["resumes"]) == ("cancelled", 1)
    for host in (deployment.one, deployment.two):
        assert "Traceback" not in host.log


def test_a_reader_elsewhere_takes_over(deployment: Deployment) -> None:
    """The first is told that it is superseded; a cancel then tells the second."""
    with Client(deployment.one.url) as client, client.chat(ENDLESS) as first:
        blocks, way = first.iter_raw(), way_of(first)
        next(blocks)
        with deployment.other(way) as other, other.stream("GET", way) as second:
            more = second.iter_raw()
            next(more)
            assert b'"error_type":"superseded"' in b"".join(blocks)
            httpx.delete(f"{deployment.one.url}/streams/{id_of(way)}")
            assert b'"error_type":"cancelled"' in b"".join(more)


def test_a_generation_is_known_everywhere(deployment: Deployment) -> None:
    """Whoever got it may ask any process for upstream's account of it."""
    with Client(deployment.one.url) as client, client.chat(SHORT) as answer:
        found = re.search(rb'"generation_id":"([^"]+)"', answer.read())
        way = way_of(answer)
    assert found is not None
    name = found[1].decode()
    with deployment.other(way) as other:
        account = other.get("/v1/generation", params={"id": name}).json()
        assert account["data"]["id"] == name
        missing = other.get("/v1/generation", params={"id": "gen-none"})
        assert missing.status_code == 404


def test_a_process_that_is_killed_takes_its_streams_with_it(
    servers: Deployment,
) -> None:
    """Who reads there is cut off; who comes back is told 410, there and at its host."""
    at_two = replace(servers, kind="host")
    way, _ = servers.begun(ENDLESS)
    before = servers.one.log.count("Running on")
    with at_two.other(way) as other, other.stream("GET", way) as back:
        blocks = back.iter_raw()
        next(blocks)
        for pid in children(servers.one._process.pid):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            b"".join(blocks)
    # The host has to start a worker before it can say so.
    assert httpx.get(f"{servers.two.url}{way}", timeout=30).status_code == 410

    def replaced() -> int:
        try:
            return httpx.get(f"{servers.one.url}{way}", timeout=30).status_code
        except httpx.TransportError:  # the new workers do not listen yet
            return 0

    assert until(replaced) == 410
    # The tests after this one count on both: a worker that starts drains nothing.
    until(lambda: servers.one.log.count("Running on") == before + 2)


def test_a_draining_host_lets_its_streams_be_read(servers: Deployment) -> None:
    """Over a connection that a client has, or through another host; all end alike.

    A stream to which nobody comes back ends with them, when the budget is spent.
    """
    at_two = replace(servers, kind="host")
    with Client(servers.one.url) as client, client.chat(SHORT) as answer:
        answer.read()
        ways = [servers.begun(ENDLESS)[0] for _ in range(3)]
        # A worker without a stream ends at once, and its connections with it.
        while owner_of(way_of(answer)) not in map(owner_of, ways):
            ways.append(servers.begun(ENDLESS)[0])
        with at_two.other(ways[1]) as other:
            servers.one._process.terminate()
            until(lambda: servers.one.log.count("drain_began") == 2)
            with client.stream("GET", ways[0]) as here:
                assert here.headers["connection"] == "close"
                with other.stream("GET", ways[1]) as there:
                    for back in (here, there):
                        text = back.read()
                        assert back.status_code == 200
                        assert ids(text) == list(range(1, len(ids(text)) + 1))
                        assert text.count(b'"error_type":"shutting_down"') == 1
    assert [servers.one.ended(id_of(way))["outcome"] for way in ways] == [
        "shutdown"
    ] * len(ways)
    assert servers.one._process.wait(10) == 0


def test_a_worker_stays_for_those_who_read_a_sibling_through_it(
    servers: Deployment,
) -> None:
    """Its own streams are over, or it has none; theirs ends when its owner says so.

    Workers share a port for peers: about half of the readers come by the worker that
    does not have their streams.
    """
    third = servers.host("third", 2)
    try:
        ways = [replace(servers, one=third).begun(ENDLESS)[0] for _ in range(16)]
        mine = [way for way in ways if owner_of(way) == owner_of(ways[0])]
        for way in set(ways) - set(mine):
            httpx.delete(f"{third.url}/streams/{id_of(way)}").raise_for_status()
            third.ended(id_of(way))
        with ExitStack() as stack:
            backs = []
            for way in mine:
                client = stack.enter_context(Client(servers.two.url))
                back = stack.enter_context(client.stream("GET", way))
                assert back.status_code == 200
                backs.append(back)
            third.signal(signal.SIGTERM)
            for back in backs:
                assert back.read().count(b'"error_type":"shutting_down"') == 1
        assert third._process.wait(10) == 0
        # No client of its own reads them; so it was said that nothing is live.
        assert f"draining: {len(mine)} live" in third.log
    finally:
        third.stop()


def test_a_worker_that_hangs_holds_no_reader_of_its_sibling(
    servers: Deployment,
) -> None:
    """Whoever is free takes the next connection of the port that they share."""
    third = servers.host("hung", 2)
    until(lambda: third.log.count("Running on") == 2)
    hung = children(third.pid)[0]
    os.kill(hung, signal.SIGSTOP)
    try:
        way, _ = replace(servers, one=third).begun(ENDLESS)
        for _ in range(8):
            with Client(servers.two.url) as client, client.stream("GET", way) as back:
                assert next(back.iter_raw()).startswith(b"id: 1\n")
    finally:
        with suppress(ProcessLookupError):  # its supervisor has killed it
            os.kill(hung, signal.SIGCONT)
        third.stop()
