"""One hardened server for all hostile bytes of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.server.servers import ServerProcess, start_process


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A hardened `hypercorn` process that outlives every case."""
    folder = tmp_path_factory.mktemp("server")
    server = start_process(folder, limits={"linger_s": 0.3, "drain_s": 1})
    try:
        yield server
    finally:
        server.kill()
