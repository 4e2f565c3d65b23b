"""The command line: what it hands over, and what it says is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from trio_ai_stream import cli
from trio_ai_stream.admission import admission_factory
from trio_ai_stream.billing.usage_database import UsageDatabase
from trio_ai_stream.cli import main
from trio_ai_stream.settings import load_settings


def test_lab_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where cancel-lab is not installed, `lab` ends with 2 and names the remedy."""
    monkeypatch.setitem(sys.modules, "cancel_lab.__main__", None)
    assert main(["lab", "probe"]) == 2
    assert "pip install ./packages/cancel-lab" in capsys.readouterr().err


def test_lab_hands_its_words_over(capsys: pytest.CaptureFixture[str]) -> None:
    """Where it is installed, the rest of the line is its own."""
    assert main(["lab", "probe"]) == 2
    assert "expected --adapter NAME" in capsys.readouterr().err


def test_dev_cert_without_its_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where trustme is not installed, `dev-cert` ends with 2 and names the extra."""
    monkeypatch.delitem(sys.modules, "trio_ai_stream.server.certificate", raising=False)
    monkeypatch.setitem(sys.modules, "trustme", None)
    assert main(["dev-cert"]) == 2
    assert "trio-ai-stream[dev-cert]" in capsys.readouterr().err


def test_the_terminal_client_starts_without_what_only_a_server_needs() -> None:
    """Its imports are what a person waits for before the first word."""
    words = ["-X", "importtime", "-m", "trio_ai_stream", "chat", "--help"]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "trio_ai_stream.chat_client.chat_exchange" in loaded
    assert not loaded & {"quart", "hypercorn", "trio_ai_stream.settings"}
    assert "httpx" in loaded
    assert not loaded & {"rich", "click"}


@pytest.mark.parametrize(
    ("bind", "shown"),
    [("127.0.0.1:8080", "localhost:8080"), ("[fd00::1]:8080", "[fd00::1]:8080")],
)
def test_a_person_is_told_where_the_page_is(
    bind: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a browser takes it: an address of IPv6 stands in brackets."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    cli._say_where_the_page_is(load_settings({"PORT": bind}, None))
    assert capsys.readouterr().err == f"starting; the page: http://{shown}/\n"


def test_check_config_lists_names_that_are_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting of another version is found before the upgrade, not after it."""
    (tmp_path / ".env").write_text("COMPLETIONS_HEARTBEAT=events\nRATE_LIMIT=3\n")
    monkeypatch.chdir(tmp_path)
    assert main(["check-config"]) == 0
    said = "# in .env, and no settings of this server: COMPLETIONS_HEARTBEAT"
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_check_config_refuses_what_serve_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also what the SDK of traces does not take, and an extra that is missing."""
    with monkeypatch.context() as environ:
        environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        assert main(["check-config"]) == 0
        environ.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
        assert main(["check-config"]) == 2
        assert "OTEL_*: the OpenTelemetry SDK says" in capsys.readouterr().err
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1")
    assert main(["check-config"]) == 0
    monkeypatch.setattr(admission_factory, "find_spec", lambda _name: None)
    assert main(["check-config"]) == 2
    assert "install trio-ai-stream[redis]" in capsys.readouterr().err


def run(words: str, shell: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell does, with redirections."""
    line = f"exec {sys.executable} -m trio_ai_stream {words} {shell}"
    return subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_what_cannot_be_written_is_said_without_a_traceback(tmp_path: Path) -> None:
    """`check-config | head -1`, a full disk, a table and a CSV alike."""
    ledger = tmp_path / "ledger.db"
    with closing(UsageDatabase(ledger)):
        pass
    for words in ("check-config", f"usage --file {ledger}"):
        full = run(words, "> /dev/full")
        assert (full.returncode, full.stderr) == (
            1,
            "cannot write: No space left on device\n",
        )
    read, write = os.pipe()
    os.close(read)
    gone = subprocess.run(
        [sys.executable, "-m", "trio_ai_stream", "check-config"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(write)
    assert (gone.returncode, gone.stderr) == (1, "")


def test_streams_that_were_closed_are_no_errors() -> None:
    """Without stdin, stdout or stderr a command does what it can."""
    assert run("chat --url http://127.0.0.1:1 hi", "<&- >&- 2>&-").returncode == 1
    piped = run("chat --url http://127.0.0.1:1", "<&-")
    assert piped.stderr.splitlines()[-1].endswith("prompt on stdin, got nothing")
    assert run("check-config", "2>&-").returncode == 0


def test_a_character_that_stdout_lacks_is_replaced() -> None:
    """A terminal that is not UTF-8 shows a question mark, not a traceback."""
    shown = run("usage --help", PYTHONIOENCODING="ascii")
    assert (shown.returncode, shown.stderr) == (0, "")
    code = "from trio_ai_stream.cli import main, COMMANDS, Command\n"
    code += "COMMANDS['lab'] = Command('', lambda words: print('\u2514\u2500') or 0)\n"
    code += "raise SystemExit(main(['lab']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "??\n", "")


def test_dev_cert_writes_all_or_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new CA beside an old certificate would make every client refuse it."""
    pytest.importorskip("trustme")
    (tmp_path / "dev-key.pem").write_text("mine")
    assert main(["dev-cert", str(tmp_path)]) == 1
    assert "exists; nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["dev-key.pem"]
    assert main(["dev-cert", "/proc/no-such-folder"]) == 1
    said = "dev-cert: cannot write /proc/no-such-folder: No such file or directory\n"
    assert capsys.readouterr().err == said


def test_a_port_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system would take 65537 for 1, and a key would go to whoever is there."""
    monkeypatch.chdir(tmp_path)
    for words in (
        ["simulate", "--port", "65536"],
        ["simulate", "--tls-port", "-1"],
        ["simulate", "--records", "-1"],
        ["chat", "--url", "http://127.0.0.1:99999", "hi"],
        ["chat", "--url", "http://127.0.0.1:0", "hi"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        assert "expected" in capsys.readouterr().err.splitlines()[-1]
    assert main(["pstree", "http://127.0.0.1:99999"]) == 1
    assert "expected a port of 1 to 65535" in capsys.readouterr().err
    for url in (
        *("http://127.0.0.1:99999/v1", "http://h:0", "https://", "http://[::1"),
        *("https://h/v1?a=b", "https://h/v1#a", "https://u:p@h/v1", "https://h/v 1"),
    ):
        monkeypatch.setenv("OPENROUTER_BASE_URL", url)
        assert main(["check-config"]) == 2
        assert "OPENROUTER_BASE_URL: expected a URL" in capsys.readouterr().err


def test_ctrl_c_while_the_command_line_is_imported_shows_no_traceback() -> None:
    """The process ends by the signal, whatever it was about to import."""
    code = (
        "import os, runpy, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'trio_ai_stream.cli':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "runpy.run_module('trio_ai_stream', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
