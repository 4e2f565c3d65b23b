"""AnyIO programs on Trio's backend, whole and broken; empty where AnyIO is not."""

# flake8: noqa  # the broken ones are what linters warn of

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator

from sweep_zoo.animal import Zoo

whole, broken = Zoo(), Zoo()

if importlib.util.find_spec("anyio"):
    import anyio
    import anyio.to_thread

    @contextlib.asynccontextmanager
    async def limiter() -> AsyncIterator[anyio.CapacityLimiter]:
        """Yield one token."""
        yield anyio.CapacityLimiter(1)

    async def borrow(it: anyio.CapacityLimiter) -> None:
        """Borrow the token and give it back."""
        async with it:
            await anyio.sleep(1)

    @whole.animal()
    async def anyio_task_group() -> None:
        """Two children and a timeout of their own."""
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 1)
            with anyio.move_on_after(0.5):
                await anyio.sleep(2)

    @whole.animal()
    async def anyio_waits_for_a_child() -> None:
        """Nobody cancels the child alone: its handle is not kept."""
        ready = anyio.Event()

        async def child() -> None:
            await anyio.sleep(1)
            ready.set()

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            await ready.wait()

    @whole.animal()
    async def anyio_condition() -> None:
        """AnyIO takes the lock back behind a shield of its own, as Trio does."""
        condition = anyio.Condition()

        async def wait() -> None:
            async with condition:
                await condition.wait()

        async def notify() -> None:
            async with condition:
                await anyio.sleep(1)
                condition.notify()

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.1)
            group.start_soon(notify)

    @whole.animal(shield_limit_s=1)
    async def anyio_bounded_clean_up() -> None:
        """A clean-up behind a shield with a deadline."""
        try:
            await anyio.sleep(1)
        finally:
            with anyio.move_on_after(0.5, shield=True):
                await anyio.sleep(2)

    @whole.animal()
    async def anyio_stream_of_items() -> None:
        """A producer and a consumer, each of which closes its end."""
        send, receive = anyio.create_memory_object_stream[int](1)

        async def produce() -> None:
            async with send:
                for number in range(3):
                    await send.send(number)

        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            async with receive:
                assert [one async for one in receive] == [0, 1, 2]

    @whole.animal(world=limiter, after=borrow)
    async def anyio_thread_with_a_token(it: anyio.CapacityLimiter) -> None:
        """A thread holds the token as long as it runs."""
        assert await anyio.to_thread.run_sync(sum, (1, 2), limiter=it) == 3

    @broken.animal("not-swallowed")
    async def anyio_swallows() -> None:
        """The backend's own Cancelled is taken for an error."""
        with contextlib.suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep(1)

    @broken.animal("shield-bounded", "at-once")
    async def anyio_unbounded_shield() -> None:
        """The clean-up's shield has no deadline."""
        try:
            await anyio.sleep(1)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)

    @broken.animal("usable", world=limiter, after=borrow)
    async def anyio_keeps_a_token(it: anyio.CapacityLimiter) -> None:
        """The token comes back only when all went well."""
        await it.acquire_on_behalf_of("it")
        await anyio.sleep(1)
        it.release_on_behalf_of("it")
