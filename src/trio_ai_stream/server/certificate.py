"""Certificates: when the served one ends, and one for development."""

from __future__ import annotations

import errno
import os
import ssl
from _ssl import _test_decode_cert  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, Final

NAMES: Final = ("localhost", "127.0.0.1", "::1")


def expires_at(path: str | os.PathLike[str]) -> float:
    """Return the end of the first certificate in a PEM file, in Unix time.

    The standard library decodes a file only for its own tests; asking a handshake
    would not tell of a certificate that has ended. Blocks for a moment.

    :raises ssl.SSLError: it holds no certificate.
    """
    decoded: dict[str, Any] = _test_decode_cert(os.fspath(path))
    return float(ssl.cert_time_to_seconds(decoded["notAfter"]))


def write(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine's loopback names; return it and its key.

    `dev-ca.pem`, written next to them, is what a client must trust; its own key is
    dropped, so it is good for nothing else. The key is readable by its owner only.

    :raises FileExistsError: one of the files is there already; none is written.
    :raises OSError: they cannot be written there.
    """
    import trustme  # not at the top: a server does without it

    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "dev-cert.pem", folder / "dev-key.pem"
    trusted = folder / "dev-ca.pem"
    for path in (trusted, certificate, key):  # a CA of other certificates is no help
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    authority = trustme.CA()
    issued = authority.issue_cert(*NAMES)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    _write(trusted, authority.cert_pem.bytes(), mode=0o644)
    _write(certificate, chain, mode=0o644)
    _write(key, issued.private_key_pem.bytes(), mode=0o600)
    return certificate, key


def _write(path: Path, data: bytes, *, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
