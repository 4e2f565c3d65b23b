"""A certificate for development, so that a browser's HTTP/2 can be tried locally."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import trustme

NAMES: Final = ("localhost", "127.0.0.1", "::1")


def write(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine's loopback names; return it and its key.

    `dev-ca.pem`, written next to them, is what a client must trust; its own key is
    dropped, so it is good for nothing else. The key is readable by its owner only.

    :raises FileExistsError: one of the files is there already; none is overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "dev-cert.pem", folder / "dev-key.pem"
    authority = trustme.CA()
    issued = authority.issue_cert(*NAMES)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    _write(folder / "dev-ca.pem", authority.cert_pem.bytes(), mode=0o644)
    _write(certificate, chain, mode=0o644)
    _write(key, issued.private_key_pem.bytes(), mode=0o600)
    return certificate, key


def _write(path: Path, data: bytes, *, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
