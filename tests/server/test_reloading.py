"""A reload reaches a server at whatever moment of its life it is asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import trio
from hypercorn.utils import wrap_app

from tests.support.server.application import Application
from tests.support.server.servers import local_config
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.serving import Server
from trio_ai_stream.server.worker import Shutdown


async def test_a_reload_during_the_start_counts_once_the_server_listens() -> None:
    """It may have read its settings before; nobody hears that it is done before."""
    application, told = Application(), list[str]()
    old = Limits(drain_s=0.2)
    new = replace(old, connections=7)
    server = Server(old, application, lambda: new)
    shutdown = Shutdown(alone=False)
    shutdown.reload(partial(told.append, "reloaded"))  # it does not listen yet
    assert not told
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            app = wrap_app(cast("Any", application), 0, "asgi")
            listening = partial(told.append, "listening")
            serve = partial(server.serve, app, local_config(), shutdown=shutdown)
            await nursery.start(partial(serve, on_ready=listening))
            await trio.testing.wait_all_tasks_blocked()
            assert told == ["listening", "reloaded"]
            assert server.limits is new
            shutdown.reload(partial(told.append, "reloaded again"))
            assert told[-1] == "reloaded again"
            shutdown.request(everywhere=True)
