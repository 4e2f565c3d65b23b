"""The marker sweeps async tests, beside the plugins that run async tests."""

from __future__ import annotations

import importlib.util
import shlex

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import contextlib, pytest, trio

class Env:
    permits = 1

@contextlib.asynccontextmanager
async def world():
    yield Env()

@pytest.fixture
def number():
    return 5

@pytest.mark.cancel_everywhere
async def test_whole(number):
    assert number == 5
    await trio.sleep(1)

@pytest.mark.cancel_everywhere(world=world, check=lambda e: ["lost"] * (not e.permits))
async def test_broken(sweep_env):
    sweep_env.permits -= 1
    await trio.sleep(1)
    sweep_env.permits += 1

class TestMethods:
    @pytest.mark.cancel_everywhere(seeds=1, allow={"not-swallowed": "for the test"})
    async def test_method(self):
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            pass

@pytest.mark.cancel_everywhere(seeds=0)
async def test_misused():
    await trio.sleep(1)

@pytest.mark.cancel_everywhere
async def test_never_waits():
    pass
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the tests above in a process of their own."""
    # What it is not tested beside costs each process seconds.
    others = "cacheprovider schemathesis xdist langsmith_plugin hypothesispytest valkey"
    quiet = [word for name in others.split() for word in ("-p", f"no:{name}")]
    return pytester.runpytest_subprocess(*quiet, "--strict-markers", *arguments)


def test_a_marked_test_is_swept(pytester: pytest.Pytester) -> None:
    """It passes or fails with the shortest token, the place, and the rule."""
    pytester.makepyfile(TESTS)
    result = run(pytester)
    result.assert_outcomes(passed=2, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*VIOLATED state*: lost",
            "*the act met body at test_a_marked_test_is_swept.py:*in test_broken*",
            "*::test_broken --sweep-replay '0:0:cancel'",
            "*expected at least one seed; got 0",
            "*test_never_waits never waits*",
        ]
    )


def test_a_token_is_replayed(pytester: pytest.Pytester) -> None:
    """With --sweep-replay one run is shown step by step, and judged."""
    pytester.makepyfile(TESTS)
    result = run(pytester, "-k", "test_broken", "--sweep-replay", "0:0:cancel")
    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(["*---- cancel", "*delivered at*", "VIOLATED state: *"])
    result = run(pytester, "-k", "test_whole", "--sweep-replay", "0:99:cancel")
    result.stdout.fnmatch_lines(["*has only*"])
    result.assert_outcomes(failed=1, deselected=4)


def test_the_command_that_replays_fits_the_shell_and_the_folder(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parameter may hold a quote; pytest may be called below its root."""
    pytester.makeini("[pytest]")
    folder = pytester.mkdir("below")
    (folder / "test_quoted.py").write_text(
        "import pytest, trio\n"
        "@pytest.mark.cancel_everywhere(allow={'logged': 'not tested'})\n"
        "@pytest.mark.parametrize('text', [\"it's\"])\n"
        "async def test_swallows(text):\n"
        "    try:\n"
        "        await trio.sleep(1)\n"
        "    except trio.Cancelled:\n"
        "        pass\n"
    )
    monkeypatch.chdir(folder)
    # Under CI pytest repeats the whole finding in its summary.
    line, *_ = [one for one in run(pytester).outlines if "once more: " in one]
    command = shlex.split(line.partition("once more: ")[2])
    assert command[1] == "test_quoted.py::test_swallows[it's]"
    again = run(pytester, *command[1:])
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["VIOLATED not-swallowed: *"])


def test_a_test_that_skips_itself_is_skipped(pytester: pytest.Pytester) -> None:
    """Where it does so only when cancelled, that is a finding."""
    pytester.makepyfile(
        "import pytest, trio\n"
        "@pytest.mark.cancel_everywhere\n"
        "async def test_at_once():\n"
        "    pytest.skip('no such program')\n"
        "@pytest.mark.cancel_everywhere\n"
        "async def test_cancelled():\n"
        "    try:\n"
        "        await trio.sleep(1)\n"
        "    except trio.Cancelled:\n"
        "        pytest.skip('cancelled')\n"
    )
    result = run(pytester, "-rs")
    result.assert_outcomes(skipped=1, failed=1)
    result.stdout.fnmatch_lines(["VIOLATED not-replaced*", "SKIPPED*no such program"])


def test_a_world_may_skip_its_test(pytester: pytest.Pytester) -> None:
    """So may a task in a nursery, which makes a group of it; xfail is alike."""
    pytester.makepyfile(
        """
        import contextlib, pytest, trio

        @contextlib.asynccontextmanager
        async def world():
            async with trio.open_nursery():
                await trio.sleep(1)
                pytest.skip("no database")
                yield

        @pytest.mark.cancel_everywhere(world=world)
        async def test_world():
            await trio.sleep(1)

        @pytest.mark.cancel_everywhere
        async def test_nursery():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 9)
                await trio.sleep(1)
                pytest.skip("no program")

        @pytest.mark.cancel_everywhere
        async def test_known():
            await trio.sleep(1)
            pytest.xfail("known")

        @pytest.mark.cancel_everywhere(world=lambda: None)
        async def test_no_manager():
            await trio.sleep(1)
        """
    )
    result = run(pytester, "-rsx")
    result.assert_outcomes(skipped=2, xfailed=1, failed=1)
    reasons = ["SKIPPED*no database", "SKIPPED*no program", "XFAIL*known"]
    result.stdout.fnmatch_lines(reasons)


@pytest.mark.parametrize("trio_mode", ["true", "false"])
@pytest.mark.skipif(not importlib.util.find_spec("pytest_trio"), reason="pytest-trio")
def test_it_works_beside_pytest_trio(pytester: pytest.Pytester, trio_mode: str) -> None:
    """Its own tests run once; swept ones are swept; async fixtures are refused."""
    pytester.makeini(f"[pytest]\ntrio_mode = {trio_mode}\n")
    pytester.makepyfile(
        """
        import pytest, trio
        runs = []

        @pytest.fixture
        async def async_fixture():
            return 5

        @pytest.mark.trio
        async def test_own(nursery):
            await trio.sleep(0)

        @pytest.mark.trio
        @pytest.mark.cancel_everywhere
        async def test_swept():
            runs.append(1)
            await trio.sleep(1)

        def test_swept_often():
            assert len(runs) > 5

        @pytest.mark.trio
        @pytest.mark.cancel_everywhere
        async def test_with_async_fixture(async_fixture):
            await trio.sleep(1)
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*async fixture: use world= for it"])


@pytest.mark.skipif(not importlib.util.find_spec("anyio"), reason="no AnyIO here")
def test_it_works_beside_anyio(pytester: pytest.Pytester) -> None:
    """AnyIO's own tests run on both backends; swept ones on Trio alone."""
    pytester.makepyfile(
        """
        import anyio, pytest
        pytestmark = pytest.mark.anyio
        runs = []

        async def test_own():
            await anyio.sleep(0)

        @pytest.mark.cancel_everywhere
        async def test_swept():
            runs.append(1)
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 1)
                await anyio.to_thread.run_sync(len, "abc")

        @pytest.mark.cancel_everywhere
        async def test_broken():
            try:
                await anyio.sleep(1)
            except anyio.get_cancelled_exc_class():
                pass

        @pytest.fixture
        async def made_by_anyio():
            yield 5

        @pytest.fixture
        def needs_it(made_by_anyio):
            return made_by_anyio

        @pytest.mark.cancel_everywhere
        async def test_with_async_fixture(needs_it):
            await anyio.sleep(1)
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=3, failed=2, skipped=3)
    result.stdout.fnmatch_lines(["VIOLATED not-swallowed*"])
    result.stdout.fnmatch_lines(["made_by_anyio is an async fixture: use world= *"])


def test_a_marker_that_cannot_mean_what_it_says_is_refused(
    pytester: pytest.Pytester,
) -> None:
    """What it expects is said, rather than that the surroundings failed."""
    pytester.makepyfile(
        """
        import contextlib, pytest, trio

        @contextlib.asynccontextmanager
        async def world():
            yield

        @contextlib.contextmanager
        def not_async():
            yield

        async def not_decorated():
            yield

        mark = pytest.mark.cancel_everywhere
        markers = [
            mark(world=world()), mark(world=not_async), mark(world=not_decorated),
            mark(world="world"), mark(check=5), mark({"scopes": False}),
        ]
        for number, marker in enumerate(markers):
            @marker
            async def test():
                await trio.sleep(1)
            globals()[f"test_{number}"] = test
        del test
        """
    )
    result = run(pytester)
    result.assert_outcomes(failed=6)
    result.stdout.fnmatch_lines(
        [
            "expected world to be a function, *: leave out its parentheses",
            "expected world to make *; it makes one that is not async",
            "expected world to make *: decorate it with contextlib.asynccontextmanager",
            "expected world to be a function; got 'world'",
            "expected check to be a function; got 5",
            "expected options of cancel_everywhere by name, *",
        ]
    )


def test_a_method_of_unittest_is_refused(pytester: pytest.Pytester) -> None:
    """Unittest would call it, and no sweep would be made."""
    pytester.makepyfile(
        """
        import pytest, unittest

        class Test(unittest.IsolatedAsyncioTestCase):
            @pytest.mark.cancel_everywhere
            async def test_method(self):
                pass
        """
    )
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_method: cancel_everywhere is for functions*"])
