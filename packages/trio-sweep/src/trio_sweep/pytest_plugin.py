"""The pytest marker `cancel_everywhere`: an async test becomes a sweep.

    @pytest.mark.cancel_everywhere(world=server, after=still_answers)
    async def test_request(sweep_env):
        ...

The marker takes the options of `trio_sweep.sweep`. With `world` the test asks for
`sweep_env`, which is what the world yields, anew for every run. Other fixtures are made
once and must not be async: a run of Trio of its own could not use them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import shlex
import sys
import unittest
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, NoReturn

import pytest

from trio_sweep.engine import Sweep, sweep
from trio_sweep.errors import MisuseError, RunFailedError, leaves
from trio_sweep.plan import Plan
from trio_sweep.program import Program, causes_by_name, check_world
from trio_sweep.replay import replay

MARKER = "cancel_everywhere"
_ORIGINAL = pytest.StashKey[Callable[..., Awaitable[object]]]()
_OF_PROGRAM = ("world", "after", "check", "observe", "shield_limit_s", "settle_s")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs one token instead of the sweep."""
    parser.getgroup("trio-sweep").addoption(
        "--sweep-replay",
        metavar="TOKEN",
        help="run this token of the selected swept test once, and fail with its steps",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(**options): cancel this async test at every point (trio-sweep)",
    )


@pytest.fixture
def sweep_env() -> object:
    """Stand for what the marker's `world` yields; a swept test gets that instead."""
    return None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Take a swept test out of the hands of plugins that run async tests."""
    if item.get_closest_marker(MARKER) is None or not isinstance(item, pytest.Function):
        return
    if item.cls is not None and issubclass(item.cls, unittest.TestCase):
        raise pytest.UsageError(
            f"{item.nodeid}: {MARKER} is for functions and methods of plain classes;"
            " unittest calls those of a TestCase itself"
        )
    original = item.obj
    if not inspect.iscoroutinefunction(original):
        raise pytest.UsageError(f"{item.nodeid}: {MARKER} is for async tests")
    item.stash[_ORIGINAL] = original

    @functools.wraps(original)
    def swept(*_: object, **__: object) -> None:
        raise AssertionError("the plugin runs the sweep, not this function")

    del swept.__wrapped__  # it would show an async one
    swept._trio_test_runner_wrapped = True  # type: ignore[attr-defined]  # pytest-trio
    item.obj = swept


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Sweep a marked test instead of calling it."""
    marker = pyfuncitem.get_closest_marker(MARKER)
    original = pyfuncitem.stash.get(_ORIGINAL, None)
    if marker is None or original is None:
        return None
    __tracebackhide__ = True
    if str(pyfuncitem.funcargs.get("anyio_backend", "trio")) == "asyncio":
        pytest.skip("a sweep runs on Trio")
    if marker.args:
        pytest.fail(
            f"expected options of {MARKER} by name, as world=; got {marker.args!r}",
            pytrace=False,
        )
    for name, definitions in pyfuncitem._fixtureinfo.name2fixturedefs.items():
        made_by = inspect.unwrap(definitions[-1].func)
        if inspect.iscoroutinefunction(made_by) or inspect.isasyncgenfunction(made_by):
            pytest.fail(f"{name} is an async fixture: use world= for it", pytrace=False)
    names = pyfuncitem._fixtureinfo.argnames
    fixed = {name: pyfuncitem.funcargs[name] for name in names if name != "sweep_env"}
    for name, value in fixed.items():
        if inspect.isawaitable(value) or type(value).__name__ == "TrioFixture":
            pytest.fail(f"{name} is an async fixture: use world= for it", pytrace=False)
    options: dict[str, Any] = dict(marker.kwargs)
    if "sweep_env" in names and "world" not in options:
        pytest.fail("sweep_env is what the world yields: give world=", pytrace=False)

    verdicts: list[Callable[[], NoReturn]] = []

    async def body(*env: object) -> object:
        given = {"sweep_env": env[0]} if "sweep_env" in names else {}
        with _noting(verdicts):
            return await original(**given, **fixed)

    failure = _failure(body, pyfuncitem, options, verdicts)
    if failure is not None:
        pytest.fail(failure, pytrace=False)
    return True


@contextlib.contextmanager
def _noting(verdicts: list[Callable[[], NoReturn]]) -> Iterator[None]:
    """Note a skip or an expected failure that passes; it may come in a group.

    Only what makes it anew is kept: the exception itself would keep frames.
    """
    try:
        yield
    except BaseException as exc:
        for leaf in leaves(exc):
            if isinstance(leaf, pytest.skip.Exception):
                verdicts.append(functools.partial(pytest.skip, str(leaf)))
            elif isinstance(leaf, pytest.xfail.Exception):
                verdicts.append(functools.partial(pytest.xfail, str(leaf)))
        raise


class _NotedWorld:
    """A world that may skip its test, also where its nursery makes a group of that."""

    def __init__(
        self,
        world: AbstractAsyncContextManager[Any],
        verdicts: list[Callable[[], NoReturn]],
    ) -> None:
        self._verdicts = verdicts
        self._stack = contextlib.AsyncExitStack()
        self._world = world

    async def __aenter__(self) -> object:
        with _noting(self._verdicts):
            return await self._stack.enter_async_context(self._world)

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Awaitable[bool | None]:
        return self._stack.__aexit__(kind, exc, traceback)


def _failure(
    body: Callable[..., Awaitable[object]],
    item: pytest.Function,
    options: dict[str, Any],
    verdicts: list[Callable[[], NoReturn]],
) -> str | None:
    """Sweep, or replay; return what is wrong, if anything is."""
    token = item.config.getoption("sweep_replay")
    try:
        if callable(world := options.get("world")):
            check_world(world)
            options["world"] = lambda: _NotedWorld(world(), verdicts)
        if token is None:
            report = sweep(body, name=item.name, **options)
            if verdicts and not report.schedules:  # undisturbed, by the test itself
                verdicts[0]()
            # As seen from where pytest was called, which need not be its root.
            file = os.path.relpath(item.path, item.config.invocation_params.dir)
            test = shlex.quote(f"{file}::{item.nodeid.partition('::')[2]}")
            report.replay = f"pytest {test} --sweep-replay '{{token}}'"
            return None if report.clean else str(report)
        causes = causes_by_name(options.get("causes", ()))
        chosen = {key: options[key] for key in _OF_PROGRAM if key in options}
        program = Program(body, causes=causes, **chosen)
        plan = Plan(allow=options.get("allow") or {})
        text, holds = replay(Sweep(program, plan, item.name), token)
        sys.stdout.write(text + "\n")
    except (MisuseError, RunFailedError) as exc:
        return str(exc)
    return None if holds else text
