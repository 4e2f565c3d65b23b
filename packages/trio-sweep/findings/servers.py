"""quart-trio and hypercorn: one request, cancelled from the server's side."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import hypercorn.config
import trio
from common import main, use
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from quart_trio import QuartTrio

from trio_sweep import Cause
from trio_sweep.memory import MemoryConnection


def application():
    """Make an application with a slow answer and a stream."""
    app = QuartTrio("app")
    app.living = 0

    @app.get("/")
    async def index():
        await trio.sleep(1)
        return "hello"

    @app.get("/stream")
    async def streamed():
        async def chunks():
            app.living += 1
            try:
                for number in range(3):
                    await trio.sleep(1)
                    yield f"{number}\n"
            finally:
                app.living -= 1

        return chunks(), 200

    return app


@contextlib.asynccontextmanager
async def app_world():
    """Yield an application that has started."""
    app = application()
    await app.startup()
    yield app


def asgi(path):
    """Make a request to the application as an ASGI server would."""

    async def body(app) -> None:
        received, sent = [{"type": "http.request", "body": b""}], []

        async def receive():
            await trio.lowlevel.checkpoint()
            if received:
                return received.pop()
            await trio.sleep_forever()
            return None

        async def send(message) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"x")],
            "client": ("x", 1),
            "server": ("x", 80),
            "extensions": {},
        }
        await app(scope, receive, send)
        assert sent[0]["status"] == 200

    return body


def nothing_lives(app):
    """Complain about streams that go on."""
    return ["a stream's generator was not closed"] * app.living


for path, name in (("/", "request"), ("/stream", "streamed response")):
    use(
        "quart-trio",
        name,
        asgi(path),
        world=app_world,
        after=asgi("/"),
        check=nothing_lives,
    )


async def plain_app(scope, receive, send) -> None:
    """Answer after a second, read the body before."""
    if scope["type"] == "http":
        await receive()
        await trio.sleep(1)
        head = {"type": "http.response.start", "status": 200, "headers": []}
        await send(head)
        await send({"type": "http.response.body", "body": b"hello"})


@contextlib.asynccontextmanager
async def connection_world():
    """Yield a connection whose request has been sent."""
    connection = MemoryConnection(16384)
    await connection.client.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    env = SimpleNamespace(connection=connection)
    yield env
    connection.client.close()


async def one_connection(env) -> None:
    """Let Hypercorn serve one connection; its client leaves after the answer."""
    config = hypercorn.config.Config()
    config.accesslog = config.errorlog = None

    async def client() -> None:
        data = b""
        while b"hello" not in data:
            data += await env.connection.client.receive_some()
        env.connection.client.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        server = TCPServer(
            ASGIWrapper(plain_app),
            config,
            WorkerContext(None),
            {},
            env.connection.server,
        )
        try:
            await server.run()
        finally:  # as trio.serve_listeners does for every handler
            await trio.aclose_forcefully(env.connection.server)


def closed(env):
    """Complain about a connection that the server keeps."""
    return [] if env.connection.server.closed else ["the server's end is open"]


def reset(env) -> None:
    """Let the network break the connection."""
    env.connection.reset()


use(
    "hypercorn",
    "one HTTP/1.1 connection",
    one_connection,
    world=connection_world,
    check=closed,
    causes=[Cause("reset", reset, raises=(trio.BrokenResourceError,))],
)

if __name__ == "__main__":
    main()
