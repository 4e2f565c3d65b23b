"""KEYS_FILE: keys with names and limits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from trio_ai_stream.settings import SettingsError, describe, load_settings

DIGEST = "sha256:" + hashlib.sha256(b"a-hashed-key").hexdigest()
GOOD = f"""
[[key]]
name = "team-a"
key = "a-secret-key"
requests_per_second = 2.5
streams = 3
usd_per_day = 1.5

[[key]]
name = "team-b"
key = "{DIGEST}"
"""


def load(tmp_path: Path, text: str, **environ: str) -> object:
    """Load the settings with such a file."""
    file = tmp_path / "keys.toml"
    file.write_text(text)
    ledger = {"LEDGER_FILE": str(tmp_path / "ledger.db")}
    return load_settings({"KEYS_FILE": str(file), **ledger, **environ}, None)


def test_keys_have_names_and_limits(tmp_path: Path) -> None:
    """What is left out is the server's own limit; names are shown, keys are not."""
    file = tmp_path / "keys.toml"
    file.write_text(GOOD)
    environ = {"KEYS_FILE": str(file), "LEDGER_FILE": str(tmp_path / "ledger.db")}
    settings = load_settings(environ, None)
    first, second = settings.KEYS_FILE
    assert (first.requests_per_second, first.streams) == (2.5, 3)
    assert (first.usd_per_day, first.usd_per_month) == (1.5, None)
    assert not second.has_budget
    assert settings.keys_required
    assert settings.secrets == ("a-secret-key",)
    assert describe(settings)["KEYS_FILE"] == "team-a,team-b"
    assert "a-secret-key" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[key]]\nname = 'a'", "key 1: key: Field required"),
        ("[[key]]\nname = 'a b'\nkey = 'secret-key'", "key 1: name: String should"),
        ("[[key]]\nname = 'a'\nkey = 'short'", "key 1: key: expected keys of 8"),
        ("[[key]]\nname = 'a'\nkey = 'secret-key'\nusd = 1", "key 1: usd: Extra"),
        (
            "[[key]]\nname = 'a'\nkey = 'secret-key'\nstreams = 0",
            "streams: expected greater",
        ),
        ("[keys]\nname = 'a'", r"expected \[\[key\]\] tables"),
        ("name = ", "expected TOML"),
        (
            "[[key]]\nname = 'a'\nkey = 'secret-key'\n"
            "[[key]]\nname = 'a'\nkey = 'secret-ke2'\nstreams = 2",
            "expected the same limits",
        ),
    ],
)
def test_a_bad_file_is_named_by_number_and_field(
    text: str, expected: str, tmp_path: Path
) -> None:
    """No value of the file is in the message."""
    with pytest.raises(SettingsError, match=expected) as caught:
        load(tmp_path, text)
    assert "secret-ke" not in str(caught.value)


def test_named_keys_and_anybody_exclude_each_other(tmp_path: Path) -> None:
    """As for API_KEYS."""
    with pytest.raises(SettingsError, match="because there are KEYS_FILE"):
        load(tmp_path, GOOD, ALLOW_ANONYMOUS="1")
