"""KEYS_FILE: keys with names and limits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from trio_ai_stream.settings import SettingsError, describe, load_settings
from trio_ai_stream.settings.loading import reloaded

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
        ("[[key]]\nname = 'a'", "key 1: key: expected a value, got none"),
        ("a = " + 5000 * "[", "expected TOML in"),
        (
            "[[key]]\nname = 'a b'\nkey = 'secret-key'",
            "key 1: name: expected a text that",
        ),
        (
            "[[key]]\nname = 'a'\nkey = 12345678",
            "key 1: key: expected a text in quotes",
        ),
        ("[[key]]\nname = 'a'\nkey = 'short'", "key 1: key: expected keys of 8"),
        (
            "[[key]]\nname = 'a'\nkey = 'secret-key'\nusd = 1",
            "usd: expected no more than name",
        ),
        (
            "[[key]]\nname = 'a'\nkey = 'secret-key'\nstreams = 0",
            "key 1: streams: expected a whole number from 1 to 10000000$",
        ),
        (
            "[[key]]\nname = 'a'\nkey = 'secret-key'\nusd_per_day = nan",
            "usd_per_day: expected a number that is more than 0 and at most 1000000$",
        ),
        (
            "[[key]]\nname = 'a'\nkey = 'secret-key'\nend_streams = [1]",
            "end_streams: expected a number, true or false",
        ),
        ("key = [1]", r"key 1: expected a \[\[key\]\] table"),
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


def test_a_file_that_is_read_again_brings_its_limits(tmp_path: Path) -> None:
    """Those of a new key, and of one that had others, as SIGHUP reads it."""
    file = tmp_path / "keys.toml"
    file.write_text("[[key]]\nname = 'a'\nkey = 'secret-key'\nstreams = 1\n")
    old = load_settings({"KEYS_FILE": str(file)}, None)
    assert old.keys_required
    assert old.named_keys["a"].streams == 1
    more = "[[key]]\nname = 'b'\nkey = 'other-key'\nstreams = 3\n"
    file.write_text(file.read_text().replace("streams = 1", "streams = 2") + more)
    now, changed, fixed = reloaded(old, load_settings({"KEYS_FILE": str(file)}, None))
    assert {name: one.streams for name, one in now.named_keys.items()} == {
        "a": 2,
        "b": 3,
    }
    assert (changed, fixed) == ({"KEYS_FILE"}, set())


def test_a_budget_is_not_taken_over_without_its_ledger(tmp_path: Path) -> None:
    """SIGHUP opens no ledger, and a restart would forget what was spent."""
    file = tmp_path / "keys.toml"
    file.write_text("[[key]]\nname = 'a'\nkey = 'secret-key'\n")
    old = load_settings({"KEYS_FILE": str(file)}, None)
    file.write_text(f"{file.read_text()}usd_per_day = 1\n")
    ledger = {"LEDGER_FILE": str(tmp_path / "ledger.db")}
    new = load_settings({"KEYS_FILE": str(file), **ledger}, None)
    with pytest.raises(SettingsError, match="a restart is needed for LEDGER_FILE"):
        reloaded(old, new)


@pytest.mark.parametrize(
    ("period", "days", "good"),
    [
        ("usd_per_month", "30", False),
        ("usd_per_month", "31", True),
        ("usd_per_day", "0.9", False),
        ("usd_per_day", "1", True),
        ("streams", "0.1", True),
    ],
)
def test_what_a_budget_counts_is_not_deleted_before(
    period: str, days: str, good: bool, tmp_path: Path
) -> None:
    """Else a month's budget would be one of the days that the ledger keeps."""
    text = f"[[key]]\nname = 'a'\nkey = 'secret-key'\n{period} = 5\n"
    load(tmp_path, text, LEDGER_RETENTION_DAYS=days, REDIS_URL="redis://localhost")
    if good:
        load(tmp_path, text, LEDGER_RETENTION_DAYS=days)
        return
    with pytest.raises(SettingsError, match="LEDGER_RETENTION_DAYS: expected"):
        load(tmp_path, text, LEDGER_RETENTION_DAYS=days)


def test_named_keys_and_anybody_exclude_each_other(tmp_path: Path) -> None:
    """As for API_KEYS."""
    with pytest.raises(SettingsError, match="because there are KEYS_FILE"):
        load(tmp_path, GOOD, ALLOW_ANONYMOUS="1")
