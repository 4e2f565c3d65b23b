"""API_KEYS, ADMIN_KEYS, their files, and ALLOW_ANONYMOUS."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.support.process import run_to_end
from trio_ai_stream.settings import SettingsError, describe, load_settings

DIGEST = "sha256:" + hashlib.sha256(b"a-hashed-key").hexdigest()


def test_keys_come_from_both_places(tmp_path: Path) -> None:
    """A variable and a file add up; blank lines and comments are no keys."""
    file = tmp_path / "keys"
    file.write_text(f"# of the night shift\n\n  file-key-1  \n{DIGEST}\n")
    environ = {"API_KEYS": "first-key, second-key,", "API_KEYS_FILE": str(file)}
    settings = load_settings({**environ, "ADMIN_KEYS": "admin-key"}, None)
    assert settings.api_keys == ("first-key", "second-key", "file-key-1", DIGEST)
    assert settings.admin_keys == ("admin-key",)
    assert settings.keys_required
    assert not settings.loopback_only


def test_keys_are_shown_to_nobody() -> None:
    """Neither the description nor the repr of the settings holds a key."""
    settings = load_settings({"API_KEYS": "first-key,second-key"}, None)
    assert describe(settings)["API_KEYS"] == "(2 set)"
    assert describe(settings)["ADMIN_KEYS"] == ""
    assert "first-key" not in f"{settings!r} {describe(settings)}"


def test_secrets_are_what_the_log_must_not_hold() -> None:
    """Keys are secrets; a digest of one is not."""
    environ = {
        "API_KEYS": f"first-key,{DIGEST}",
        "ADMIN_KEYS": "admin-key",
        "OPENROUTER_API_KEY": "sk-or-upstream",
    }
    settings = load_settings(environ, None)
    assert settings.secrets == ("first-key", "admin-key", "sk-or-upstream")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"API_KEYS": "short"}, "API_KEYS: expected keys of 8 to 512"),
        ({"ADMIN_KEYS": "with a space"}, "ADMIN_KEYS: expected keys of 8 to 512"),
        ({"API_KEYS": "good-key-1,b\u00e4d-key-2"}, r"got another \(key 2\)"),
        ({"API_KEYS": "sha256:abc"}, "expected 64 hexadecimal digits"),
        ({"API_KEYS_FILE": "/no/such"}, "expected a file that can be read"),
        ({"API_KEYS": "some-long-key", "ALLOW_ANONYMOUS": "1"}, "ALLOW_ANONYMOUS:"),
    ],
)
def test_bad_keys_are_named_by_number(environ: dict[str, str], expected: str) -> None:
    """An error says which key of which setting is bad, and never shows it."""
    with pytest.raises(SettingsError, match=expected) as caught:
        load_settings(environ, None)
    for name, value in environ.items():
        if name.endswith("KEYS"):
            assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "required", "loopback"),
    [
        ({}, False, True),
        ({"ALLOW_ANONYMOUS": "1"}, False, False),
        ({"ADMIN_KEYS": "admin-key"}, True, False),
        ({"ADMIN_KEYS": "admin-key", "ALLOW_ANONYMOUS": "1"}, False, False),
    ],
)
def test_who_is_served(environ: dict[str, str], required: bool, loopback: bool) -> None:
    """Any key turns keys on; without keys it is loopback, or else everybody."""
    settings = load_settings(environ, None)
    assert (settings.keys_required, settings.loopback_only) == (required, loopback)


def test_serve_ends_with_2_rather_than_be_exposed(tmp_path: Path) -> None:
    """`serve` on all addresses without keys says what to do, and does not listen."""
    environ = {"HOST": "0.0.0.0", "PORT": "0", "API_KEYS": ""}
    done = run_to_end(tmp_path, "trio_ai_stream", "serve", **environ)
    assert done.returncode == 2
    assert "HOST: expected 127.0.0.1" in done.stderr
    assert "ALLOW_ANONYMOUS=1" in done.stderr


@pytest.mark.parametrize("name", ["API_KEYS_FILE", "KEYS_FILE", "TLS_CERT_FILE"])
def test_no_start_waits_for_the_writer_of_a_pipe(name: str, tmp_path: Path) -> None:
    """Neither a pipe nor a device without an end is a file of keys."""
    pipe = tmp_path / "keys"
    os.mkfifo(pipe)
    for path in (str(pipe), "/dev/zero"):
        done = run_to_end(tmp_path, "trio_ai_stream", "check-config", **{name: path})
        expected = f"{name}: expected a file that can be read, got {path}: a pipe"
        assert (done.returncode, expected in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("API_KEYS_FILE", "a-key-of-a-client\n"),
        ("KEYS_FILE", "[[key]]\nname = 'a'\nkey = 'a-key-of-a-client'\n"),
    ],
)
def test_a_file_of_keys_may_begin_with_a_byte_order_mark(
    name: str, text: str, tmp_path: Path
) -> None:
    """As `.env` may: some editors write one, and nobody sees it."""
    (tmp_path / "keys").write_text(text, encoding="utf-8-sig")
    settings = load_settings({name: str(tmp_path / "keys")}, None)
    assert settings.secrets == ("a-key-of-a-client",)


def test_an_env_file_that_is_a_pipe_is_named(tmp_path: Path) -> None:
    """It was passed over in silence, with all the settings that were meant."""
    os.mkfifo(tmp_path / ".env")
    done = run_to_end(tmp_path, "trio_ai_stream", "check-config")
    assert done.returncode == 2
    assert ".env: expected a regular file, got a pipe" in done.stderr
