"""Options of `sweep`, coverage, tokens, threads, and what runs must not share."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import random
import re
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

import trio_sweep
from trio_sweep import (
    Cause,
    MisuseError,
    Program,
    TokenError,
    ViolationsError,
    sweep,
)
from trio_sweep.coverage import await_sites, classify
from trio_sweep.engine import Sweep
from trio_sweep.injector import Boundary
from trio_sweep.plan import Acts, Plan
from trio_sweep.run import Run
from trio_sweep.token import Token


async def sleeps() -> None:
    """Wait for a second, with a timeout that has a name."""
    with trio.move_on_after(5) as patience:
        await trio.sleep(1)
    assert not patience.cancelled_caught


async def swallows() -> None:
    """Take Cancelled for an error."""
    with contextlib.suppress(BaseException):
        await trio.sleep(1)


def test_a_finding_raises_with_the_report_as_its_text() -> None:
    """The text holds the rule, the token and the place."""
    report = sweep(swallows)
    with pytest.raises(ViolationsError) as caught:
        report.raise_for_violations()
    assert str(caught.value) == str(report)
    assert "once more: --replay 0:0:cancel" in str(report)
    assert json.loads(report.to_json())["findings"][0]["invariant"] == "not-swallowed"


def test_a_finding_quotes_the_first_paragraph_of_an_error() -> None:
    """Trio explains a corrupted scope in twenty lines, which hide the others."""

    async def corrupts() -> None:
        scope = trio.CancelScope()
        with trio.CancelScope():
            scope.__enter__()
            await trio.sleep(1)

    (found,) = sweep(corrupts).findings
    assert "Cancel scope stack corrupted" in found.text
    assert "This is probably a bug in your code" not in found.text


def test_an_invariant_is_allowed_with_a_reason_which_is_shown() -> None:
    """A pattern narrows it; another text is still a violation."""
    report = sweep(swallows, allow={"not-swallowed": "it is a test"})
    assert report.clean
    assert "allowed not-swallowed (6 runs): it is a test" in str(report)
    narrow = sweep(swallows, allow={"not-swallowed:*elsewhere*": "it is a test"})
    assert not narrow.clean
    idle = sweep(sleeps, allow={"not-swallowed": "it is a test"})
    assert "allowed not-swallowed (0 runs): it is a test" in str(idle)


def test_scopes_are_chosen_by_their_labels() -> None:
    """All, none, or those that match."""
    everything = sweep(sleeps, seeds=1, scopes=True).runs
    nothing = sweep(sleeps, seeds=1, scopes=False).runs
    assert sweep(sleeps, seeds=1, scopes="*:patience").runs == everything > nothing


def test_a_scope_without_a_name_is_called_after_who_opened_it() -> None:
    """Not after the function that waits inside, which may be called from many."""

    class Keeper:
        def __init__(self) -> None:
            self.scope = trio.CancelScope()

    async def opens() -> None:
        with Keeper().scope, trio.move_on_after(5):
            await sleeps()

    landed = sweep(opens, seeds=1).landed
    labels = {name.rpartition(".")[2] for name in landed if name != "cancel"}
    assert labels == {"opens:0", "opens:1", "py:sleeps:patience"}


def test_a_body_that_is_swept_inside_of_trio_is_refused() -> None:
    """A sweep runs Trio itself."""

    async def inside() -> None:
        sweep(sleeps)

    with pytest.raises(MisuseError, match="outside of Trio"):
        trio.run(inside)


def test_a_sweep_leaves_nothing_behind() -> None:
    """Random numbers, hooks and threads are as before."""
    sweep(sleeps, seeds=1)  # Trio's cache has its thread from now on
    random.seed(5)
    state, hook, living = (
        random.getstate(),
        threading.excepthook,
        threading.active_count(),
    )
    sweep(sleeps, seeds=1)
    assert random.getstate() == state
    assert threading.excepthook is hook
    assert threading.active_count() <= living


def test_a_site_is_covered_only_where_an_act_landed(tmp_path: Path) -> None:
    """What the undisturbed run waits at does not count, nor what nobody waits at."""
    path = tmp_path / "program.py"
    path.write_text(
        "async def program(other, event):\n"
        "    async with other as a, \\\n"
        "            a as b:\n"
        "        await event.wait()\n"
        "    return [x async for x in b]\n"
    )
    sites = await_sites([str(path)])
    assert [site.line for site in sites] == [2, 3, 4, 5]
    name = str(path)
    executed = {(name, 2), (name, 4)}
    excuses = {"program.py:program": "not in this test", "*:gone": "renamed"}
    coverage = classify(sites, {(name, 4)}, executed, {})
    assert [site.line for site in coverage.covered] == [4]
    assert [site.line for site in coverage.unwaited] == [2]
    assert [site.line for site in coverage.missed] == [3, 5]
    excused = classify(sites, {(name, 4)}, executed, excuses)
    assert [site.line for site, _ in excused.excused] == [2, 3, 5]
    assert excused.stale == ["*:gone"]


def test_a_sweep_counts_the_sites_of_the_packages_named() -> None:
    """The denominator is every await of this file; one of them was met."""
    report = sweep(sleeps, seeds=1, packages=[__file__])
    assert report.coverage is not None
    met = [site.function for site in report.coverage.covered]
    assert met == ["sleeps"]
    assert "swallows" in {site.function for site in report.coverage.missed}


@pytest.mark.parametrize(
    "token",
    [
        Token(0),
        Token(3, ((17, "cancel"),)),
        Token(3, ((17, "scope@client.py:Client.ask.<locals>.one:patience#2"),)),
        Token(3, ((17, "reset"), (17, "cancel"))),
    ],
)
def test_a_token_survives_being_written(token: Token) -> None:
    """Reading what was written gives the same run."""
    assert Token.parse(str(token)) == token


@pytest.mark.parametrize(
    "text", ["", ":", "0:", "x", "0:1", "-1", "0:1:", "0:a:cancel"]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    """The error shows the forms that a token has."""
    with pytest.raises(TokenError, match="SEED:K:CAUSE"):
        Token.parse(text)


@contextlib.asynccontextmanager
async def order() -> AsyncIterator[list[str]]:
    """Yield a list to note things in."""
    yield []


def test_threads_run_in_lockstep() -> None:
    """Threads of different speed end in the order in which they were started."""
    orders = set()

    async def body(noted: list[str]) -> None:
        def work(name: str, pause: float) -> None:
            threading.Event().wait(pause)
            noted.append(name)
            trio.from_thread.run_sync(noted.append, name.upper())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, work, "a", 0.01)
            nursery.start_soon(trio.to_thread.run_sync, work, "b", 0.0)
        assert trio.current_time() == 0
        orders.add("".join(noted))

    report = sweep(body, world=order, seeds=1)
    report.raise_for_violations()
    assert report.fates["refused"] > 0
    assert len({one for one in orders if len(one) == 4}) == 1


def test_a_thread_that_does_not_return_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sweep does not wait for it for ever."""
    monkeypatch.setattr("trio_sweep.threads.PATIENCE_S", 0.2)
    stop = threading.Event()

    async def body() -> None:
        await trio.to_thread.run_sync(stop.wait)

    report = sweep(body, seeds=1)
    stop.set()
    assert "does not return" in report.findings[0].text


def test_a_thread_that_is_left_is_one_finding() -> None:
    """Python numbers threads through; the number tells no two leaks apart."""
    ends = threading.Event()

    async def body() -> None:
        thread = threading.Thread(target=ends.wait)
        thread.start()
        await trio.sleep(1)
        ends.set()
        thread.join()
        ends.clear()

    report = sweep(body)
    ends.set()
    assert [one.text for one in report.findings] == ["left: Thread-… (wait)"]


def test_real_sockets_can_be_swept() -> None:
    """With a moment for each event the clock does not jump over loopback."""

    async def body() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]

            async def echo(stream: trio.SocketStream) -> None:
                with contextlib.suppress(trio.BrokenResourceError):
                    async for data in stream:
                        await stream.send_all(data)

            nursery.start_soon(trio.serve_listeners, echo, listeners)
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.send_all(b"x")
                with trio.fail_after(5):
                    assert await stream.receive_some() == b"x"
            nursery.cancel_scope.cancel()

    allow = {
        "deterministic": "the kernel decides when bytes arrive",
        "resource-warning": "listeners that serve_listeners has not got yet",
    }
    sweep(
        body, seeds=1, settle_s=0.005, scopes=False, allow=allow
    ).raise_for_violations()


def test_judge_sees_what_the_world_yielded_and_the_run() -> None:
    """A program judges a run when everything is over; its complaints are `state`."""

    @contextlib.asynccontextmanager
    async def world() -> AsyncIterator[list[str]]:
        done: list[str] = []
        yield done
        done.append("left")

    async def body(_done: list[str]) -> None:
        await trio.sleep(1)

    def judge(done: list[str], run: Run) -> list[str]:
        cancelled = any(act.landed for act in run.acts)
        return [f"world {done}"] if cancelled else []

    program = Program(body, world, judge=judge)
    report = Sweep(program, Plan(seeds=1), "judged").run()
    assert [(one.invariant, one.text) for one in report.findings] == [
        ("state", "world ['left']")
    ]


def test_a_sweep_can_be_thinned_out_and_stopped_at_its_first_finding() -> None:
    """`choose` picks among the causes of a boundary; `most_runs` bounds the runs."""

    async def body() -> None:
        with trio.CancelScope():
            for _ in range(10):
                await trio.sleep(1)

    asked: list[int] = []

    def choose(
        _acts: Acts, boundary: Boundary, possible: Sequence[str]
    ) -> Sequence[str]:
        asked.append(boundary.state)
        return possible[:1] if len(asked) % 2 else ()

    thin = Sweep(Program(body), Plan(seeds=1, choose=choose), "thin").run()
    assert thin.landed["cancel"] == sum(k % 2 for k in range(1, len(asked) + 1))
    assert len(set(asked)) < 5 < len(asked)  # the same sleep, again and again
    few = Sweep(Program(body), Plan(seeds=1, most_runs=5), "few").run()
    assert few.runs == 5


def test_a_cause_may_close_what_the_last_task_has_just_begun_to_wait_for() -> None:
    """It acts between two steps, so that it is no task's own doing."""

    @contextlib.asynccontextmanager
    async def world() -> AsyncIterator[trio.socket.SocketType]:
        ours, theirs = trio.socket.socketpair()
        with ours, theirs:
            yield ours

    async def body(ours: trio.socket.SocketType) -> None:
        with trio.move_on_after(1):
            await ours.recv(1)

    close = Cause("close", lambda one: one.close(), (trio.ClosedResourceError,))
    report = sweep(body, world=world, causes=[close], seeds=1, settle_s=0.001)
    report.raise_for_violations()
    assert report.landed["close"] > 0


def test_a_cause_is_tried_only_where_it_applies() -> None:
    """No run is made in vain, and a token for another boundary is refused."""
    begun: list[float] = []

    async def body() -> None:
        begun.clear()
        await trio.sleep(1)
        begun.append(trio.current_time())
        await trio.sleep(1)

    cause = Cause("reset", lambda *_: None, applies=lambda *_: bool(begun))
    swept = Sweep(Program(body, causes={"reset": cause}), Plan(1, False), "applies")
    report = swept.run()
    assert report.idle == 0
    assert 0 < report.landed["reset"] < report.landed["cancel"]
    with pytest.raises(TokenError, match="met nothing"):
        swept.replayed(Token(0, ((0, "reset"),)))


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (Plan(1, choose=lambda *_: ()), "no act ever landed"),
        (Plan(1, scopes=["*:patience", "*:other"]), r"called \*:other$"),
        (Plan(1, packages=["json"]), "packages with an await; json"),
    ],
)
def test_a_sweep_that_tries_nothing_is_refused(plan: Plan, says: str) -> None:
    """Neither a thinned-out one, nor scopes and packages that are not there."""
    with pytest.raises(MisuseError, match=says):
        Sweep(Program(sleeps), plan, "idle").run()


def test_every_ordered_pair_of_causes_is_swept_also_at_one_boundary() -> None:
    """Each cause comes before and after each other one, and at the same boundary."""
    done: list[tuple[str, int]] = []
    met: set[tuple[str, str, bool]] = set()

    async def body() -> None:
        done.clear()
        for second in range(3):
            done.append(("", second))
            await trio.sleep(1)

    def noting(name: str) -> Cause:
        return Cause(name, lambda *_: done.append((name, len(done))))

    def check() -> None:
        causes = [one for one in done if one[0]]
        if len(causes) == 2:
            (first, at), (then, later) = causes
            met.add((first, then, later == at + 1))

    report = sweep(
        body, seeds=1, pairs=True, causes=map(noting, ("a", "b")), check=check
    )
    report.raise_for_violations()
    pairs = itertools.product("ab", "ab", (True, False))
    assert met == {pair for pair in pairs if pair[0] != pair[1] or not pair[2]} | {
        ("a", "a", True),
        ("b", "b", True),
    }
    assert report.landed["cancel"] > report.landed["a"] / 4


def test_a_finding_is_shrunk_to_the_act_that_it_needs() -> None:
    """A sweep that tried only pairs reports the one act that shows it alone."""

    def choose(
        acts: Acts, _boundary: Boundary, _possible: Sequence[str]
    ) -> Sequence[str]:
        return ["cancel"] if acts else ["nothing"]

    causes = {"nothing": Cause("nothing", lambda *_: None)}
    plan = Plan(seeds=1, pairs=True, choose=choose)
    report = Sweep(Program(swallows, causes=causes), plan, "pairs").run()
    assert report.with_two_acts > 0
    assert [one.token for one in report.findings] == ["0:0:cancel"]


def test_only_one_module_knows_trios_private_parts() -> None:
    """Another version of Trio has one file to break."""
    private = re.compile(
        r"\btrio\._(?!_)|\._(?:cancel_(?:status|called|reason)|next_send\w*|counter)\b"
    )
    source = Path(trio_sweep.__file__).parent
    knowing = {
        path.name for path in source.glob("*.py") if private.search(path.read_text())
    }
    assert knowing == {"internals.py"}


def test_a_program_does_not_see_that_it_runs_in_a_process_of_the_sweep() -> None:
    """With several jobs, `multiprocessing` tells a program the same as with one."""

    def alone() -> list[str]:
        parent = multiprocessing.parent_process()
        return [] if parent is None else [f"a child of {parent.name}"]

    assert sweep(sleeps, check=alone, jobs=2).clean
