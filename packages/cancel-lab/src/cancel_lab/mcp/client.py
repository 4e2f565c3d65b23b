"""A client that speaks whichever revision the server does, and can leave any call."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from cancel_lab.clients.acts import Transport
from cancel_lab.clients.chat_stream import ChatRequest, ChatStream
from cancel_lab.clients.connection import Connection
from cancel_lab.clients.dial import dial
from cancel_lab.clients.http2 import HTTP2Stream
from cancel_lab.mcp import messages
from cancel_lab.mcp.messages import LEGACY, MODERN, Address, Message
from cancel_lab.trial import TrialError


class Call:
    """One request under way, and the messages that have come on its stream."""

    def __init__(self, stream: ChatStream, body: bytearray, number: int) -> None:
        """Made by `MCPClient.call`."""
        self.stream = stream
        self.number = number
        self._body = body

    @property
    def messages(self) -> list[Message]:
        """What has come so far."""
        kind = self.stream.seen.headers.get("content-type", "")
        return messages.messages(bytes(self._body), kind)

    @property
    def answer(self) -> Message | None:
        """The response to this call, None while there is none."""
        for message in self.messages:
            if message.get("id") == self.number and "method" not in message:
                return message
        return None

    @property
    def strays(self) -> list[Message]:
        """Messages that are about something else."""
        found = self.messages
        return [one for one in found if not messages.belongs(one, self.number)]

    async def read_until(self, enough: Callable[[Call], bool]) -> None:
        """Read until it is enough.

        :raises TrialError: the stream was over before.
        """
        while not enough(self):
            if self.stream.seen.over:
                raise TrialError(
                    f"expected more of call {self.number}, but its stream is over:"
                    f" status {self.stream.seen.status}, {self.stream.seen.ending},"
                    f" {bytes(self._body[:300])!r}"
                )
            await self.stream.read()

    async def read_answer(self) -> Message:
        """Read until the response is there, and return it."""
        await self.read_until(lambda call: call.answer is not None)
        assert self.answer is not None
        return self.answer


class MCPClient:
    """Knows the server's path and revision, and its session if there is one."""

    def __init__(self, address: Address, transport: Transport) -> None:
        """Nothing is sent before `negotiate`."""
        self.address = address
        self.transport = transport
        self.version = MODERN
        self.server = ""
        self._session: str | None = None
        self._numbers = itertools.count(1)

    async def negotiate(self) -> None:
        """Find out which revision the server speaks, the newest first.

        :raises TrialError: it speaks neither, or lacks the tool.
        """
        discovered = await self._ask("server/discover", {})
        if discovered is None or "result" not in discovered:
            self.version = LEGACY
            await self._initialize()
        else:
            info = "io.modelcontextprotocol/serverInfo"
            self._note_server(messages.part(discovered, "result", "_meta", info))
        tools = messages.part(await self._ask("tools/list", {}), "result").get("tools")
        listed = tools if isinstance(tools, list) else []
        names = [messages.part(tool).get("name") for tool in listed]
        if messages.TOOL not in names:
            raise TrialError(
                f"expected a tool `{messages.TOOL}` that reports its own life, the"
                f" server has {names or 'none'}; packages/cancel-lab/mcp_servers shows"
                " it for five SDKs"
            )

    async def _initialize(self) -> None:
        given = {
            "protocolVersion": LEGACY,
            "capabilities": {},
            "clientInfo": messages.CLIENT,
        }
        async with self.call("initialize", given) as call:
            await call.stream.read_to_end()
            answer = call.answer
            if answer is None or "result" not in answer:
                raise TrialError(
                    f"expected a server of MCP {MODERN} or {LEGACY}; `initialize` was"
                    f" answered with status {call.stream.seen.status} and"
                    f" {str(answer)[:300]}"
                )
            self._session = call.stream.seen.headers.get("mcp-session-id")
        said = messages.part(answer, "result").get("protocolVersion", LEGACY)
        self.version = messages.printable(said)
        self._note_server(messages.part(answer, "result", "serverInfo"))
        await self.notify("notifications/initialized", {})

    def _note_server(self, info: Message) -> None:
        name, version = info.get("name", ""), info.get("version", "")
        self.server = messages.printable(f"{name} {version}".strip())

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Message | None:
        async with self.call(method, params) as call:
            await call.stream.read_to_end()
            return call.answer

    async def notify(self, method: str, params: Mapping[str, Any]) -> int | None:
        """Send a notification and return the status of its answer."""
        async with self._opened(method, params, None) as call:
            await call.stream.start()
            while call.stream.seen.status is None and not call.stream.seen.over:
                await call.stream.read()
            return call.stream.seen.status

    @asynccontextmanager
    async def call(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        number: int | None = None,
        beside: Call | None = None,
    ) -> AsyncIterator[Call]:
        """Send a request; the block may read it or leave it.

        `beside` is a call on an HTTP/2 connection that this one shares.
        """
        number = self.number() if number is None else number
        async with self._opened(method, params, number, beside) as call:
            await call.stream.start()
            yield call

    def listen_request(self) -> ChatRequest:
        """Return the GET of the session's own stream (2025-11-25)."""
        headers = {"accept": "text/event-stream", "mcp-protocol-version": self.version}
        if self._session is not None:
            headers["mcp-session-id"] = self._session
        path, authority = self.address.path, self.address.authority
        return ChatRequest(
            path=path, authority=authority, body=b"", method="GET", headers=headers
        )

    def number(self) -> int:
        """Return the number of the next request."""
        return next(self._numbers)

    @asynccontextmanager
    async def _opened(
        self,
        method: str,
        params: Mapping[str, Any],
        number: int | None,
        beside: Call | None = None,
    ) -> AsyncIterator[Call]:
        request = messages.request(
            self.address,
            method,
            params,
            version=self.version,
            number=number,
            session=self._session,
        )
        body = bytearray()
        stream: ChatStream
        connection: Connection | None = None
        if beside is not None and isinstance(beside.stream, HTTP2Stream):
            stream = await beside.stream.carrier.open(request, sink=body)
        else:
            stream = await dial(self.address.port, request, self.transport, sink=body)
            connection = stream.connection
        try:
            yield Call(stream, body, number or 0)
        finally:
            if connection is not None:
                connection.close()
