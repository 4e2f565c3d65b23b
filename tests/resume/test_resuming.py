"""Streams that outlive their connection: the whole application on a mock clock."""

from __future__ import annotations

import re
import sys
from types import FrameType
from typing import Any, Final

import msgspec
import pytest
import trio
from loguru import logger
from trio.testing import MockClock, wait_all_tasks_blocked

from scripts.openapi_documents import StreamList
from tests.resume.endpoints import SAID, VARYING, error_type
from tests.support.completions import COMPLETIONS, over
from tests.support.world import BUDGETS, Visit, World, world
from trio_ai_stream.http.application import peer_app
from trio_ai_stream.wire.record import Outcome

PATHS: Final = tuple(SAID)
SLOW: Final = "simulator/default?chunks=20&delay_ms=100"
ENDLESS: Final = "simulator/default?endless=1"
FRAME: Final = re.compile(rb"id: (\d+)\n(?:event: .*\n)?data: .*\n\n")


def begin(
    w: World, path: str = "/chat", model: str = SLOW, grace: str = "10", **more: Any
) -> Visit:
    """Begin a stream, with a grace if one is named."""
    headers = {"x-request-id": "mine", **more.pop("headers", {})}
    if grace:
        headers["x-stream-grace"] = grace
    body = {"model": model, **SAID[path], **more}
    return w.visit(body, path, headers=headers)


def resume(w: World, first: Visit, after: int | None = None, **headers: str) -> Visit:
    """Come back to a stream, behind the event `after`."""
    way = first.headers["x-stream-resume"]
    if after is not None:
        headers["last-event-id"] = str(after)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return look(w, way, headers=names)


def look(w: World, way: str, **options: Any) -> Visit:
    """Ask for a path with a query."""
    path, _, query = way.partition("?")
    return w.visit(b"", path, method="GET", query=query, **options)


def ids(*visits: Visit) -> list[int]:
    """The ids of all events; there is nothing but events and comments."""
    found = []
    for visit in visits:
        for frame in visit.body.split(b"\n\n")[:-1]:
            if not frame.startswith(b":"):
                match = FRAME.fullmatch(frame + b"\n\n")
                assert match is not None, frame
                found.append(int(match[1]))
    return found


def without_ids(data: bytes) -> bytes:
    """The events as any stream has them; what differs between two is left out."""
    data = re.sub(rb"^id: \d+\n", b"", data, flags=re.MULTILINE)
    return VARYING.sub(b"", data)


async def undisturbed(path: str, model: str = SLOW) -> bytes:
    """What a client gets that asks for no grace."""
    async with world() as w:
        visit = begin(w, path, model, grace="")
        await over(visit)
        return without_ids(visit.body)


@pytest.mark.parametrize("path", PATHS)
async def test_who_asks_gets_ids_and_a_way_back(
    autojump_clock: MockClock, path: str
) -> None:
    """Granted seconds, a path with a token, ids from 1; else the same bytes."""
    async with world() as w:
        plain = begin(w, path, grace="")
        await over(plain)
        assert "x-stream-grace" not in plain.headers
        assert "x-stream-resume" not in plain.headers
        visit = begin(w, path, grace="2.5")
        await over(visit)
        assert visit.headers["x-stream-grace"] == "2.5"
        way = re.fullmatch(
            r"/streams/mine/events\?token=[0-9a-f]{12}\.([\w-]{22,})",
            visit.headers["x-stream-resume"],
        )
        assert way is not None
        assert ids(visit) == list(range(1, len(ids(visit)) + 1))
        await wait_all_tasks_blocked()
        assert [r.outcome for r in w.records] == [Outcome.COMPLETED] * 2
        assert all(r.told for r in w.records)
        assert without_ids(visit.body).count(b"\n") == plain.body.count(b"\n")
        await trio.sleep(3)
        assert len(w.services.resumables) == 0
        assert w.services.resumables.budget.held == 0
        w.assert_clean()


async def test_who_does_not_ask_pays_nothing(autojump_clock: MockClock) -> None:
    """A stream without a grace runs no function of resuming."""
    async with world() as w:
        await over(begin(w, grace=""))
        called: set[str] = set()

        def note(frame: FrameType, _event: str, _arg: object) -> None:
            called.add(frame.f_code.co_filename)

        sys.setprofile(note)
        try:
            await over(begin(w, grace=""))
        finally:
            sys.setprofile(None)
        assert any(name.endswith("stream/relay.py") for name in called)
        of_resuming = re.compile("trio_ai_stream/(resume/|http/resum)")
        assert not [name for name in called if of_resuming.search(name)]


async def test_nobody_is_missed_once_the_stream_has_ended(
    autojump_clock: MockClock,
) -> None:
    """What is read of upstream's answer behind its end is no time without a reader."""
    async with world() as w:
        first = begin(w, model="simulator/fast?chunks=2&first_token_ms=500&done_ms=700")
        await trio.sleep(0.1)
        first.leave()
        await trio.sleep(5)
        assert w.record.outcome is Outcome.COMPLETED
        assert w.record.detached_s == pytest.approx(0.4)


@pytest.mark.parametrize("path", PATHS)
async def test_all_connections_together_are_the_undisturbed_stream(
    autojump_clock: MockClock, path: str
) -> None:
    """Two connections are lost; nothing is missing and nothing comes twice."""
    whole = await undisturbed(path)
    async with world() as w:
        first = begin(w, path)
        await trio.sleep(0.75)
        first.leave()
        await over(first)
        (stream,) = w.services.registry
        assert stream.detached_at == trio.current_time()
        events = stream.events
        await trio.sleep(0.5)
        assert stream.events > events, "upstream is read on"
        second = resume(w, first, ids(first)[-1])
        await trio.sleep(0.25)
        assert w.services.resumables.detached == 0
        second.leave()
        await trio.sleep(0.2)
        third = resume(w, first, ids(first, second)[-1])
        await over(third)
        together = first.body + second.body + third.body
        assert ids(first, second, third) == list(
            range(1, together.count(b"data: ") + 1)
        )
        assert without_ids(together) == whole
        assert w.record.outcome is Outcome.COMPLETED
        assert w.record.told
        assert w.record.resumes == stream.resumes == 2
        assert w.record.detached_s == pytest.approx(0.7)
        assert stream.detached_s == pytest.approx(0.7)
        w.assert_clean()


@pytest.mark.parametrize("path", PATHS)
async def test_the_grace_is_over_to_the_second(
    autojump_clock: MockClock, path: str
) -> None:
    """Upstream is closed then and not before; the outcome is `abandoned`."""
    async with world() as w:
        visit = begin(w, path, model=ENDLESS)
        await trio.sleep(3)
        visit.leave()
        assert w.permits.held == 1
        await trio.sleep(9.99)
        assert not w.records
        assert w.transport.statistics().live == 1
        await trio.sleep(0.01)
        await wait_all_tasks_blocked()
        assert w.record.cancel_latency_s == 0
        assert w.record.outcome is Outcome.ABANDONED
        assert w.record.duration_s == pytest.approx(13, abs=1e-6)
        assert not w.record.told
        w.assert_clean()
        late = resume(w, visit, ids(visit)[-1])
        await over(late)
        assert error_type(path, late.body.split(b"\n\n")[-2]) == "abandoned"
        assert ids(visit, late) == list(range(1, len(ids(visit, late)) + 1))
        await trio.sleep(10)
        gone = resume(w, visit, 1)
        await over(gone)
        assert gone.status == 404
        assert len(w.records) == 1


async def test_a_reader_stops_the_clock(autojump_clock: MockClock) -> None:
    """Who came back in time keeps the stream for as long as it reads."""
    async with world() as w:
        visit = begin(w, model=ENDLESS, grace="3")
        await trio.sleep(1)
        visit.leave()
        await trio.sleep(2.9)
        back = resume(w, visit, ids(visit)[-1])
        await trio.sleep(30)
        assert w.records == []
        back.leave()
        await trio.sleep(3.001)
        assert w.record.outcome is Outcome.ABANDONED


async def test_a_stalled_client_is_a_lost_one(autojump_clock: MockClock) -> None:
    """It comes back on another connection and misses nothing."""
    async with world() as w:
        visit = begin(w)
        await trio.sleep(0.5)
        visit.reading = trio.Event()  # it reads no more
        await trio.sleep(0.5)
        had = ids(visit)[-1]
        visit.leave(stalled=True)
        (stream,) = w.services.registry
        assert stream.detached_at == trio.current_time()
        back = resume(w, visit, had)
        await over(back)
        assert ids(back)[0] == had + 1
        assert b'"type":"done"' in back.body
        assert w.record.outcome is Outcome.COMPLETED
        visit.reading.set()


@pytest.mark.parametrize("cause", ["delete", "deadline", "drain"])
async def test_other_causes_end_a_detached_stream_at_once(
    autojump_clock: MockClock, cause: str
) -> None:
    """First cause wins; who comes back then reads how it ended."""
    outcome = {
        "delete": Outcome.CANCELLED,
        "deadline": Outcome.DEADLINE_EXCEEDED,
        "drain": Outcome.SHUTDOWN,
    }[cause]
    async with world() as w:
        visit = begin(w, model=ENDLESS, grace="120")
        await trio.sleep(3)
        visit.leave()
        await trio.sleep(1)
        if cause == "delete":
            answer = w.visit(b"", "/streams/mine", method="DELETE")
            await over(answer)
            assert answer.status == 200
        elif cause == "drain":
            w.services.registry.begin_drain()
            await trio.sleep(1)
            assert w.records == []
            w.services.registry.end_streams()
        else:
            await trio.sleep(BUDGETS.deadline_s)
        assert w.transport.statistics().live == 0
        await wait_all_tasks_blocked()
        assert w.record.outcome is outcome
        w.assert_clean()
        back = resume(w, visit, ids(visit)[-1])
        await over(back)
        assert back.body.endswith(b"\n\n")
        assert back.body.count(b'"type":"error"') == 1
        assert ids(visit, back) == list(range(1, len(ids(visit, back)) + 1))


async def test_a_draining_server_lets_its_streams_be_read(
    autojump_clock: MockClock,
) -> None:
    """A client may still come back; a new stream is refused."""
    async with world() as w:
        visit = begin(w)
        await trio.sleep(0.5)
        visit.leave()
        w.services.registry.begin_drain()
        back = resume(w, visit, ids(visit)[-1])
        await over(back)
        assert b'"type":"done"' in back.body
        assert w.record.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("path", PATHS)
async def test_a_second_reader_takes_over(autojump_clock: MockClock, path: str) -> None:
    """The first is told and ends; the stream goes on, whole, to the second."""
    async with world() as w:
        first = begin(w, path)
        await trio.sleep(0.55)
        second = resume(w, first, 3)
        await over(first)
        told = first.body.split(b"\n\n")[-2]
        assert error_type(path, told) == "superseded"
        assert not told.startswith(b"id:")
        assert w.records == []
        await over(second)
        assert ids(second)[0] == 4
        assert b"superseded" not in second.body
        assert w.record.outcome is Outcome.COMPLETED
        assert w.record.told


@pytest.mark.parametrize("path", PATHS)
async def test_who_reads_too_slowly_for_the_end_is_told_as_well(
    autojump_clock: MockClock, path: str
) -> None:
    """The answer is whole, its reader has not had all, and another takes over."""
    async with world() as w:
        first = begin(w, path)
        first.reading = trio.Event()  # the first event is under way, for long
        await trio.sleep(5)
        second = resume(w, first, 0)
        await over(second)
        first.reading.set()
        await over(first)
        assert error_type(path, first.body.split(b"\n\n")[-2]) == "superseded"
        assert ids(second) == list(range(1, len(ids(second)) + 1))
        assert w.record.outcome is Outcome.COMPLETED


async def test_what_cannot_be_had(autojump_clock: MockClock) -> None:
    """404 for a wrong token or id, 400 for no id, 204 for all had, HEAD for nothing."""
    async with world() as w:
        visit = begin(w, model="simulator/fast?chunks=3")
        await over(visit)
        way = visit.headers["x-stream-resume"]
        last = ids(visit)[-1]
        for path, status in {
            way[:-1]: 404,
            way.replace("mine", "other"): 404,
            way.partition("?")[0]: 404,
            way + "%ff": 404,
            f"{way}&after=x": 400,
            f"{way}&after=-1": 400,
            f"{way}&after={last}": 204,
            f"{way}&after={last + 1}": 204,
            f"{way}&after={last - 1}": 200,
        }.items():
            answer = look(w, path)
            await over(answer)
            assert answer.status == status, path
        again = resume(w, visit, last)
        await over(again)
        assert (again.status, again.body) == (204, b"")
        everything = resume(w, visit)
        await over(everything)
        assert everything.body == visit.body
        assert everything.headers["x-stream-resume"] == way
        live = begin(w, headers={"x-request-id": "live"})
        await trio.sleep(0.5)
        ahead = resume(w, live, 999)
        await over(ahead)
        assert ahead.status == 400


async def test_no_log_has_the_token_of_a_stream(autojump_clock: MockClock) -> None:
    """No record, whatever a client does with its way back, leads anybody else there."""
    lines: list[str] = []
    number = logger.add(lines.append, level="TRACE", serialize=True)
    try:
        async with world(env={"LOG_LEVEL": "TRACE"}) as w:
            visit = begin(w)
            await trio.sleep(0.5)
            visit.leave()
            way = visit.headers["x-stream-resume"]
            token = way.partition("token=")[2]
            unknown = way.replace(w.services.resumables.process, "0123456789ab")
            for path in (way, way[:-1], f"{way}&after=x", f"/nowhere{way}", unknown):
                await over(look(w, path))
    finally:
        logger.remove(number)
    log = "".join(lines) + repr(w.records)
    assert "Outcome.COMPLETED" in log
    for status in (400, 404, 410):
        assert f'"status": {status}' in log
    assert token.rpartition(".")[2][:-1] not in log


async def assert_found_by_its_key(w: World, visit: Visit) -> None:
    """Come back at `w` with each key to a stream of `first-key`."""
    for key, status in {
        "": 401,
        "Bearer wrong": 401,
        "Bearer second-key": 404,
        "Bearer first-key": 200,
        "Bearer admin-key": 200,
    }.items():
        fields = {"authorization": key} if key else {}
        back = resume(w, visit, 1, **fields)
        await over(back)
        assert back.status == status, key


async def test_a_key_finds_its_own_streams_only(autojump_clock: MockClock) -> None:
    """With keys the token is not enough: another client's key finds nothing."""
    env = {"API_KEYS": "first-key,second-key", "ADMIN_KEYS": "admin-key"}
    async with world(env=env) as w:
        headers = {"authorization": "Bearer first-key"}
        visit = begin(w, headers=headers, grace="30")
        await trio.sleep(0.5)
        visit.leave()
        await assert_found_by_its_key(w, visit)


async def test_a_peer_gains_nothing_by_being_one(autojump_clock: MockClock) -> None:
    """Where other processes ask, token and key are needed too, and nothing else is."""
    async with world(env={"API_KEYS": "first-key,second-key"}) as w:
        app = peer_app(w.services)

        async def ask(path: str, key: str = "") -> Visit:
            place, _, query = path.partition("?")
            fields = {"authorization": f"Bearer {key}"} if key else {}
            visit = Visit(
                app, f"/peers{place}", b"", method="GET", query=query, headers=fields
            )
            w.nursery.start_soon(visit.task)
            await trio.sleep(0.1)
            return visit

        headers = {"authorization": "Bearer first-key"}
        visit = begin(w, headers=headers, grace="30")
        await trio.sleep(0.5)
        visit.leave()
        way = visit.headers["x-stream-resume"]
        assert (await ask(way)).status == 404
        assert (await ask(way, "wrong-key")).status == 404
        assert (await ask(way, "second-key")).status == 404
        assert (await ask(way[:-1], "first-key")).status == 410
        assert (await ask("/streams", "first-key")).status == 404
        assert (await ask("/health")).status == 404
        back = await ask(f"{way}&after=1", "first-key")
        assert back.status == 200
        assert b"id: 2\n" in back.body
        back.leave()
        await over(back)
        (stream,) = w.services.registry
        assert stream.shown_state == "detached"


async def test_nothing_goes_while_nobody_reads(autojump_clock: MockClock) -> None:
    """The log is bounded: upstream is not read, and a reader has all of it later."""
    env = {"GRACE_STREAM_BYTES": "3000"}
    model = "simulator/default?chunks=400&delay_ms=10"
    whole = await undisturbed("/chat", model)
    async with world(env=env) as w:
        visit = begin(w, model=model, grace="60")
        await trio.sleep(0.3)
        visit.leave()
        await trio.sleep(20)
        (stream,) = w.services.registry
        held = w.services.resumables.budget.held
        assert 3000 < held < 4000
        assert stream.events < 60
        back = resume(w, visit, ids(visit)[-1])
        await over(back)
        assert without_ids(visit.body + back.body) == whole
        assert w.services.resumables.budget.held <= 4000
        old = resume(w, visit, 1)
        await over(old)
        assert old.status == 410
        assert w.record.outcome is Outcome.COMPLETED


async def test_full_logs_grant_nothing_and_stop_no_reader(
    autojump_clock: MockClock,
) -> None:
    """GRACE_TOTAL_BYTES: 0 is granted, an attached stream goes on, then all is well."""
    env = {"GRACE_STREAM_BYTES": "3000", "GRACE_TOTAL_BYTES": "3000"}
    async with world(env=env) as w:
        gone = begin(w, model=ENDLESS, grace="20")
        reads = begin(w, headers={"x-request-id": "reads"}, grace="30")
        await trio.sleep(0.3)
        gone.leave()
        await trio.sleep(4)
        denied = begin(w, headers={"x-request-id": "denied"})
        await over(denied)
        await over(reads)
        assert denied.headers["x-stream-grace"] == "0"
        assert "x-stream-resume" not in denied.headers
        assert b"\nid:" not in denied.body
        assert b'"type":"done"' in denied.body
        assert b'"type":"done"' in reads.body
        assert w.services.resumables.refused == 1
        await trio.sleep(60)
        assert w.services.resumables.budget.held == 0
        assert [r.outcome for r in w.records].count(Outcome.ABANDONED) == 1


@pytest.mark.parametrize(
    ("most", "asked", "granted"),
    [("120", "500", "120"), ("120", "0", "0"), ("0", "60", "0"), ("7", "0.5", "0.5")],
)
async def test_what_is_granted(
    autojump_clock: MockClock, most: str, asked: str, granted: str
) -> None:
    """At most GRACE_MAX_SECS; 0 is an ordinary stream that says so."""
    async with world(env={"GRACE_MAX_SECS": most}) as w:
        visit = begin(w, model="simulator/fast?chunks=2", grace=asked)
        await over(visit)
        assert visit.headers["x-stream-grace"] == granted
        assert ("x-stream-resume" in visit.headers) == (granted != "0")
        assert visit.body.startswith(b"id: 1\n") == (granted != "0")


@pytest.mark.parametrize("asked", ["-1", "soon", "nan", "1e3", "", " "])
async def test_no_number_of_seconds_is_refused(
    autojump_clock: MockClock, asked: str
) -> None:
    """400 before there is a stream; nothing is taken."""
    async with world() as w:
        visit = w.visit(
            {"prompt": "x"}, headers={"x-stream-grace": asked, "x-request-id": "m"}
        )
        await over(visit)
        assert visit.status == 400
        assert b"X-Stream-Grace" in visit.body
        w.assert_clean()


async def test_a_document_has_no_grace(autojump_clock: MockClock) -> None:
    """`stream: false` is no stream: 0, and the document as ever."""
    async with world() as w:
        visit = begin(w, COMPLETIONS, stream=False)
        await over(visit)
        assert visit.headers["x-stream-grace"] == "0"
        assert visit.json()["object"] == "chat.completion"


async def test_a_refusal_has_its_true_status_for_who_comes_back(
    autojump_clock: MockClock,
) -> None:
    """Upstream refuses after the client has left; the status waits for it."""
    async with world() as w:
        model = "simulator/default?status=403&headers_ms=500"
        visit = begin(w, COMPLETIONS, model)
        await over(visit)
        assert visit.status == 403
        back = resume(w, visit)
        await over(back)
        assert (back.status, back.body) == (visit.status, visit.body)


async def test_heartbeats_go_to_who_reads(autojump_clock: MockClock) -> None:
    """They are in no log: a silent upstream costs a detached stream nothing."""
    async with world() as w:
        visit = begin(
            w, model="simulator/default?headers_ms=15000&chunks=2", grace="60"
        )
        await trio.sleep(5)
        assert visit.body.count(b": heartbeat") == 1
        visit.leave()
        await trio.sleep(5)
        back = resume(w, visit, 1)
        await over(back)
        assert 0 < back.body.count(b": heartbeat") <= 2
        assert ids(visit, back) == [1, 2, 3, 4]


async def test_its_id_is_taken_for_as_long_as_it_can_be_asked_for(
    autojump_clock: MockClock,
) -> None:
    """Another request with the same id gets an id of its own."""
    async with world() as w:
        visit = begin(w, grace="5")
        await trio.sleep(0.5)
        visit.leave()
        await wait_all_tasks_blocked()
        other = begin(w, grace="")
        await over(other)
        assert other.headers["x-request-id"] != "mine"
        assert other.status == 200
        await trio.sleep(30)
        last = begin(w, grace="")
        await over(last)
        assert last.headers["x-request-id"] == "mine"


async def test_the_list_says_that_nobody_reads(autojump_clock: MockClock) -> None:
    """`/streams` has the stream with its state, and since when it is detached."""
    async with world() as w:
        visit = begin(w, model=ENDLESS)
        await trio.sleep(2)
        visit.leave()
        await trio.sleep(1.5)
        listing = w.visit(b"", "/streams", method="GET")
        await over(listing)
        (stream,) = msgspec.json.decode(listing.body, type=StreamList).streams
        assert stream.state == "detached"
        assert stream.detached_s == 1.5
        assert w.services.resumables.detached == 1


async def test_a_bug_in_a_reader_ends_the_stream(autojump_clock: MockClock) -> None:
    """As everywhere: `internal_error`, and nothing is left."""
    async with world() as w:
        visit = begin(w, model=ENDLESS)
        await trio.sleep(1)
        (stream,) = w.services.registry
        resumable = w.services.resumables.find(
            "mine", visit.headers["x-stream-resume"].partition("=")[2]
        )
        assert resumable is not None
        assert resumable.reader is not None
        resumable.reader.end(Outcome.INTERNAL_ERROR)
        await wait_all_tasks_blocked()
        assert w.record.outcome is Outcome.INTERNAL_ERROR
        assert stream.ending is not None
        w.assert_clean()


async def test_a_detached_stream_counts_for_the_drain(
    autojump_clock: MockClock,
) -> None:
    """The server waits for it as for one with a reader."""
    async with world() as w:
        visit = begin(w, model=ENDLESS, grace="9")
        await trio.sleep(1)
        visit.leave()
        await over(visit)
        registry = w.services.registry
        registry.begin_drain()
        assert len(registry) == 1
        await registry.until_over()
        assert trio.current_time() == pytest.approx(10, abs=0.01)
        assert w.record.outcome is Outcome.ABANDONED
