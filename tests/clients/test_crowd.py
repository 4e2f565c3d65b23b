"""A crowd of clients that do all that clients do at once; then nothing is left."""

from __future__ import annotations

import random
import uuid
from typing import Any

import httpx
import pytest
import trio

from tests.clients.conftest import KEY, SimulatorProcess
from tests.support.serving import ServerProcess, until

CLIENTS = 120
MODELS = [
    "simulator/fast",
    "simulator/fast?chunks=200",
    "simulator/fast?headers_ms=300",
    "simulator/flood",
    "simulator/endless",
    "simulator/error",
    "simulator/truncated",
    "simulator/not-found",
    "simulator/no-answer",
]


class Crowd:
    """Clients with one seeded source of chance; counts what they did."""

    def __init__(self, url: str) -> None:
        self._chance = random.Random(7)
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {KEY}"},
            limits=httpx.Limits(max_connections=None),
            timeout=None,
        )
        self.done = 0

    async def run(self) -> None:
        """Run all clients to their end."""
        with trio.fail_after(60):
            async with self._client, trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(self._visit)

    async def _visit(self) -> None:
        chance = self._chance
        body: dict[str, Any] = {"model": chance.choice(MODELS)}
        request_id = uuid.uuid4().hex
        path = chance.choice(["/chat", "/v1/chat/completions"])
        if path == "/chat":
            body["prompt"] = "hello"
        else:
            body["messages"] = [{"role": "user", "content": "hello"}]
            body["stream"] = chance.random() < 0.7
        async with trio.open_nursery() as nursery:
            if chance.random() < 0.3:
                nursery.start_soon(self._cancel, request_id, chance.random())
            with trio.move_on_after(0.2 + 1.5 * chance.random()):
                headers = {"X-Request-ID": request_id}
                async with self._client.stream(
                    "POST", path, json=body, headers=headers
                ) as response:
                    async for _ in response.aiter_raw():
                        pass
        self.done += 1

    async def _cancel(self, request_id: str, after_s: float) -> None:
        await trio.sleep(after_s)
        await self._client.delete(f"/streams/{request_id}")


# httpx leaves its generators unfinished where it is cancelled, which Trio remarks on.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
def test_nothing_is_left_of_a_crowd(
    server: ServerProcess, simulator: SimulatorProcess
) -> None:
    """No stream, no live upstream request, and no outcome that is our own bug."""
    crowd = Crowd(server.url)
    trio.run(crowd.run)
    assert crowd.done == CLIENTS
    headers = {"Authorization": f"Bearer {KEY}"}

    def quiet() -> bool:
        streams = httpx.get(f"{server.url}/streams", headers=headers).json()
        stats = httpx.get(f"{simulator.url}/stats?since=999999999").json()
        return bool(streams["streams"] == [] and stats["live"] == 0)

    until(quiet)
    text = httpx.get(f"{server.url}/metrics", headers=headers).text
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    left = 'outcome="client_disconnected"'
    # How many got so far before they left is the machine's affair.
    assert sum(float(value) for name, value in samples.items() if left in name) > 0
    for name, value in samples.items():
        if name.startswith("trio_ai_stream_streams_live") or "internal_error" in name:
            assert float(value) == 0, name
