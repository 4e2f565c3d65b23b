"""Clients of all tempers, and what each has seen."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Final, Literal

import trio

from bench.chaos.hosts import Host

Temper = Literal["normal", "leaves", "stalls", "flood"]
TEMPERS: Final[tuple[Temper, ...]] = ("normal", "normal", "leaves", "stalls", "flood")
PATIENCE_S: Final = 30.0
"""No stream of ours is longer; what a fault has cut off is given up after it."""


@dataclass(slots=True)
class Sight:
    """One request as its client saw it; `end` is the terminal event, "" without one."""

    request_id: str
    host: int
    temper: Temper
    began: float
    status: int = 0
    end: str = ""
    broken: bool = False  # the connection ended before the response did
    over: float = 0.0


async def ask(host: Host, sight: Sight, dice: random.Random) -> None:
    """Make one request and note what comes of it; never raises for the network's."""
    try:
        with trio.move_on_after(PATIENCE_S):
            stream = await trio.open_tcp_stream(host.place.address, host.port)
            async with stream:
                await stream.send_all(_request(host, sight, dice))
                await _read(stream, sight, dice)
    except (OSError, trio.BrokenResourceError):
        sight.broken = True
    finally:
        sight.over = trio.current_time()


async def _read(stream: trio.SocketStream, sight: Sight, dice: random.Random) -> None:
    leaves_after = dice.uniform(0.05, 0.6) if sight.temper == "leaves" else PATIENCE_S
    data = b""
    with trio.move_on_after(leaves_after):
        async for block in stream:
            data += block
            if not sight.status:
                sight.status = int(data.split(b" ", 2)[1])
            if sight.temper == "stalls":
                await trio.sleep(4)  # longer than WRITE_TIMEOUT_SECS
            if data.endswith((b"0\r\n\r\n", b"}")):
                break
            data = data[-4096:]
        sight.end = _terminal(data)
        sight.broken = sight.status == 200 and not sight.end


def _terminal(data: bytes) -> str:
    if b'"type":"done"' in data:
        return "done"
    found = re.search(rb'"type":"error","error_type":"([a-z_]+)"', data)
    return found[1].decode() if found else ""


def _request(host: Host, sight: Sight, dice: random.Random) -> bytes:
    upstream = {
        "normal": f"fast?chunks={dice.randint(1, 30)}&delay_ms={dice.randint(1, 50)}",
        "leaves": "fast?chunks=1000&delay_ms=20",
        "stalls": "fast?chunks=100000&burst=1000",
        "flood": "fast?chunks=2&delay_ms=100",
    }[sight.temper]
    body = json.dumps({"prompt": "hi", "model": f"simulator/{upstream}"}).encode()
    head = (
        f"POST /chat HTTP/1.1\r\nHost: {host.place.address}\r\nConnection: close\r\n"
        f"X-Request-ID: {sight.request_id}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
