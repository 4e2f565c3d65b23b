"""`trio-ai-stream chat` as a process, against a real server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.support.serving import ServerProcess
from trio_ai_stream.chat_client import command
from trio_ai_stream.chat_client.screen import Screen
from trio_ai_stream.server.certificate import write

CHAT = [sys.executable, "-m", "trio_ai_stream", "chat"]
KEY = "a-key-for-this-test-of-the-client"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one key."""
    log = tmp_path_factory.mktemp("server") / "log"
    process = ServerProcess(log, API_KEYS=KEY)
    yield process
    process.stop()


def chat(
    server: ServerProcess, *words: str, text: str | None = None, key: str = KEY
) -> subprocess.CompletedProcess[str]:
    """Run the client to its end."""
    environ = {"TRIO_AI_STREAM_URL": server.url, "TRIO_AI_STREAM_KEY": key}
    return subprocess.run(
        [*CHAT, *words],
        input=text,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def start(server: ServerProcess, *words: str) -> subprocess.Popen[bytes]:
    """Start the client on an answer that has no end."""
    return subprocess.Popen(
        [*CHAT, "--url", server.url, "--key", KEY, "--json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def first_line(stdout: IO[bytes] | None) -> dict[str, str]:
    """Return the first event that the client printed."""
    assert stdout is not None
    event: dict[str, str] = json.loads(stdout.readline())
    return event


def test_the_answer_goes_to_stdout_and_its_ending_to_stderr(
    server: ServerProcess,
) -> None:
    """A whole answer is exit code 0; the simulator is named."""
    done = chat(server, "--model", "simulator/echo", "Grüße, 世界!")
    assert (done.returncode, done.stdout) == (0, "Grüße, 世界!\n")
    assert "no model answers" in done.stderr
    assert "[completed: 2 events in " in done.stderr


def test_the_prompt_may_come_from_stdin(server: ServerProcess) -> None:
    """Without a prompt, or with -, stdin is read."""
    for words in ([], ["-"]):
        done = chat(server, "--model", "simulator/echo", *words, text="from a pipe\n")
        assert (done.returncode, done.stdout) == (0, "from a pipe\n")


@pytest.mark.parametrize("text", ["", " \n"])
def test_nothing_on_stdin_is_bad_usage(server: ServerProcess, text: str) -> None:
    """Nothing is sent; the message says what was expected."""
    for words in ([], ["-"]):
        done = chat(server, *words, text=text)
        assert done.returncode == 2
        assert "expected a prompt on stdin, got nothing" in done.stderr


def test_json_prints_every_chunk(server: ServerProcess) -> None:
    """Also the one that says no more than what was used."""
    done = chat(server, "--json", "--model", "simulator/echo", "--system", "Be.", "x")
    chunks = [json.loads(line) for line in done.stdout.splitlines()]
    assert chunks[0]["choices"][0]["delta"]["content"] == "x"
    assert chunks[-1]["usage"]["completion_tokens"]


def test_an_error_event_is_exit_code_1(server: ServerProcess) -> None:
    """What came stays on stdout, what went wrong is said."""
    done = chat(server, "--model", "simulator/drop", "x")
    assert done.returncode == 1
    assert done.stdout
    assert "upstream_failed (502)" in done.stderr


def test_a_refusal_is_exit_code_1(server: ServerProcess) -> None:
    """The server's own words are shown, the key is not."""
    done = chat(server, "x", key="wrong-key")
    assert done.returncode == 1
    assert "invalid_api_key (401)" in done.stderr
    assert "wrong-key" not in done.stderr


def test_no_server_is_exit_code_1(server: ServerProcess) -> None:
    """A refused connection is one line, not a traceback."""
    with socket.socket() as deaf:  # bound, but not listening
        deaf.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        done = chat(server, "--url", url, "x")
    assert done.returncode == 1
    assert done.stderr.startswith(f"[connection: expected a server at {url}")
    assert "is it running" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["--url", "ftp://x", "x"], ["--nonsense"]])
def test_bad_usage_is_exit_code_2(server: ServerProcess, words: list[str]) -> None:
    """A bad option never reaches the network."""
    done = chat(server, *words)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_ctrl_c_cancels_by_id_and_says_what_the_server_did(
    server: ServerProcess,
) -> None:
    """SIGINT deletes the stream: outcome cancelled, upstream closed, exit code 130."""
    client = start(server, "--model", "simulator/endless", "x")
    chunk = first_line(client.stdout)
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=20)
    assert client.returncode == 130
    assert b"[cancelled: upstream closed in " in err
    last = json.loads(out.splitlines()[-1])
    assert last["error"]["metadata"]["error_type"] == "cancelled"
    assert server.ended(chunk["id"])["outcome"] == "cancelled"


def test_a_reader_that_goes_away_ends_the_stream(server: ServerProcess) -> None:
    """`chat … | head` cancels as soon as a write fails: the stream would wait."""
    client = start(server, "--model", "simulator/endless", "x")
    chunk = first_line(client.stdout)
    assert client.stdout is not None
    assert client.stderr is not None
    client.stdout.close()
    assert client.wait(20) == 1
    assert b"Traceback" not in client.stderr.read()
    client.stderr.close()
    ended = server.ended(chunk["id"])
    assert ended["outcome"] == "cancelled"


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    """Another server with OpenAI's API, which knows nothing of ours: the simulator."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_ai_stream", "simulate", "--json"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["base_url"]
    process.terminate()
    process.stdout.close()
    process.wait()


def test_any_server_with_the_api_is_asked(server: ServerProcess, other: str) -> None:
    """The path of an address is the base of its API; its errors are shown."""
    done = chat(server, "--url", other, "--model", "simulator/echo", "a")
    assert (done.returncode, done.stdout) == (0, "a\n")
    cut = chat(server, "--url", other, "--model", "simulator/drop", "a")
    assert cut.returncode == 1
    assert "[connection: " in cut.stderr
    refused = chat(server, "--url", other, "--model", "simulator/rate-limited", "a")
    assert refused.returncode == 1
    assert "(429): " in refused.stderr
    lost = chat(server, "--url", f"{other}/nowhere", "a")
    assert lost.returncode == 1
    assert "perhaps it wants to be told a model" in lost.stderr


def test_ctrl_c_hangs_up_on_another_server(server: ServerProcess, other: str) -> None:
    """It is asked nothing that it cannot know."""
    client = start(server, "--url", other, "--model", "simulator/endless", "x")
    first_line(client.stdout)
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=20)
    assert client.returncode == 130
    assert b"[hung up: " in err


def test_a_certificate_of_ones_own_is_trusted_if_it_is_named(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without `--ca` the certificate of `dev-cert` is refused; what is none is said."""
    certificate, key = write(tmp_path)
    own = ServerProcess(
        tmp_path / "log", TLS_CERT_FILE=str(certificate), TLS_KEY_FILE=str(key)
    )
    url = own.url.replace("127.0.0.1", "localhost")
    words = ["--url", url, "--model", "simulator/echo", "a"]
    try:
        assert chat(server, *words).returncode == 1
        ca = str(tmp_path / "dev-ca.pem")
        assert chat(server, "--ca", ca, *words).stdout == "a\n"
    finally:
        own.stop()
    for bad, said in ((str(key), "expected certificates"), ("none", "No such file")):
        with pytest.raises(SystemExit):
            command.parser().parse_args(["--ca", bad, *words])
        assert said in capsys.readouterr().err


def test_without_rich_the_client_says_so_and_shows_plain_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rich is an extra; nothing is said where Markdown is not formatted anyway."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    ours = "trio_ai_stream.chat_client.markdown_screen"
    monkeypatch.delitem(sys.modules, ours, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    options = command.parser().parse_args(["x"])
    assert command.screens(options) is Screen
    assert "pip install 'trio-ai-stream[chat]'" in capsys.readouterr().err
    assert command.screens(command.parser().parse_args(["--plain", "x"])) is Screen
    assert capsys.readouterr().err == ""


def test_bytes_that_are_not_utf8_are_refused_in_words(server: ServerProcess) -> None:
    """On stdin, as an argument, and in a key, which is not shown."""
    environ = {"TRIO_AI_STREAM_URL": server.url, "TRIO_AI_STREAM_KEY": KEY}

    def said(words: list[str | bytes], text: bytes = b"", **env: str) -> str:
        done = subprocess.run(
            [*CHAT, *words],
            input=text,
            env={**environ, **env},
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 2
        return done.stderr.decode().splitlines()[-1]

    for env in ({"PYTHONUTF8": "1"}, {"PYTHONIOENCODING": "utf-8:strict"}):
        assert "expected the prompt in UTF-8" in said([], b"caf\xe9", **env)
    assert "expected the prompt in UTF-8" in said([b"caf\xe9"])
    assert "expected --system in UTF-8" in said([b"--system", b"\xff", "hi"])
    key = said(["--key", "clé", "hi"])
    assert "expected a key of visible ASCII characters" in key
    assert "cl" not in key.partition("expected")[2].replace("clients", "")


def test_an_answer_that_cannot_be_written_is_cancelled_and_said(
    server: ServerProcess,
) -> None:
    """A full disk is told in a line, and the stream does not wait for this client."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*CHAT, "--url", server.url, "--key", KEY, "hi"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert "[cannot write the answer: No space left on device]" in done.stderr
    assert "Traceback" not in done.stderr
