"""Keys: how a request carries one, and whether it is one of ours; pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_DIGEST: Final = re.compile("sha256:([0-9a-fA-F]{64})")
_KEY: Final = re.compile("[!-~]+")
_BEARER: Final = re.compile(r"(?i:bearer) +([!-~]+) *")


class Role(StrEnum):
    """What a checked key lets its holder do."""

    CLIENT = "client"
    ADMIN = "admin"


def bearer_token(authorization: str | None) -> str | None:
    """Return the token of an `Authorization` header (RFC 6750 section 2.1)."""
    match = _BEARER.fullmatch(authorization or "")
    return match[1] if match else None


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key of ours: what it may do, and its name if it has one."""

    role: Role
    name: str | None = None


def tokens_of(authorization: Iterable[str], api_key: Iterable[str]) -> set[str]:
    """Return the keys that a request names, from `Authorization` and `x-api-key`."""
    found = {token for value in authorization if (token := bearer_token(value))}
    return found | {key for value in api_key if _KEY.fullmatch(key := value.strip())}


class KeyRing:
    """The keys that a server accepts, kept as SHA-256 digests.

    A digest is as good as the key to compare with and no good to steal: keys are long
    and random, so it takes no slow hash to keep them from being guessed.
    """

    def __init__(
        self,
        api_keys: Iterable[str] = (),
        admin_keys: Iterable[str] = (),
        named_keys: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Take keys or digests; a named one is a client's, (name, key)."""
        known = [(key, KnownKey(Role.CLIENT)) for key in api_keys]
        known += [(key, KnownKey(Role.CLIENT, name)) for name, key in named_keys]
        known += [(key, KnownKey(Role.ADMIN)) for key in admin_keys]
        self._known = [(_digest(key), what) for key, what in known]

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._known)}>"

    @property
    def has_admins(self) -> bool:
        """Whether any key is an operator's."""
        return any(known.role is Role.ADMIN for _, known in self._known)

    def find(self, token: str) -> KnownKey | None:
        """Return what is known of `token`, None if it is no key; in constant time."""
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        # Every key is compared, also after a match: the time tells nothing. Operators'
        # keys come last, so a key on both lists is an operator's.
        for known, what in self._known:
            if hmac.compare_digest(known, digest):
                found = what
        return found


def _digest(entry: str) -> bytes:
    if match := _DIGEST.fullmatch(entry):
        return bytes.fromhex(match[1])
    return hashlib.sha256(entry.encode()).digest()
