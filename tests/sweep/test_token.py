"""Replay tokens are read as they are written."""

from __future__ import annotations

import pytest

from tests.sweep.token import Token, TokenError

SCOPE = "scope@stream/relay.py:_Conversation._converse:idle"


@pytest.mark.parametrize(
    "token",
    [
        Token("plain", 0),
        Token("plain", 3, ((17, "disconnect"),)),
        Token("plain", 3, ((17, SCOPE),)),
        Token("plain", 3, ((17, "drain"), (21, "kill"))),
    ],
)
def test_a_token_survives_being_written(token):
    """Reading what was written gives the same run."""
    assert Token.parse(str(token)) == token


@pytest.mark.parametrize("text", ["", "plain", "plain:x", "plain:0:1", "plain:0:1:2:a"])
def test_what_is_no_token_is_refused(text):
    """The error shows the forms that a token has."""
    with pytest.raises(TokenError, match="scenario:seed:k:cause"):
        Token.parse(text)
