"""Bearer keys: how a request carries one, and whether it is one of ours; pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

_DIGEST: Final = re.compile("sha256:([0-9a-fA-F]{64})")
_BEARER: Final = re.compile(r"(?i:bearer) +([!-~]+) *")


class Role(StrEnum):
    """What a checked key lets its holder do."""

    CLIENT = "client"
    ADMIN = "admin"


def bearer_token(authorization: str | None) -> str | None:
    """Return the token of an `Authorization` header (RFC 6750 section 2.1)."""
    match = _BEARER.fullmatch(authorization or "")
    return match[1] if match else None


class KeyRing:
    """The keys that a server accepts, kept as SHA-256 digests.

    A digest is as good as the key to compare with and no good to steal: keys are long
    and random, so it takes no slow hash to keep them from being guessed.
    """

    def __init__(
        self, api_keys: Iterable[str] = (), admin_keys: Iterable[str] = ()
    ) -> None:
        roles = [(key, Role.CLIENT) for key in api_keys]
        roles += [(key, Role.ADMIN) for key in admin_keys]
        self._known = [(_digest(key), role) for key, role in roles]

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._known)}>"

    @property
    def has_admins(self) -> bool:
        """Whether any key is an operator's."""
        return any(role is Role.ADMIN for _, role in self._known)

    def role(self, token: str) -> Role | None:
        """Return what `token` may do, None if it is no key; in constant time."""
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        # Every key is compared, also after a match: the time tells nothing. Operators'
        # keys come last, so a key on both lists is an operator's.
        for known, role in self._known:
            if hmac.compare_digest(known, digest):
                found = role
        return found


def _digest(entry: str) -> bytes:
    if match := _DIGEST.fullmatch(entry):
        return bytes.fromhex(match[1])
    return hashlib.sha256(entry.encode()).digest()
