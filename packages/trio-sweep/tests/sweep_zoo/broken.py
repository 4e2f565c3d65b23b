"""Programs that are broken, each in one way, which its name says."""

# flake8: noqa  # they are what linters warn of

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import trio

from sweep_zoo.animal import Zoo
from sweep_zoo.whole import echo_server, lock, takes
from trio_sweep import Cause, MemoryListener, MemoryStream, memory_listener

zoo = Zoo()
_calls = itertools.count()
_kept: list[int] = []


@zoo.animal("not-swallowed")
async def swallows() -> None:
    """Cancelled is taken for any error."""
    with contextlib.suppress(BaseException):
        await trio.sleep(1)


@zoo.animal("not-swallowed")
async def returns_in_finally() -> int:
    """`return` in `finally` drops what is on its way."""
    try:
        await trio.sleep(1)
    finally:
        return 5  # noqa: B012


@zoo.animal("not-replaced")
async def replaces() -> None:
    """Cancelled becomes an error of its own."""
    try:
        await trio.sleep(1)
    except BaseException as exc:
        raise RuntimeError("the connection was lost") from exc


@zoo.animal("ends")
async def swallows_in_a_loop() -> None:
    """Cancelled is swallowed again and again."""
    while True:
        try:
            await trio.sleep(1)
            return
        except trio.Cancelled:
            continue


@zoo.animal("ends")
async def cannot_be_killed() -> None:
    """The same, with everything else that is raised."""
    while True:
        try:
            await trio.sleep(1)
            return
        except BaseException:
            continue


@zoo.animal("shield-bounded", "at-once")
async def unbounded_shield() -> None:
    """The clean-up's shield has no deadline."""
    try:
        await trio.sleep(1)
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)


@zoo.animal("shield-bounded", "ends")
async def hangs_behind_a_shield() -> None:
    """The clean-up waits for what never comes."""
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
        raise


@zoo.animal("shield-limit", shield_limit_s=1)
async def long_shield() -> None:
    """The clean-up's shield has a deadline that helps nobody."""
    try:
        await trio.sleep(1)
    finally:
        with trio.move_on_after(30, shield=True):
            await trio.sleep(3)


@zoo.animal("shield-bounded", "at-once")
async def shield_in_a_shield() -> None:
    """The inner shield keeps the outer one's deadline away."""
    try:
        await trio.sleep(1)
    finally:
        with trio.move_on_after(1, shield=True), trio.CancelScope(shield=True):
            await trio.sleep(3)


@contextlib.asynccontextmanager
async def permits() -> AsyncIterator[trio.Semaphore]:
    """Yield one permit."""
    yield trio.Semaphore(1)


async def permit(it: trio.Semaphore) -> None:
    """Take the permit and give it back."""
    async with it:
        await trio.lowlevel.checkpoint()


@zoo.animal("usable", world=permits, after=permit)
async def waits_between_permit_and_try(it: trio.Semaphore) -> None:
    """A cancel between the permit and what gives it back."""
    await it.acquire()
    await trio.lowlevel.checkpoint()
    try:
        await trio.sleep(1)
    finally:
        it.release()


@zoo.animal("state", world=permits, check=lambda it: ["lost"] * (not it.value))
async def loses_a_permit(it: trio.Semaphore) -> None:
    """The permit comes back only when all went well."""
    await it.acquire()
    await trio.sleep(1)
    it.release()


@contextlib.asynccontextmanager
async def nursery_around() -> AsyncIterator[trio.Nursery]:
    """Yield a nursery that outlives the body."""
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


@zoo.animal("tasks", world=nursery_around)
async def leaves_a_task(nursery: trio.Nursery) -> None:
    """A task in another nursery is ended only when all went well."""
    done = trio.Event()
    nursery.start_soon(done.wait)
    await trio.sleep(1)
    done.set()
    await trio.sleep(1)


@zoo.animal("connections", world=echo_server)
async def leaves_a_connection(listener: MemoryListener) -> None:
    """A connection waits before somebody owns it."""
    stream = await listener.connect()
    await stream.send_all(b"hello")
    async with stream:
        await stream.receive_some()


@zoo.animal("descriptors")
async def leaves_a_descriptor() -> None:
    """A descriptor is closed only when all went well."""
    _kept.append(os.open(os.devnull, os.O_RDONLY))
    await trio.sleep(1)
    os.close(_kept.pop())


@zoo.animal("resource-warning")
async def leaves_a_socket_to_the_collector() -> None:
    """The same with an object that the collector closes."""
    sock = socket.socket()
    await trio.sleep(1)
    sock.close()


@dataclass
class Shelf:
    """Keeps what a body leaves."""

    things: list[object] = field(default_factory=list)


@contextlib.asynccontextmanager
async def shelf() -> AsyncIterator[Shelf]:
    """Yield a shelf, and empty it."""
    it = Shelf()
    yield it
    it.things.clear()


@zoo.animal("generators", "resource-warning", world=shelf)
async def leaves_a_generator(it: Shelf) -> None:
    """An async generator is closed only when all went well."""

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(1)
        yield 2

    them = numbers()
    it.things.append(them)
    await anext(them)
    await trio.sleep(1)
    await them.aclose()  # type: ignore[attr-defined]


@zoo.animal("threads", seeds=1)
async def leaves_a_thread() -> None:
    """A thread of its own is told to stop only when all went well."""
    stop = threading.Event()
    helper = threading.Thread(target=stop.wait, args=(1,), name="helper")
    helper.start()
    await trio.sleep(1)
    stop.set()
    helper.join()


async def _tell() -> None:
    await trio.lowlevel.checkpoint()


@zoo.animal("unawaited")
async def forgets_to_await() -> None:
    """The clean-up calls an async function like a plain one."""
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        _tell()  # type: ignore[unused-coroutine]
        raise


@zoo.animal("logged")
async def logs_a_cancel_as_an_error() -> None:
    """A cancel is logged as if something had failed."""
    try:
        await trio.sleep(1)
    except BaseException:
        logging.getLogger("zoo").exception("the request failed")
        raise


class _Fragile:
    whole = False

    def __del__(self) -> None:
        if not self.whole:
            raise RuntimeError("closed too late")


@zoo.animal("unraisable")
async def raises_in_a_destructor() -> None:
    """A destructor complains, which nobody can catch."""
    it = _Fragile()
    await trio.sleep(1)
    it.whole = True


@zoo.animal("deterministic")
async def differs_every_time() -> None:
    """What it does depends on how often it has run."""
    for _ in range(next(_calls) % 2):
        await trio.sleep(1)
    await trio.sleep(1)


@zoo.animal("deterministic")
async def remembers_other_runs() -> None:
    """Cancelled runs leave something that later runs trip over."""
    await trio.sleep(len(_memories) // 5)
    _memories.append(1)
    await trio.sleep(1)
    _memories.pop()


_memories: list[int] = []


@zoo.animal(
    "ends",
    world=echo_server,
    causes=(Cause("reset", MemoryListener.reset, (trio.BrokenResourceError,)),),
)
async def polls_a_dead_connection(listener: MemoryListener) -> None:
    """A connection that was reset is asked for ever."""
    async with await listener.connect() as stream:
        while True:
            try:
                await stream.send_all(b"?")
                await stream.receive_some()
                return
            except trio.BrokenResourceError:
                await trio.sleep(1)


@zoo.animal(
    "not-escaped",
    world=echo_server,
    causes=(Cause("reset", MemoryListener.reset, (trio.BrokenResourceError,)),),
)
async def cannot_be_reset(listener: MemoryListener) -> None:
    """A connection that breaks is an error that was not agreed upon."""
    async with await listener.connect() as stream:
        try:
            await stream.send_all(b"?")
            await stream.receive_some()
        except trio.BrokenResourceError:
            raise KeyError("no answer") from None


async def _strict(stream: MemoryStream) -> None:
    if (got := await stream.receive_some()) and got != b"hello":
        raise ValueError(f"not a greeting: {got!r}")


@contextlib.asynccontextmanager
async def greeted_server() -> AsyncIterator[MemoryListener]:
    """Yield a listener that expects its greeting in one piece."""
    async with memory_listener(_strict) as listener:
        yield listener


@zoo.animal("not-escaped", world=greeted_server)
async def sends_half_a_message(listener: MemoryListener) -> None:
    """A cancelled client sends what makes the server fail."""
    async with await listener.connect() as stream:
        greeting = b"hel"
        try:
            await trio.sleep(1)
            greeting = b"hello"
        finally:
            with trio.move_on_after(1, shield=True):
                await stream.send_all(greeting)


@zoo.animal("usable", world=lock, after=takes)
async def inner_timeout_keeps_the_lock(it: trio.Lock) -> None:
    """A timeout inside leaves the lock with a task that is over."""
    with trio.move_on_after(5):
        await it.acquire()
        await trio.sleep(1)
        it.release()


@zoo.animal(
    "state",
    world=permits,
    check=lambda it: ["lost"] * (not it.value),
    pairs=True,
    seeds=1,
)
async def loses_a_permit_to_two_causes(it: trio.Semaphore) -> None:
    """Only a cancel while a timeout is dealt with loses the permit."""
    it.acquire_nowait()
    try:
        with trio.move_on_after(5) as patience:
            await trio.sleep(1)
    except BaseException:
        it.release()
        raise
    if patience.cancelled_caught:
        await trio.sleep(1)
    it.release()


@zoo.animal("state", world=shelf, check=lambda it: ["an item is lost"] * len(it.things))
async def loses_an_item(it: Shelf) -> None:
    """An item is taken, and a cancel comes before it is dealt with."""
    send, receive = trio.open_memory_channel[int](1)
    async with send, receive:
        it.things.append(send.send_nowait(1))
        await receive.receive()
        await trio.lowlevel.checkpoint()
        it.things.clear()


@zoo.animal(
    "state", world=shelf, observe=lambda it: "two" if len(it.things) > 1 else ""
)
async def two_at_a_time(it: Shelf) -> None:
    """For a moment there are two where there must be one."""
    for _ in range(2):
        it.things.append(1)
        await trio.sleep(1)
        if len(it.things) > 1:
            it.things.clear()


@zoo.animal("undisturbed")
async def fails_anyway() -> None:
    """It does not work without a cancel either."""
    await trio.sleep(1)
    raise ValueError("broken")


@zoo.animal("not-escaped")
async def keeps_cancelled_for_later() -> None:
    """A Cancelled is kept, and raised where its scope is over."""
    kept: list[BaseException] = []
    with trio.CancelScope():
        try:
            await trio.sleep(1)
        except trio.Cancelled as exc:
            kept.append(exc)
            raise
    if kept:
        raise kept.pop()


@zoo.animal(
    "excuse",
    packages=(__file__,),
    excuses={
        "*:keeps_cancelled_for_later": "shown elsewhere",
        "*:gone": "it was renamed",
    },
)
async def excuses_what_is_not_there() -> None:
    """An excuse outlives what it excused."""
    await trio.sleep(1)
