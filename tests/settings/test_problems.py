"""What is wrong with the settings is said at once, in words that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.process import run_to_end
from trio_ai_stream.server import certificate
from trio_ai_stream.settings import (
    SETTINGS,
    SettingsError,
    foreign_names,
    load_settings,
)
from trio_ai_stream.settings.cross_field import RULES
from trio_ai_stream.settings.loading import reloaded
from trio_ai_stream.settings.values import Secret


def problems(**environ: str) -> list[str]:
    """Return what is wrong with these settings."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, None)
    return caught.value.problems


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Two certificates, each with its key."""
    folder = tmp_path_factory.mktemp("tls")
    return [certificate.write(folder / name) for name in ("one", "two")]


def test_values_and_rules_are_reported_together() -> None:
    """A wrong value hides no rule that can do without it."""
    found = problems(
        RATE_LIMIT="-1",
        WORKERS="many",
        UPSTREAM="openrouter",
        ALLOW_ANONYMOUS="1",
        API_KEYS="a-key-of-a-client",
    )
    names = [line.partition(":")[0] for line in found]
    assert sorted(names) == [
        *("ALLOW_ANONYMOUS", "OPENROUTER_API_KEY", "RATE_LIMIT", "WORKERS"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("WORKERS", "many", "a whole number from 1 to 256, got 'many'"),
        ("WORKERS", "257", "a whole number from 1 to 256, got '257'"),
        ("WORKERS", "1.5", "a whole number from 1 to 256, got '1.5'"),
        ("MAX_BODY_BYTES", "inf", "a whole number from 1 to 1099511627776, got 'inf'"),
        (
            "RATE_LIMIT",
            "0",
            "a number that is more than 0 and at most 1000000, got '0'",
        ),
        ("RATE_LIMIT", "nan", "a number that is more than 0 and at most 1000000, got"),
        ("DONE_GRACE_SECS", "-1", "a number that is at least 0 and at most 60, got"),
        ("TRACE", "maybe", "1 or 0, got 'maybe'"),
        ("LOG_FORMAT", "xml", "one of auto, text, json, got 'xml'"),
        ("REDIS_PREFIX", "a b", "a text that matches [A-Za-z0-9._:-]{1,64}, got 'a b'"),
        ("TRACE_FILE", "a\0b", "the path of a file, got one with a null byte"),
        ("OPENROUTER_API_KEY", "sk-or b", "printable ASCII characters without spaces"),
        ("OPENROUTER_TITLE", "caf\xe9", "printable ASCII (it becomes an HTTP header)"),
    ],
)
def test_a_value_that_is_wrong_is_one_sentence(name: str, text: str, said: str) -> None:
    """The name, what was expected, what came; what may be a secret is not shown."""
    (found,) = problems(**{name: text})
    assert found.startswith(f"{name}: expected {said}")
    assert "sk-or" not in found


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("WORKERS", " 2 ", 2),
        ("MAX_BODY_BYTES", "1_000_000", 1_000_000),
        ("WORKERS", "2.0", 2),
        ("RATE_LIMIT", "1e3", 1000),
        ("TRACE", "Yes", True),
        ("ALLOW_ANONYMOUS", "off", False),
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("LOG_FORMAT", "JSON", "json"),
        ("OPENROUTER_API_KEY", "sk-or-1\n", Secret("sk-or-1")),
    ],
)
def test_usual_spellings_are_read(name: str, text: str, value: object) -> None:
    """As people write them, and with the line's end of a file that held a secret."""
    assert getattr(load_settings({name: text}, None), name) == value


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("http://cache:6379", "another scheme"),
        ("redis-sentinel://cache", "another scheme"),
        ("cache:6379", "another scheme"),
        ("unix:///run/redis.sock", "another scheme"),
        ("redis://cache:port", "a port that is not"),
        ("redis://cache:0", "a port that is not"),
        ("redis://cache:99999", "a port that is not"),
        ("redis://cache:", "a port that is not"),
        ("redis://one:6379,two:6379", "several hosts"),
        ("redis://:pass@one,two/0", "several hosts"),
        ("redis://", "no host"),
        ("redis://a b", "no host"),
        ("redis://cache/name", "something else"),
        ("redis://cache/0?ssl_cert_reqs=none", "something else"),
        ("redis://[::1", "something else"),
    ],
)
def test_a_url_of_redis_is_checked(url: str, got: str) -> None:
    """What no connection can be made of is refused in a sentence, before any start."""
    (found,) = problems(REDIS_URL=url)
    assert found.startswith("REDIS_URL: expected redis://")
    assert got in found
    assert "pass@" not in found


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://cache/",
        "redis://cache:6380/2",
        "rediss://user:p%40ss,word@cache.example:6380?db=1",
        "redis://[::1]:6379",
    ],
)
def test_a_url_of_one_redis_is_taken(url: str) -> None:
    """Every spelling of one server is taken as it is."""
    found = load_settings({"REDIS_URL": url}, None).REDIS_URL
    assert found is not None
    assert found.value == url


def test_a_rule_waits_for_the_values_it_needs(pairs: list[tuple[Path, Path]]) -> None:
    """A certificate that can't be read is not also said to be missing."""
    found = problems(TLS_CERT_FILE="/no/such.pem", TLS_KEY_FILE=str(pairs[0][1]))
    assert found == [
        "TLS_CERT_FILE: expected a file that can be read, got /no/such.pem:"
        " No such file or directory"
    ]


def test_the_budget_of_all_bodies_holds_one() -> None:
    """A body that MAX_BODY_BYTES allows must find room."""
    (found,) = problems(MAX_BODIES_BYTES="1000")
    assert found.startswith("MAX_BODIES_BYTES: expected MAX_BODY_BYTES or more")


@pytest.mark.parametrize(
    ("host", "metrics_port", "clash"),
    [
        ("127.0.0.1", "9000", True),
        ("0.0.0.0", "9000", True),
        ("127.0.0.1", "127.0.0.2:9000", False),
        ("127.0.0.1", "9001", False),
    ],
)
def test_the_two_listeners_have_two_addresses(
    host: str, metrics_port: str, clash: bool
) -> None:
    """Both cannot listen at one; without the rule the second failed at start."""
    environ = {"HOST": host, "PORT": "9000", "METRICS_PORT": metrics_port}
    if not clash:
        load_settings(environ, None)
        return
    (found,) = problems(**environ)
    assert found == "METRICS_PORT: expected another port than PORT, got 9000 for both"


def test_other_hosts_are_told_an_address_that_they_can_find() -> None:
    """PEER_ADDRESS is one host's, beside the other ports, and known through Valkey."""
    redis = {"REDIS_URL": "redis://localhost"}
    load_settings({**redis, "PEER_ADDRESS": "10.0.0.1:9000"}, None)
    nowhere = ("9000", ":9000", "0.0.0.0:9000", "[::]:9000", "10.0.0.1:0")
    for address in (*nowhere, "a b:9000", "a/b:9000", "bücher:9000"):
        (found,) = problems(**redis, PEER_ADDRESS=address)
        assert "expected an address that other hosts can connect to" in found
    (found,) = problems(PEER_ADDRESS="10.0.0.1:9000")
    assert found.startswith("PEER_ADDRESS: expected together with REDIS_URL")
    both = {"METRICS_PORT": "0.0.0.0:9000", "PEER_ADDRESS": "10.0.0.1:9000"}
    (found,) = problems(**redis, **both)
    expected = "PEER_ADDRESS: expected another port than METRICS_PORT, got 9000 for"
    assert found.startswith(expected)


def test_what_is_the_default_may_be_set() -> None:
    """No setting's bounds exclude what it is without being set."""
    defaults = load_settings({}, None)
    for name in SETTINGS:
        default = getattr(defaults, name)
        if isinstance(default, int | float | str):
            assert getattr(load_settings({name: str(default)}, None), name) == default


def test_rules_need_settings_that_exist() -> None:
    """A rule's names are fields."""
    assert frozenset().union(*RULES) <= set(SETTINGS)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("10.1.2.3/8", "got '10.1.2.3/8'; did you mean 10.0.0.0/8?"),
        ("10.1.2.3,proxy.local", "got 'proxy.local'; write an address, names"),
        ("10.0.0.0/99", "got '10.0.0.0/99'; write"),
    ],
)
def test_a_wrong_network_is_explained(value: str, advice: str) -> None:
    """One line: what was expected, which word came, what to do."""
    (found,) = problems(TRUSTED_PROXIES=value)
    assert found.startswith("TRUSTED_PROXIES: expected addresses or networks, as")
    assert advice in found


def test_addresses_and_networks_are_read() -> None:
    """Both families, with or without a prefix."""
    settings = load_settings({"TRUSTED_PROXIES": "10.1.2.3, fd00::/8,"}, None)
    assert [str(net) for net in settings.TRUSTED_PROXIES] == ["10.1.2.3/32", "fd00::/8"]


def test_a_pair_that_belongs_together_is_taken(pairs: list[tuple[Path, Path]]) -> None:
    """The certificate and its own key."""
    cert, key = map(str, pairs[0])
    settings = load_settings({"TLS_CERT_FILE": cert, "TLS_KEY_FILE": key}, None)
    assert str(settings.TLS_KEY_FILE) == key


def test_files_that_are_no_pair_are_refused(
    pairs: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    """Another certificate's key, and what is no PEM: both files are named."""
    (cert, key), (_, other) = pairs
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no key\n")
    for one, two, why in (
        (cert, other, "the key belongs to another certificate"),
        (cert, rubbish, "one of them can't be used"),
        (rubbish, key, "one of them can't be used"),
    ):
        (found,) = problems(TLS_CERT_FILE=str(one), TLS_KEY_FILE=str(two))
        assert f"got {one} and {two}: {why}" in found


def test_one_file_of_the_two_is_refused(pairs: list[tuple[Path, Path]]) -> None:
    """It says which one there is."""
    (found,) = problems(TLS_KEY_FILE=str(pairs[0][1]))
    assert found == (
        "TLS_CERT_FILE: expected together with TLS_KEY_FILE, got only TLS_KEY_FILE"
    )


def test_serve_ends_with_2_on_files_that_do_not_match(
    pairs: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    """A message, no traceback; nothing listens."""
    (cert, _), (_, key) = pairs
    environ = {"TLS_CERT_FILE": str(cert), "TLS_KEY_FILE": str(key)}
    done = run_to_end(tmp_path, "trio_ai_stream", "serve", **environ)
    assert done.returncode == 2
    assert "belongs to another certificate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\n# note\nOPENROUTER_API_KEY sk-or-v1-secret\n", ["line 3: expected NAME="]),
        (b"PORT=1\nRATE_LIMIT\nsome words here\n", ["line 2: ", "line 3: "]),
        (b"PORT='1\nRATE_LIMIT=2\n", ["line 1: expected NAME="]),
        (b"PORT=1\nOPENROUTER_TITLE=caf\xe9\n", ["UTF-8, got byte 0xe9 in line 2"]),
        (b"PORT=x\nnothing at all\n", ["line 2: ", "PORT: expected 8080"]),
    ],
)
def test_a_line_that_is_no_setting_is_named(
    content: bytes, found: list[str], tmp_path: Path
) -> None:
    """Each by its number, together with bad values; what stands there is not shown."""
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings({}, tmp_path / ".env")
    problems = caught.value.problems
    assert len(problems) == len(found)
    assert all(words in line for words, line in zip(found, problems, strict=True))
    assert "secret" not in str(caught.value)


def test_what_an_env_file_may_hold(tmp_path: Path) -> None:
    """A byte order mark, `export`, quotes, comments, and names of other programs."""
    text = "\ufeff# a\nexport PORT='1234' # b\nOTHER\nX=1\n\nRATE_LIMIT=\"3\"\n"
    (tmp_path / ".env").write_text(text)
    settings = load_settings({}, tmp_path / ".env")
    assert (settings.PORT, settings.RATE_LIMIT) == (("", 1234), 3)
    assert foreign_names(tmp_path / ".env") == ["OTHER", "X"]
    assert foreign_names(tmp_path / "none") == []


def test_an_env_file_that_cannot_be_looked_at_is_a_problem(tmp_path: Path) -> None:
    """As where another user's home is the folder; what the system says is shown."""
    path = tmp_path / ("x" * 300)
    with pytest.raises(SettingsError) as caught:
        load_settings({}, path)
    expected = f"{path}: expected a file that can be read: File name too long"
    assert caught.value.problems == [expected]


@pytest.mark.parametrize("command", ["check-config", "serve", "hypercorn"])
def test_a_bad_env_file_ends_the_start(command: str, tmp_path: Path) -> None:
    """The words, and exit status 2 from our own commands."""
    (tmp_path / ".env").write_bytes(b"\xff\n")
    words = ["trio_ai_stream", command]
    if command == "hypercorn":
        words = ["hypercorn", "-b", "127.0.0.1:0", "trio_ai_stream.app:app"]
    done = run_to_end(tmp_path, *words)
    assert ".env: expected text in UTF-8, got byte 0xff in line 1" in done.stderr
    assert "Traceback" not in done.stderr
    if command != "hypercorn":
        assert done.returncode == 2


ODD_TEXTS = [
    *("", " ", "-1", "1e999", "nan", "-inf", "\u00b2", "1_0", 400 * "9", "\udcff"),
    *("a\nb", "a\0b", "http://[::1", "https://h:99999/", "//", "1.2.3.4/33", ",", "="),
    *("sha256:", "/no/such/folder/file", "/dev/null", "[]", "1;2", "5/s"),
]


@pytest.mark.parametrize("name", SETTINGS)
def test_no_text_is_worse_than_a_wrong_value(name: str) -> None:
    """Each is taken, or refused in words that name the setting or a rule it is in."""
    ruled = any(name in names for names in RULES)
    for text in ODD_TEXTS:
        found: list[str] = []
        try:
            load_settings({name: text}, None)
        except SettingsError as exc:
            found = exc.problems
        assert all("expected" in one for one in found)
        assert not found or ruled or any(one.startswith(f"{name}:") for one in found)


def test_files_that_are_opened_once_hold_up_no_reload(
    pairs: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    """A key is revoked, whatever has become of the certificate or the ledger's disk."""
    certificate, folder = tmp_path / "now.pem", tmp_path / "ledger"
    certificate.write_bytes(pairs[0][0].read_bytes())
    folder.mkdir()
    environ = {
        "TLS_CERT_FILE": str(certificate),
        "TLS_KEY_FILE": str(pairs[0][1]),
        "LEDGER_FILE": str(folder / "usage.db"),
        "API_KEYS": "the-first-key",
    }
    old = load_settings(environ, None)
    environ["API_KEYS"] = "the-second-key"
    certificate.write_text("half writ")
    folder.rmdir()
    assert len(problems(**environ)) == 2
    certificate.unlink()
    now, changed, fixed = reloaded(old, load_settings(environ, None, unopened=True))
    assert (now.api_keys, changed, fixed) == (("the-second-key",), {"API_KEYS"}, set())
    environ["LEDGER_FILE"] = "other.db"
    _, _, fixed = reloaded(old, load_settings(environ, None, unopened=True))
    assert fixed == {"LEDGER_FILE"}
