"""What Linux tells about another process: memory, open files, sockets."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

PROC = Path("/proc")
TCP_STATES = {"01": "ESTABLISHED", "08": "CLOSE_WAIT"}  # include/net/tcp_states.h


def family(pid: int) -> list[int]:
    """Return a process and all its living descendants."""
    found = [pid]
    for parent in found:
        for task in (PROC / str(parent) / "task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process and its descendants."""
    total = 0
    for member in family(pid):
        try:
            pages = int((PROC / str(member) / "statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total or None


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time that a process and its living descendants have used."""
    ticks = 0
    for member in family(pid):
        try:
            text = (PROC / str(member) / "stat").read_text()
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else None


def _socket_inodes(pid: int) -> tuple[int, set[str]]:
    """Return the number of open files and the inodes of the sockets among them."""
    count = 0
    inodes = set()
    for member in family(pid):
        try:
            entries = list((PROC / str(member) / "fd").iterdir())
        except OSError:
            continue
        for entry in entries:
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            count += 1
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    return count, inodes


def open_files(pid: int) -> dict[str, int]:
    """Count a process's descriptors, and its TCP sockets by state."""
    count, inodes = _socket_inodes(pid)
    states: Counter[str] = Counter()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / str(pid) / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[9] in inodes and fields[3] in TCP_STATES:
                states[TCP_STATES[fields[3]]] += 1
    named = {name: states.get(name, 0) for name in TCP_STATES.values()}
    return {"fds": count, **named}
