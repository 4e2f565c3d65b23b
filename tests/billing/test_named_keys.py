"""A key's own limits, and its name in the records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from tests.support.completions import over
from tests.support.world import Visit, World, world


def keys_file(folder: Path, **limits: Any) -> str:
    """A file with one named key that has these limits."""
    file = folder / "keys.toml"
    lines = [f"{name} = {str(value).lower()}" for name, value in limits.items()]
    head = ["[[key]]", 'name = "team"', 'key = "team-key"']
    file.write_text("\n".join([*head, *lines]))
    return str(file)


def chat(w: World, model: str, key: str = "team-key", **fields: Any) -> Visit:
    """Begin a chat with a key."""
    headers = {"authorization": f"Bearer {key}"}
    body = {"prompt": "hello", "model": model, **fields}
    return w.visit(body, headers=headers)


async def test_a_key_has_its_own_rate_and_streams(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Others keep to the server's; the name is the client in the record."""
    file = keys_file(tmp_path, requests_per_second=2, streams=1)
    async with world(env={"KEYS_FILE": file, "API_KEYS": "other-key"}) as w:
        live = chat(w, "simulator/endless")
        await trio.sleep(0.1)
        second = chat(w, "simulator/fast")
        await over(second)
        assert second.status == 429
        assert "its 1 streams" in second.json()["message"]
        third = chat(w, "simulator/fast")
        await over(third)
        assert "2 requests a second" in third.json()["message"]
        for _ in range(5):
            other = chat(w, "simulator/fast?chunks=1", "other-key")
            await over(other)
            assert other.status == 200
        live.leave()
        await over(live)
        assert w.records[-1].owner == "name:team"
