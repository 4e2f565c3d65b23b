"""A reader at one process of a stream of another's, with keys: both in this run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.resume.test_resuming import (
    ENDLESS,
    assert_found_by_its_key,
    begin,
    ids,
    resume,
)
from tests.support.completions import over
from tests.support.world import World, world
from trio_ai_stream.admission.directory import SOCKET_OF, PeerDirectory
from trio_ai_stream.app_factory import listen_for_peers, reload_settings
from trio_ai_stream.http.application import Application, peer_app
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.side_listener import listen_unix, serve_beside
from trio_ai_stream.upstream.peer_link import PeerLink

KEYS = {"API_KEYS": "first-key,second-key", "ADMIN_KEYS": "admin-key"}
FIRST = {"authorization": "Bearer first-key"}


@asynccontextmanager
async def sibling(folder: Path) -> AsyncIterator[World]:
    """Give a process that its siblings in the folder find, and that finds them."""
    async with world(env=KEYS) as w:
        services = w.services
        live = services.registry
        services.directory = directory = PeerDirectory(folder, live, timeout_s=5)
        services.resumables.process = directory.process
        services.peers = PeerLink(folder)
        sock = listen_unix(folder / SOCKET_OF.format(directory.process), backlog=9)
        await w.nursery.start(directory.run)
        await w.nursery.start(serve_beside, peer_app(services), sock, Limits())
        yield w


async def test_a_key_is_asked_for_by_the_owner_too(tmp_path: Path) -> None:
    """The client's key goes along; another's finds nothing, an operator's all."""
    with trio.fail_after(20):
        async with sibling(tmp_path) as owner, sibling(tmp_path) as other:
            visit = begin(owner, model="simulator/fast?chunks=3", headers=FIRST)
            await over(visit)
            await assert_found_by_its_key(other, visit)
            plain = resume(other, visit, 1, x_api_key="first-key")
            await over(plain)
            assert ids(plain) == ids(visit)[1:]
            assert plain.headers["x-stream-resume"] == visit.headers["x-stream-resume"]


async def test_who_leaves_or_loses_the_owner_leaves_nothing(tmp_path: Path) -> None:
    """The owner detaches its stream; an owner that ends cuts its reader off."""
    with trio.fail_after(20):
        async with sibling(tmp_path) as other:
            async with sibling(tmp_path) as owner:
                visit = begin(owner, model=ENDLESS, headers=FIRST)
                while not ids(visit):
                    await visit.news.wait()
                back = resume(other, visit, 0, **FIRST)
                while not ids(back):
                    await back.news.wait()
                assert owner.services.resumables.detached == 0
                back.leave()
                await over(back)
                (resumable,) = owner.services.resumables._known.values()
                while not owner.services.resumables.detached:
                    await resumable.changed()
                again = resume(other, visit, 0, **FIRST)
                while not ids(again):
                    await again.news.wait()
                # At once, as if killed: what ends in order would tell its readers.
                owner.nursery.cancel_scope.cancel(reason="the owner is killed")
            await over(again)
            assert not again.ended.is_set(), "its response has no end"
            assert len(other.services.registry) == 0
            gone = resume(other, visit, 0, **FIRST)
            await over(gone)
            assert gone.status == 410


async def _start_nothing(_nursery: trio.Nursery) -> None:
    """Stand for the start of the services, which run already."""


async def test_a_reload_changes_the_bounds_of_the_listeners_for_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many readers may come from other processes as there may be streams."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAX_CONCURRENT_STREAMS", "7")
    async with world() as w:
        await listen_for_peers(w.services, w.nursery, tmp_path)
        (listener,) = w.services.peer_listeners
        assert listener.limits.connections != 7
        reload_settings(Application(w.services, _start_nothing))
        assert listener.limits.connections == 7
