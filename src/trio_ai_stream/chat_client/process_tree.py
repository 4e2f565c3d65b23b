"""`trio-ai-stream pstree`: the running streams of a server as trees in the terminal.

What is shown is what `GET /streams/live` says first. A process id stands for what that
process, or one of its workers, listens on (Linux, `/proc`).
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import ssl
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import trio

from trio_ai_stream.chat_client.screen import harmless
from trio_ai_stream.chat_client.server_client import (
    DEFAULT_URL,
    URL_VARIABLE,
    add_key_and_ca,
    open_client,
)
from trio_ai_stream.upstream.transport.transport_errors import describe

PATIENCE_S: Final = 10.0
MAX_BYTES: Final = 16 * 1024 * 1024
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_LISTENING: Final = "0A"  # /proc/net/tcp
_ADVICE: Final = {
    401: ": it wants a key (--key)",
    404: ": it is of another kind",
}


class NoTreeError(Exception):
    """There is nothing to show; says what was expected and what came."""


def main(words: Sequence[str]) -> int:
    """Print the trees; 0, or 1 where there is no server to ask."""
    parser = argparse.ArgumentParser(
        prog="trio-ai-stream pstree",
        description="Show a server's streams: tasks, nurseries, scopes, deadlines.",
        epilog="It asks the server. A process that is no server of this kind cannot be"
        " read; docs/how-to/pstree.md says what its own Python can do.",
    )
    parser.add_argument(
        "target",
        nargs="?",
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        metavar="PID|URL",
        help="a server's process, where it or a worker listens here, or its address"
        f" (or ${URL_VARIABLE}; default {DEFAULT_URL})",
    )
    add_key_and_ca(parser)
    options = parser.parse_args(words)
    try:
        view = trio.run(_ask, options.target, options.key, options.ca)
        shown = list(_lines_of_any(view))
    except NoTreeError as exc:
        for line in str(exc).splitlines():
            sys.stderr.write(f"pstree: {harmless(line)}\n")
        return 1
    sys.stdout.writelines(f"{harmless(line)}\n" for line in shown)
    return 0


def _lines_of_any(view: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of what another server says is a snapshot.

    :raises NoTreeError: it has another shape.
    """
    try:
        yield from lines(view)
    except (LookupError, TypeError, ValueError, RecursionError) as exc:
        raise NoTreeError("expected a server of this kind, got another's view") from exc


def lines(view: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a snapshot of `/streams/live`."""
    total = view.get("total", len(view["streams"]))
    yield f"{total} live stream{'' if total == 1 else 's'}"
    streams = view["streams"]
    for at, stream in enumerate(streams):
        age = view["now"] - stream["began_at"]
        state = stream["outcome"] or stream["state"]
        facts = f"{state}  {stream['model']}  {age:.1f} s  {stream['events']} events"
        inner = [_task(stream["task"])] if stream["task"] else []
        last = at == len(streams) - 1 and not view["more"]
        drawn = _branch((f"{stream['id']}  {facts}", inner), "", view["now"], last)
        yield next(drawn)
        for line in drawn:  # its own name is in the names of its tasks
            yield line.removesuffix(f" {stream['id']}")
    if view["more"]:
        yield f"└─ and {view['more']} more"
    if not view.get("complete", True):
        yield "Not all processes answered: there may be streams that are not listed."


Branch = tuple[str, list[Any]]
"""A line and what stands below it; `{9.5}` is a time on the server's clock."""


def _task(task: dict[str, Any]) -> Branch:
    below: list[Branch] = [(_scope(scope), []) for scope in task.get("scopes", ())]
    return f"task {task['name']}", below + [_nursery(one) for one in task["nurseries"]]


def _nursery(nursery: dict[str, Any]) -> Branch:
    below: list[Branch] = [(_scope(scope), []) for scope in nursery["scopes"]]
    below += [_task(task) for task in nursery["tasks"]]
    return f"nursery {nursery['label']}", below


def _scope(scope: dict[str, Any]) -> str:
    due = "" if scope["due"] is None else f"  due {{{scope['due']}}}"
    return f"scope {scope['label']}{due}{'  shielded' if scope.get('shield') else ''}"


def _branch(branch: Branch, indent: str, now: float, last: bool) -> Iterator[str]:
    text, below = branch
    said = re.sub(r"\{([\d.e+-]+)\}", lambda m: f"in {float(m[1]) - now:.1f} s", text)
    yield f"{indent}{'└─' if last else '├─'} {said}"
    deeper = indent + ("   " if last else "│  ")
    for at, one in enumerate(below):
        yield from _branch(one, deeper, now, at == len(below) - 1)


async def _ask(target: str, key: str, tls: ssl.SSLContext | None) -> dict[str, Any]:
    """Return the first snapshot of the server that `target` means.

    :raises NoTreeError: no such process, or none of its addresses is such a server.
    """
    hosts = _addresses(int(target)) if target.isdecimal() else []
    urls = [f"http://{host}" for host in hosts] or [target]
    problems = []
    for url in urls:  # it grows
        try:
            with trio.fail_after(PATIENCE_S):
                return await first_snapshot(url, key, tls)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            problem = describe(exc)
            if hosts and url.startswith("http://"):  # perhaps it speaks TLS
                urls.append(url.replace("http", "https", 1))
                continue
        except ValueError as exc:
            problem = str(exc)
        except trio.TooSlowError:
            problem = f"no answer in {PATIENCE_S:g} s"
        problems.append(f"expected a server of this kind at {url}, got: {problem}")
    if target.isdecimal() and not hosts:
        problems = [f"process {target} listens on no TCP port"]
    raise NoTreeError("\n".join(problems))


async def first_snapshot(
    url: str, key: str, tls: ssl.SSLContext | None
) -> dict[str, Any]:
    """Return what `/streams/live` says first.

    :raises ValueError, httpx.HTTPError: there is no server of this kind.
    """
    client = open_client(url, key, tls)
    async with client, client.stream("GET", "/streams/live") as response:
        status = response.status_code
        if status != 200:
            raise ValueError(f"status {status}{_ADVICE.get(status, '')}")
        body = b""
        async for block in response.aiter_raw():
            body += block
            for frame in body.split(b"\n\n")[:-1]:
                if frame.startswith(b"event: snapshot\ndata: "):
                    data = frame.partition(b"data: ")[2]
                    return msgspec.json.decode(data, type=dict[str, Any])
            if len(body) > MAX_BYTES:
                break
    raise ValueError("no snapshot")


def _addresses(pid: int) -> list[str]:
    """Return where a process or its children listen, as `host:port`.

    :raises NoTreeError: there is no such process, or it is another user's.
    """
    try:
        family = [pid, *_children(pid)]
        inodes = {inode for one in family for inode in _sockets(one)}
        tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
        lines = [
            line for t in tables if t.exists() for line in t.read_text().split("\n")
        ]
    except OSError as exc:
        raise NoTreeError(f"expected a process {pid} of yours: {exc.strerror}") from exc
    rows = [row for row in map(str.split, lines) if len(row) > 9]
    found = {r[1] for r in rows if r[3] == _LISTENING and r[9] in inodes}
    return sorted(map(readable_address, found))


def readable_address(shown: str) -> str:
    """Return an address of /proc/net/tcp or tcp6 as one that can be asked.

    The kernel prints words of four bytes, read in the machine's own order. "All
    addresses" becomes loopback.
    """
    digits, _, port = shown.rpartition(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    host = str(address) if address.version == 4 else f"[{address}]"
    return f"{host}:{int(port, 16)}"


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def _sockets(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if match := _SOCKET.fullmatch(os.readlink(link)):
            yield match[1]
