"""Why Redis or Valkey can't be used is said in words that help, once."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import coredis
import pytest
import trio
from coredis.exceptions import ResponseError

from cancel_lab.process import free_port
from tests.admission.gates import GateMaker, until
from tests.admission.streams import Streams
from tests.admission.valkey import BINARIES, Server, cluster_node, running, tls_redis
from tests.billing.test_usage_ledger import DAY_S, row
from tests.support.descriptors import no_descriptors
from trio_ai_stream.admission.gate import ClusterRefusedError
from trio_ai_stream.admission.shared.shared_directory import SharedDirectory
from trio_ai_stream.admission.shared.shared_gate import MOST, PERIOD_S, Changes
from trio_ai_stream.admission.shared.valkey_link import Unavailable, explain
from trio_ai_stream.billing.shared_totals import SharedTotals, SharedUsage
from trio_ai_stream.billing.spending import Spent, today
from trio_ai_stream.billing.usage_report import UsageQuery
from trio_ai_stream.telemetry.metrics import Metrics

Log = Callable[[str], list[dict[str, object]]]

SCALE = Path("docs/scale.md").read_text(encoding="utf-8")
USER = ["--user", "default", "on", "nopass"]


async def cause(url: str, make_gate: GateMaker, log: Log) -> str:
    """Start a gate with its directory; return why it fell back."""
    gate = make_gate(url, timeout_s=0.5)
    SharedDirectory(gate, Streams("here"))
    async with trio.open_nursery() as nursery:
        await nursery.start(gate.run)
        assert gate.status().mode == "fallback"
        nursery.cancel_scope.cancel(reason="the test is over")
    (record,) = log("gate_fallback")
    return str(record["cause"])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://nohost.invalid:6379", "dns: no address for nohost.invalid:6379"),
        ("redis://127.0.0.1:1", "refused: nobody listens at 127.0.0.1:1"),
    ],
)
async def test_a_server_that_is_not_there(
    url: str, expected: str, make_gate: GateMaker, log: Log
) -> None:
    """A wrong name and a wrong port are two things."""
    assert (await cause(url, make_gate, log)).startswith(expected)


async def test_our_own_lack_of_descriptors_is_named(
    valkey: Server, make_gate: GateMaker, log: Log
) -> None:
    """It is not the server's fault, which is found again once there are some."""
    gate = make_gate(valkey.url)
    async with trio.open_nursery() as nursery:
        with no_descriptors():
            await nursery.start(gate.run)
        (record,) = log("gate_fallback")
        expected = "descriptors: this process has no file descriptor left"
        assert record["cause"] == expected
        await until(lambda: gate.link.up)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_key_of_another_program_is_named(
    any_server: Server, make_gate: GateMaker, log: Log
) -> None:
    """With what to do; a client's name, which may be its address, is not said."""
    gate = make_gate(any_server.url)
    with trio.fail_after(20):
        async with coredis.Redis.from_url(any_server.url) as client:
            await client.set(gate.keys.permits[2], "foreign")
            async with trio.open_nursery() as nursery:
                await nursery.start(gate.run)
                (record,) = log("gate_fallback")
                said = str(record["cause"])
                assert said.startswith("unavailable: a key of ours holds what another")
                assert "delete it, or set another REDIS_PREFIX: one of " in said
                assert gate.keys.permits[2] in said
                await client.delete([gate.keys.permits[2]])
                await until(lambda: gate.link.up)
                await client.lpush(gate.keys.rate("ip:10.0.0.1"), ["foreign"])
                await gate.admit_request("ip:10.0.0.1")
                said = str(log("gate_fallback")[-1]["cause"])
                assert said.endswith(f"one of {{{gate.keys.prefix}:<client>}}:rate")
                nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize(
    ("arguments", "scheme", "expected"),
    [
        (["--requirepass", "secret-1"], "redis", "password: refused; check"),
        ([], "rediss", "timeout: connecting to 127.0.0.1:{port} (a port without TLS"),
        ([*USER, "~*", "+@all", "resetchannels"], "redis", "acl: No permissions"),
        ([*USER, "~*", "&*", "+@all", "-evalsha"], "redis", "acl: User default has no"),
        ([*USER, "~*", "&*", "+@all", "-zadd"], "redis", "acl: ACL failure in script"),
        ([*USER, "~other", "&*", "+@all"], "redis", "acl: No permissions"),
        (["--replicaof", "127.0.0.1 1"], "redis", "unavailable: a replica"),
    ],
)
async def test_a_server_that_refuses(
    arguments: list[str], scheme: str, expected: str, make_gate: GateMaker, log: Log
) -> None:
    """Password, scheme, role and the rights of the user are named."""
    with running("valkey", *arguments) as server:
        url = f"{scheme}://127.0.0.1:{server.port}"
        said = await cause(url, make_gate, log)
    assert said.startswith(expected.format(port=server.port))


async def test_a_server_that_does_not_answer(
    own_valkey: Server, make_gate: GateMaker, log: Log
) -> None:
    """It was named by the class of our client's error."""
    own_valkey.freeze()
    said = await cause(own_valkey.url, make_gate, log)
    where = f"127.0.0.1:{own_valkey.port}"
    assert said == f"timeout: {where} accepts a connection and says nothing"


async def test_a_server_without_a_place_for_all_connections_is_not_up(
    make_gate: GateMaker, log: Log
) -> None:
    """Its subscription took the only place, and the first decision the link down."""
    with running("valkey", "--maxclients", "1") as server:
        gate = make_gate(server.url)
        SharedDirectory(gate, Streams("one"))
        async with trio.open_nursery() as nursery:
            await nursery.start(gate.run)
            assert gate.status().mode == "fallback"
            nursery.cancel_scope.cancel(reason="the test is over")
    (record,) = log("gate_fallback")
    assert "as many clients as its maxclients allows" in str(record["cause"])
    assert log("gate_shared") == []


@pytest.mark.parametrize("kind", ["valkey", "redis"])
@pytest.mark.parametrize("database", ["", "/2"])
async def test_the_documented_user_has_the_rights_it_needs(
    database: str, kind: str, make_gate: GateMaker
) -> None:
    """The ACL of docs/scale.md is enough for limits, listing, cancelling and sums.

    Redis 7.0 did not know one of its words.
    """
    if BINARIES[kind] is None:
        pytest.skip(f"no {kind}-server on this machine")
    rule = SCALE[SCALE.index("ACL SETUSER chat on >PASSWORD") :].partition("\n\n")[0]
    words = [*rule.replace("\\", " ").split()[2:], *(["+select"] if database else [])]
    prefix = "trio-ai-stream"
    with running(kind, "--user", *words) as server:
        url = f"redis://chat:PASSWORD@127.0.0.1:{server.port}{database}"
        gate = make_gate(url, prefix=prefix)
        here = Streams("here", a="ann")
        directory = SharedDirectory(gate, here, peer_address=("10.0.0.2", 9000))
        metrics = Metrics(version="1", upstream="simulator")
        totals = SharedTotals(gate, metrics, "local", retention_s=DAY_S)
        usage = SharedUsage(gate, retention_s=DAY_S)
        async with trio.open_nursery() as nursery:
            await nursery.start(gate.run)
            assert gate.status().mode == "shared"
            assert (await gate.admit_request("ann")).allowed
            permit = await gate.acquire_stream("ann", "a")
            assert (await directory.list_streams(None)).complete
            assert await directory.cancel("elsewhere", None) is None
            assert await directory.address_of("elsewhere") is None
            totals.count(row(), 1)
            totals.add("a", 5, today())
            await totals.leave()
            assert await totals.ask("a") == Spent(5, 5)
            assert await usage.sums(UsageQuery.parse({"by": "key"}))
            permit.release()  # type: ignore[union-attr]
            await gate.leave()
            assert gate.link.up, gate.link._reason
            nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.skipif(BINARIES["redis"] is None, reason="no redis-server on this machine")
@pytest.mark.parametrize(
    ("name", "expired", "trusted", "scheme", "expected"),
    [
        ("localhost", True, True, "rediss", "tls: the certificate of {} has expired"),
        ("other.test", False, True, "rediss", "tls: the certificate of {} is for an"),
        ("localhost", False, False, "rediss", "tls: the certificate of {} is not tru"),
        ("localhost", False, True, "redis", "unavailable: {} closed the connection"),
    ],
)
async def test_a_certificate_that_does_not_do(
    name: str,
    expired: bool,
    trusted: bool,
    scheme: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_gate: GateMaker,
    log: Log,
) -> None:
    """Expired, for another name, not trusted, no TLS where TLS is: each is named."""
    with tls_redis(tmp_path, name, expired=expired) as port:
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        said = await cause(f"{scheme}://localhost:{port}", make_gate, log)
    assert said.startswith(expected.format(f"localhost:{port}"))


def test_a_node_whose_port_is_taken_says_so() -> None:
    """A server of the tests that can't start says why, and leaves no process."""
    taken = socket.create_server(("127.0.0.1", 0))
    port = str(taken.getsockname()[1])
    server = Server(str(BINARIES["valkey"]), "--port", port)
    with taken, pytest.raises(AssertionError, match="Address already in use"):
        server.start()


async def test_a_cluster_is_refused_at_start(make_gate: GateMaker) -> None:
    """A gate does not start with a node of a cluster, whatever its policy."""
    with (
        cluster_node() as (server, _),
        pytest.RaisesGroup(ClusterRefusedError, flatten_subgroups=True),
    ):
        await make_gate(server.url).run()


async def test_a_working_cluster_is_refused_as_well(make_gate: GateMaker) -> None:
    """A node that owns the place of our keys is refused if another owns the rest."""
    with cluster_node() as (first, _), cluster_node() as (second, bus):
        async with (
            coredis.Redis[str].from_url(first.url, decode_responses=True) as one,
            coredis.Redis[str].from_url(second.url, decode_responses=True) as two,
        ):
            await one.cluster_addslotsrange([(0, 8191)])
            await two.cluster_addslotsrange([(8192, 16383)])
            await one.cluster_meet("127.0.0.1", second.port, bus)
            with trio.fail_after(20):
                while (await one.cluster_info())["cluster_state"] != "ok":  # noqa: ASYNC110
                    await trio.sleep(0.05)  # Valkey tells nobody
        with pytest.RaisesGroup(ClusterRefusedError, flatten_subgroups=True):
            await make_gate(first.url).run()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_with_a_cluster_says_one_sentence_and_ends(workers: str) -> None:
    """`serve` says once what the setting should be, does not fall back, and ends."""
    with cluster_node() as (server, _):
        ended = subprocess.run(
            [sys.executable, "-m", "trio_ai_stream", "serve"],
            env={
                **os.environ,
                "REDIS_URL": server.url,
                "PORT": str(free_port()),
                "WORKERS": workers,
            },
            capture_output=True,
            timeout=60,
            check=False,
            text=True,
        )
    assert ended.returncode == 1
    (said,) = ended.stderr.strip().splitlines()
    assert "REDIS_URL: expected one server, got a node of a cluster" in said


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "descriptors: this process has"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "unavailable: no way to h:1"),
        (Unavailable("full", "OOM"), "full: OOM"),
        (
            ResponseError(f"OOM no room script: {'a1' * 20}, on @user_script:31."),
            "full: OOM no room, and",
        ),
    ],
)
def test_a_cause_is_found_in_whatever_wraps_it(error: Exception, expected: str) -> None:
    """What coredis and nurseries put around a cause does not hide it."""
    wrapped = RuntimeError("connecting")
    wrapped.__cause__ = ExceptionGroup("all attempts failed", [error])
    said = f"{explain(wrapped, 'redis://h:1')}, and"
    assert said.startswith(expected)


def test_tls_is_not_suspected_of_ending_a_connection_that_was_up() -> None:
    """The address was right until then."""
    said = explain(ConnectionResetError(), "redis://h:1", was_up=True)
    assert str(said) == "unavailable: h:1 closed the connection"
    assert "rediss://" in str(explain(ConnectionResetError(), "redis://h:1"))


async def test_flapping_is_one_record_with_a_count(
    autojump_clock: object, log: Log
) -> None:
    """A link that is lost four times a second makes one record a minute."""
    changes = Changes("local")
    lost = Unavailable("timeout", "admit 0.25 s")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.run)
        for _ in range(4 * 150):
            changes.changed(lost, 2)
            await trio.sleep(0.1)
            changes.changed(None, 2)
            await trio.sleep(0.15)
        flapping = log("gate_flapping")
        first, *others = [int(str(record["losses"])) for record in flapping]
        assert first == MOST + 1
        assert [round(losses, -1) for losses in others] == [240, 240]
        assert len(log("gate_fallback")) == MOST
        assert len(log("gate_shared")) == MOST
        await trio.sleep(2 * PERIOD_S)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert len(log("gate_flapping")) == 4
    assert len(log("gate_shared")) == MOST + 1


async def test_what_keeps_the_link_down_is_told_as_well(
    autojump_clock: object, log: Log
) -> None:
    """Not for a short restart, once each, and no more than some of them."""
    changes = Changes("local")
    assert changes.changed(Unavailable("unavailable", "closed the connection"), 2)
    for number in range(300):
        cause = Unavailable("refused" if number < 5 else "password", f"{number // 50}")
        assert not changes.changed(cause, 2)
        await trio.sleep(1)
    told = [record["cause"] for record in log("gate_fallback")]
    first = "unavailable: closed the connection"
    assert told == [first, "password: 0", "password: 1", "password: 2"]
    changes.changed(None, 2)
    assert len(log("gate_shared")) == 1


async def test_a_link_that_is_lost_now_and_then_does_not_flap(
    autojump_clock: object, log: Log
) -> None:
    """Losses that are minutes apart are told one by one, with their causes."""
    changes = Changes("local")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.run)
        for _ in range(10):
            changes.changed(Unavailable("refused"), 2)
            await trio.sleep(1)
            changes.changed(None, 2)
            await trio.sleep(30)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert len(log("gate_fallback")) == 10
    assert log("gate_flapping") == []
