"""The server takes Hypercorn's place, and only in the Hypercorn it was made for."""

from __future__ import annotations

import socket
import ssl
import tomllib
from importlib.metadata import version
from pathlib import Path

import hypercorn.trio
import hypercorn.trio.run
import pytest
import trio
from h2.connection import H2Connection
from h2.frame_buffer import FrameBuffer
from h2.stream import H2Stream
from hypercorn.config import Config
from hypercorn.utils import wrap_app

from tests.support.server.application import Application
from trio_ai_stream.app_factory import server_limits
from trio_ai_stream.server import certificate
from trio_ai_stream.server import config as configuration
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.serving import (
    Server,
    UnsupportedHypercornError,
    counters,
    install,
)
from trio_ai_stream.settings import SETTINGS, load_settings

TOML = Path(__file__).parents[2] / "hypercorn.toml"


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give Hypercorn its own worker back after each test."""
    stock = hypercorn.trio.run.worker_serve
    monkeypatch.setattr(hypercorn.trio.run, "worker_serve", stock)
    monkeypatch.setattr(hypercorn.trio, "worker_serve", stock)
    monkeypatch.setattr("trio_ai_stream.server.serving._installed", None)


def test_both_of_hypercorns_names_lead_to_the_server() -> None:
    """A worker process and `hypercorn.trio.serve` both look it up when they start."""
    server = install(Limits(), Application())
    assert hypercorn.trio.run.worker_serve == server.serve
    assert hypercorn.trio.worker_serve == server.serve  # type: ignore[attr-defined]
    assert counters() == server.tally.snapshot()


def test_the_newest_application_is_served() -> None:
    """A second call replaces the first; nothing is stacked."""
    install(Limits(), Application())
    newest = install(Limits(), Application())
    assert hypercorn.trio.run.worker_serve == newest.serve


def test_another_hypercorn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names both versions and what to install."""
    monkeypatch.setattr("trio_ai_stream.server.serving.version", lambda _: "0.19.0")
    with pytest.raises(UnsupportedHypercornError, match=r"expected Hypercorn 0\.18\.0"):
        install(Limits(), Application())


def test_every_key_of_hypercorn_toml_has_an_effect() -> None:
    """The file in the repository passes the check that each start makes."""
    keys = tomllib.loads(TOML.read_text())
    configuration.check(Config.from_toml(TOML))
    assert keys["worker_class"] == "trio"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("werkers", "did you mean workers?"),
        ("graceful_timeout", "set DRAIN_TIMEOUT_SECS instead"),
        ("read_timeout", "set READ_TIMEOUT_SECS instead"),
        ("quic_bind", "has no effect here"),
        ("xyzzy", "Hypercorn has no such key"),
    ],
)
def test_a_key_without_effect_is_refused(key: str, said: str) -> None:
    """Misspelt or superseded, it is named with what was probably meant."""
    with pytest.raises(configuration.ConfigError, match=key) as caught:
        configuration.check(Config.from_mapping({key: 1}))
    assert said in str(caught.value)


def test_files_that_tls_cannot_use_are_refused(tmp_path: Path) -> None:
    """A key of another certificate, or no file that can be: both names are said."""
    (cert, _), (_, key) = (certificate.write(tmp_path / name) for name in ("a", "b"))
    for wrong in (key, tmp_path / "none", tmp_path / ("x" * 300)):
        config = Config.from_mapping({"certfile": str(cert), "keyfile": str(wrong)})
        with pytest.raises(configuration.ConfigError) as caught:
            configuration.check(config)
        assert f"got {cert} and {wrong}: " in str(caught.value)


@pytest.mark.parametrize("value", ["CERT_REQUIRED", 2, ssl.CERT_REQUIRED])
def test_verify_mode_is_read_by_name_and_by_number(value: object) -> None:
    """TOML holds no constants of Python; the name of one works."""
    config = Config.from_mapping({"verify_mode": value})
    configuration.check(config)
    assert config.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("verify_mode", "REQUIRED", "expected one of CERT_NONE, CERT_OPTIONAL, CERT_R"),
        ("verify_mode", ["CERT_REQUIRED"], "got ['CERT_REQUIRED']"),
        ("verify_flags", "STRICT", "VERIFY_X509_STRICT"),
        ("ciphers", "NONE-SUCH", "ciphers: expected names that OpenSSL knows"),
        ("ca_certs", "none.pem", "ca_certs: expected certificates (PEM), got none.pem"),
    ],
)
def test_what_tls_cannot_use_is_refused_in_a_sentence(
    key: str, value: object, said: str, tmp_path: Path
) -> None:
    """Each by the key that is wrong, not by the certificate."""
    cert, private = certificate.write(tmp_path)
    keys = {"certfile": str(cert), "keyfile": str(private), key: value}
    with pytest.raises(configuration.ConfigError, match=key) as caught:
        configuration.check(Config.from_mapping(keys))
    assert said in str(caught.value)
    assert "certfile" not in str(caught.value)


def test_ca_certs_alone_are_said_to_demand_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who sets them means to ask clients for certificates."""
    cert, key = certificate.write(tmp_path)
    keys = {"certfile": str(cert), "keyfile": str(key), "ca_certs": str(cert)}
    configuration.check(Config.from_mapping(keys))
    (record,) = caplog.records
    assert "demands nothing of clients" in record.getMessage()
    caplog.clear()
    configuration.check(Config.from_mapping({**keys, "verify_mode": "CERT_OPTIONAL"}))
    assert not caplog.records


def test_what_supersedes_a_key_is_a_setting() -> None:
    """The names that the refusal points to exist."""
    names = {name for name in configuration.SUPERSEDED.values() if name}
    assert names <= set(SETTINGS)
    assert all(hasattr(Config, key) for key in configuration.SUPERSEDED)


def test_the_backlog_fits_the_streams() -> None:
    """As many clients as there may be streams can come at once."""
    settings = load_settings({"MAX_CONCURRENT_STREAMS": "5000"}, None)
    assert server_limits(settings).backlog >= 5000


def test_the_h2_whose_private_methods_are_overridden() -> None:
    """A new h2 is looked at before it is used: these must still be what they were."""
    assert version("h2").startswith("4.4.")
    methods: dict[type, set[str]] = {
        H2Connection: {
            "_begin_new_stream",
            "_prepare_for_sending",
            "_receive_frame",
            "_receive_goaway_frame",
            "_receive_priority_frame",
            "_stream_is_closed_by_reset",
        },
        FrameBuffer: {"_validate_frame_length", "__next__"},
        H2Stream: {"receive_headers"},
    }
    for owner, names in methods.items():
        assert names <= set(vars(owner)), owner
    assert isinstance(FrameBuffer()._data, bytearray)
    assert FrameBuffer()._headers_buffer == []
    assert isinstance(H2Connection()._frame_dispatch_table, dict)


async def test_an_address_that_was_taken_meanwhile_is_a_sentence() -> None:
    """Two servers may bind it as they start; the second to listen says so."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    sockets = config.create_sockets()
    address = sockets.insecure_sockets[0].getsockname()
    with socket.create_server(address):
        server = Server(Limits(), Application())
        app = wrap_app(Application(), config.wsgi_max_body_size, "asgi")
        said = (
            f"^cannot listen on http://127.0.0.1:{address[1]}: Address already in use"
        )
        with trio.fail_after(30), pytest.raises(SystemExit, match=said):
            await server.serve(app, config, sockets=sockets)
