"""An inbox has one reader at a time, and a cancelled one takes nothing with it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ai_stream.server.http_stream import Inbox, Message


async def test_a_second_reader_is_refused() -> None:
    """Whoever waited first would never be woken."""
    inbox = Inbox(1)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.receive)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await inbox.receive()
            inbox.disconnect()


async def test_a_message_is_not_lost_with_a_cancelled_reader() -> None:
    """It goes to the next, whether it came before the cancel, with it or after it."""
    inbox = Inbox(1)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        inbox.put_nowait(b"after", more_body=True)
        assert (await inbox.receive())["body"] == b"after"

        seen: list[Message] = []

        async def read() -> None:
            seen.append(await inbox.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            inbox.put_nowait(b"with", more_body=True)
            nursery.cancel_scope.cancel()
        assert [message["body"] for message in seen] == [b"with"]
        inbox.put_nowait(b"before", more_body=False)
        with trio.CancelScope() as cut:
            cut.cancel()
            await inbox.receive()
        assert (await inbox.receive())["body"] == b"before"


async def test_a_disconnect_wakes_its_reader_and_overtakes_the_body() -> None:
    """Then every `receive` says the same, and nothing is queued any more."""
    inbox = Inbox(1)
    seen: list[Message] = []

    async def read() -> None:
        seen.append(await inbox.receive())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            inbox.put_nowait(b"never seen", more_body=True)
            inbox.disconnect()
        assert seen == [{"type": "http.disconnect"}]
        assert await inbox.receive() == seen[0]
        assert (inbox.queued_bytes, inbox.full) == (0, False)
