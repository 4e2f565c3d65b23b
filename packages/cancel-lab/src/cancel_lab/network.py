"""A loopback interface of our own that loses packets, is slow, or forgets a client.

The instrument moves into a network namespace before it starts anything, so all that it
starts lives there too, and no other program of the machine is touched. Rules apply to
packets from and to clients alone: the way to upstream stays whole. Needs root, nft and
tc; there is no delay, because many kernels come without netem.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

CLONE_NEWNET: Final = 0x40000000
TABLE: Final = "inet lab"
MTU: Final = "1500"  # loopback's own, 65536, makes one packet of what would be many


class NetworkError(RuntimeError):
    """A network of our own cannot be had here; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How bad the way to the clients is."""

    name: str
    loss_percent: int = 0  # of packets, in each direction
    rate: str | None = None  # as tc writes it

    def rules(self, ports: Iterable[int]) -> str:
        """Return nft's rules for the ports on which servers listen."""
        if not self.loss_percent:
            return ""
        lost = f"numgen random mod 100 < {self.loss_percent} drop"
        return "".join(
            f"add rule {TABLE} arriving tcp {end} {port} {lost}\n"
            for port in ports
            for end in ("dport", "sport")
        )


WHOLE = Quality(name="")
LOSSY = Quality(name="5 % of packets lost", loss_percent=5)
SLOW = Quality(name="256 kbit/s", rate="256kbit")


def enter() -> None:
    """Move this process into a namespace of its own, with nothing but loopback.

    To be called before there is a second thread. Errors: NetworkError.
    """
    for program in ("ip", "nft", "tc"):
        if shutil.which(program) is None:
            raise NetworkError(f"not installed: {program}")
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise NetworkError(
            f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}"
        )
    _run("ip", "link", "set", "lo", "mtu", MTU, "up")
    _nft(
        f"add table {TABLE}\n"
        f"add chain {TABLE} arriving {{ type filter hook input priority 0; }}\n"
    )


def degrade(quality: Quality, ports: Iterable[int]) -> None:
    """Make the way to the servers on these ports as bad as that, and no other."""
    ports = list(ports)
    _nft(f"flush chain {TABLE} arriving\n" + quality.rules(ports))
    _run("tc", "qdisc", "del", "dev", "lo", "root", may_fail=True)
    if quality.rate is None:
        return
    _run("tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb")
    for number, port in enumerate(ports, start=1):
        limited = f"1:{number:x}"
        _run("tc", "class", "add", "dev", "lo", "parent", "1:", "classid", limited,
             "htb", "rate", quality.rate)  # fmt: skip
        for end in ("dport", "sport"):
            _run("tc", "filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip",
                 "u32", "match", "ip", end, str(port), "0xffff",
                 "flowid", limited)  # fmt: skip


def forget(connections: Iterable[tuple[int, int]]) -> None:
    """Let no packet of these connections arrive any more: their clients vanish.

    A connection is the client's port and the server's. The client's alone is not
    enough: it may be that of another connection as well, to another server.
    """
    _nft("".join(
        f"add rule {TABLE} arriving tcp sport {sender} tcp dport {receiver} drop\n"
        for client, server in connections
        for sender, receiver in ((client, server), (server, client))
    ))  # fmt: skip


def _nft(script: str) -> None:
    _run("nft", "-f", "-", given=script)


def _run(*words: str, given: str | None = None, may_fail: bool = False) -> None:
    done = subprocess.run(  # noqa: S603 - no shell, fixed programs
        words, input=given, capture_output=True, text=True, timeout=10, check=False
    )
    if done.returncode and not may_fail:
        raise NetworkError(f"{' '.join(words)}: {done.stderr.strip()}")
