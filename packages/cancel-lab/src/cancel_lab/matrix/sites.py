"""The configurations of this server that the cells need, and upstreams that hang."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme

from cancel_lab.adapters.adapter import Adapter
from cancel_lab.adapters.catalogue import OURS
from cancel_lab.matrix.cells import Site
from cancel_lab.matrix.variants import (
    BODIES,
    HEADERS,
    Variant,
    front,
    surroundings,
)
from cancel_lab.placement import on_server_cores
from cancel_lab.process import free_port, serving
from cancel_lab.trial import Arena
from cancel_lab.upstream import Upstream

FIRST_TOKEN_S = 0.4
IDLE_S = 0.3
DEADLINE_S = 0.6
WRITE_S = 0.5
CONNECT_S = 0.3
DRAIN_S = 0.4
HEARTBEAT_S = 0.2  # bounds the notice of a client with a pipelined request

PATIENT = {"HEARTBEAT_SECS": str(HEARTBEAT_S)}
HASTY = {
    "FIRST_TOKEN_TIMEOUT_SECS": str(FIRST_TOKEN_S),
    "STREAM_IDLE_TIMEOUT_SECS": str(IDLE_S),
    "STREAM_DEADLINE_SECS": str(DEADLINE_S),
}
ENVIRONMENTS = {
    Site.PATIENT: PATIENT,
    Site.UNCONNECTED: PATIENT,
    Site.HASTY: HASTY,
    Site.STALLING: {"WRITE_TIMEOUT_SECS": str(WRITE_S)},
    Site.HASTY_UNCONNECTED: {"CONNECT_TIMEOUT_SECS": str(CONNECT_S)},
    Site.DRAINING: {"DRAIN_TIMEOUT_SECS": str(DRAIN_S)},
}


def adapter_for(
    site: Site,
    certificate: tuple[Path, Path] | None,
    variant: Variant = Variant.PLAIN,
    settings: Mapping[str, str] | None = None,
) -> Adapter:
    """Return this server's adapter in the configuration of a site, and a variant."""
    env = {**OURS.env, **ENVIRONMENTS[site], **(settings or {})}
    if certificate is not None:
        env["TLS_CERT_FILE"], env["TLS_KEY_FILE"] = map(str, certificate)
    adapter = dataclasses.replace(OURS, env=env)
    headers = {**OURS.headers, **HEADERS.get(variant, {})}
    if variant not in BODIES:
        return dataclasses.replace(adapter, headers=headers)
    path, body = variant.value, BODIES[variant]
    return dataclasses.replace(adapter, headers=headers, path=path, body=body)


@contextmanager
def black_hole() -> Iterator[int]:
    """Listen on a port whose queue is full: a connection to it is never made.

    Linux drops the SYN once the accept queue is full, so connecting hangs as it does
    towards a host that is gone.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = []
        try:
            for _ in range(4):
                filler = socket.socket()
                fillers.append(filler)
                filler.setblocking(False)
                with suppress(BlockingIOError):
                    filler.connect(address)
            yield address[1]
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def certificate() -> Iterator[tuple[Path, Path]]:
    """Make a certificate for localhost that lives as long as the block."""
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    with TemporaryDirectory(prefix="cancel-lab-") as folder:
        chain, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        for blob in issued.cert_chain_pems:
            blob.write_to_path(chain, append=True)
        issued.private_key_pem.write_to_path(key)
        yield chain, key


@asynccontextmanager
async def site_arena(
    site: Site,
    upstream: Upstream,
    *,
    tls: tuple[Path, Path] | None = None,
    variant: Variant = Variant.PLAIN,
) -> AsyncIterator[Arena]:
    """Run this server in the configuration of a site while the block runs."""
    port = free_port()
    with black_hole() as hole:
        base_url = upstream.base_url
        if site in (Site.UNCONNECTED, Site.HASTY_UNCONNECTED):
            base_url = f"http://127.0.0.1:{hole}/api/v1"
        async with surroundings(variant, upstream) as settings:
            adapter = adapter_for(site, tls, variant, settings)
            argv, env = adapter.command(port=port, upstream=base_url)
            argv = on_server_cores(argv)
            async with (
                serving(argv, env, port=port) as server,
                front(variant, port) as front_port,
            ):
                yield Arena(adapter, server, upstream, front_port)
