"""Bearer keys: how one is carried, and whether it is known."""

from __future__ import annotations

import hashlib

import pytest

from trio_ai_stream.wire.keys import KeyRing, KnownKey, Role, bearer_token

TOKENS: list[tuple[str | None, str | None]] = [
    ("Bearer abc", "abc"),
    ("bearer  abc ", "abc"),
    ("Bearer", None),
    ("Bearer ", None),
    ("Bearer a b", None),
    ("Basic abc", None),
    ("Bearer \u00e4", None),
    ("", None),
    (None, None),
]


@pytest.mark.parametrize(("header", "token"), TOKENS)
def test_a_token_is_read(header: str | None, token: str | None) -> None:
    """The scheme is read in any case; a token has no spaces; nothing else counts."""
    assert bearer_token(header) == token


def test_a_key_or_its_digest_is_known() -> None:
    """A digest stands for its key; the digest itself opens nothing."""
    digest = "sha256:" + hashlib.sha256(b"second-key").hexdigest().upper()
    ring = KeyRing(["first-key", digest], ["admin-key"])
    assert ring.find("first-key") == KnownKey(Role.CLIENT)
    assert ring.find("second-key") == KnownKey(Role.CLIENT)
    assert ring.find("admin-key") == KnownKey(Role.ADMIN)
    assert ring.find(digest) is None
    assert ring.find("") is None
    assert ring.has_admins
    assert "key" not in repr(ring).removeprefix("<KeyRing")


def test_a_key_on_both_lists_is_an_operators() -> None:
    """The greater right wins."""
    found = KeyRing(["both-lists"], ["both-lists"]).find("both-lists")
    assert found == KnownKey(Role.ADMIN)


def test_a_named_key_is_a_clients() -> None:
    """Its name comes with it; two keys may have one name."""
    ring = KeyRing([], ["admin-key"], [("team", "old-key-1"), ("team", "new-key-2")])
    assert ring.find("old-key-1") == KnownKey(Role.CLIENT, "team")
    assert ring.find("old-key-1") == ring.find("new-key-2")


def test_a_ring_without_keys_knows_nobody() -> None:
    """No keys: no token is good, and nobody is an operator."""
    assert KeyRing().find("anything") is None
    assert not KeyRing().has_admins
