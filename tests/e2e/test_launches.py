"""Both launches, as a user runs them: real processes, real curl, three transports."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
import trio

from tests.support.process import HYPERCORN, ROOT, SERVE, curl, server
from trio_ai_stream.cli import FLAGS
from trio_ai_stream.simulator.simulator import Simulator

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None, reason="curl is not installed"
)
APP = "trio_ai_stream.app:app"
SECRET, PROMPT = "sk-or-v1-very-secret", "the weather is nobody's business"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `dev-cert` writes."""
    from trio_ai_stream.server.certificate import write

    folder: Path = tmp_path_factory.mktemp("certificate")
    write(folder)
    return folder


@pytest.mark.parametrize("launch", ["serve", "hypercorn"])
async def test_both_launches_serve_http1_h2c_and_h2(
    launch: str, certificate: Path
) -> None:
    """One port takes HTTP/1.1 and h2c; with a certificate it is h2 by ALPN."""
    pair = {
        "cert": str(certificate / "dev-cert.pem"),
        "key": str(certificate / "dev-key.pem"),
    }
    plain, tls = SERVE, SERVE
    env = {}
    if launch == "serve":
        env = {"TLS_CERT_FILE": pair["cert"], "TLS_KEY_FILE": pair["key"]}
    else:
        plain = [*HYPERCORN, "-b", "127.0.0.1:0", APP]
        tls = [*HYPERCORN, "-b", "127.0.0.1:0", "--certfile", pair["cert"],
               "--keyfile", pair["key"], APP]  # fmt: skip
    chat = {"prompt": "hi", "max_tokens": 3}
    with trio.fail_after(90):
        async with server(plain) as running:
            url = f"http://127.0.0.1:{running.port}/chat"
            for option, version in [
                ("--http1.1", "1.1"),
                ("--http2-prior-knowledge", "2"),
            ]:
                answer = await curl(option, url, data=chat)
                assert answer.startswith(f"HTTP/{version} 200")
                assert answer.count('"type":"content"') == 3
                assert '"type":"done"' in answer
            assert await running.stop() == 0
            assert [r["outcome"] for r in running.ended()] == ["completed"] * 2
        async with server(tls, **env) as running:
            url = f"https://127.0.0.1:{running.port}/chat"
            root = str(certificate / "dev-ca.pem")
            answer = await curl("--cacert", root, url, data=chat)
            assert answer.startswith("HTTP/2 200")
            assert '"type":"done"' in answer
            assert "strict-transport-security" in answer
            assert await running.stop() == 0


async def test_neither_key_nor_prompt_nor_content_is_in_any_record() -> None:
    """The whole log, at its most talkative, holds no secret and no word of a chat."""
    env = {
        "LOG_LEVEL": "TRACE",
        "UPSTREAM": "openrouter",
        "OPENROUTER_API_KEY": SECRET,
        "FIRST_TOKEN_TIMEOUT_SECS": "5",
    }
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            env["OPENROUTER_BASE_URL"] = (
                await nursery.start(Simulator().serve)
            ).base_url
            async with server(SERVE, **env) as running:
                url = f"http://127.0.0.1:{running.port}/chat"
                for model in [
                    "echo",
                    "drop",
                    "default?status=401",
                    "default?status=400",
                ]:
                    body = {"prompt": PROMPT, "model": f"simulator/{model}"}
                    await curl(url, data=body)
                await curl(url, data={"prompt": PROMPT, "temperature": PROMPT})
                await curl(url, data={"prompt": PROMPT, PROMPT: 1})
                await running.stop()
            nursery.cancel_scope.cancel(reason="test over")
            log = "\n".join(running.lines)
            assert len(running.ended()) == 4
    assert "stream ended" in log
    for hidden in [SECRET, PROMPT, *PROMPT.split()[3:]]:
        assert hidden not in log


REAL = {"UPSTREAM": "openrouter", "OPENROUTER_API_KEY": "a-key"}
SOCKS = {"HTTPS_PROXY": "socks5://proxy.test:1080", "NO_PROXY": "", **REAL}


async def test_bad_settings_are_named_at_once() -> None:
    """Either launch refuses bad settings before it listens."""
    environment = {**os.environ, "RATE_LIMIT": "fast", "PORT": "x", "LOG_LEVEL": "?"}
    for command in (SERVE, [*HYPERCORN, "-b", "127.0.0.1:0", APP]):
        with trio.fail_after(30):
            done = await trio.run_process(
                command, env=environment, capture_stderr=True, check=False
            )
        text = done.stderr.decode()
        assert done.returncode == 2
        assert all(name in text for name in ["RATE_LIMIT", "PORT", "LOG_LEVEL"])
        assert "Traceback" not in text


@pytest.mark.parametrize(
    ("words", "environ", "status", "said"),
    [
        (["serve"], {"PORT": "{taken}"}, 1, "cannot listen on 127.0.0.1:{taken}: "),
        (["serve"], {"TRIO_AI_STREAM_LISTEN_FDS": "999"}, 1, "cannot start: [Errno 9]"),
        (
            ["serve"],
            {"METRICS_PORT": "{taken}"},
            1,
            "METRICS_PORT: cannot listen on 127.0.0.1:{taken}: ",
        ),
        (
            ["serve"],
            {"METRICS_PORT": "{taken}", "WORKERS": "2"},
            1,
            "METRICS_PORT: cannot listen on 127.0.0.1:{taken}: ",
        ),
        (
            ["serve"],
            {"TRIO_AI_STREAM_LISTEN_FDS": "0", "TMPDIR": "{folder}"},
            1,
            "to be a directory of this user alone, mode 0700; remove it",
        ),
        (
            ["serve"],
            {"WORKERS": "2", "TMPDIR": "{long}"},
            1,
            "expected a path of 107 bytes at most, got {long}/trio-ai-stream-",
        ),
        (
            ["serve"],
            {"WORKERS": "2", **SOCKS},
            2,
            "HTTPS_PROXY: expected a proxy's URL",
        ),
        (
            ["serve"],
            {"SSL_CERT_FILE": "none.pem", **REAL},
            2,
            "SSL_CERT_FILE: expected",
        ),
        (["check-config"], SOCKS, 2, "HTTPS_PROXY: expected a proxy"),
        (["check-config"], {"TLS_CERT_FILE": "none.pem"}, 2, "TLS_CERT_FILE: expected"),
        (["check-config"], {"HOST": "0.0.0.0"}, 2, "HOST: expected 127.0.0.1"),
        (["check-config"], {"RATE_LIMIT": "x"}, 2, "at most 1000000, got 'x'"),
        (["dev-cert", "{folder}"], {}, 1, "dev-ca.pem: exists; nothing was"),
    ],
    ids=[
        "port-taken",
        "no-socket",
        "management-port",
        "of-workers",
        "run-directory",
        "long-path",
        "no-proxy-of-workers",
        "nobody-to-trust",
        "no-proxy",
        "no-certificate",
        "exposed",
        "not-a-number",
        "dev-cert-twice",
    ],
)
async def test_an_operators_mistake_is_a_sentence(
    words: list[str],
    environ: dict[str, str],
    status: int,
    said: str,
    certificate: Path,
) -> None:
    """What an operator can get wrong is answered in one line, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken, trio.fail_after(90):
        names = {"taken": str(taken.getsockname()[1]), "folder": str(certificate)}
        names["long"] = str(certificate / ("x" * 90))
        Path(names["long"]).mkdir(exist_ok=True)  # noqa: ASYNC240 - no disk
        shared = certificate / f"trio-ai-stream-{os.getuid()}-{os.getpid()}"
        shared.mkdir(exist_ok=True)  # what this process's workers would share
        shared.chmod(0o777)
        done = await trio.run_process(
            [*SERVE[:-1], *(word.format(**names) for word in words)],
            env={
                **os.environ,
                "PORT": "0",
                **{k: v.format(**names) for k, v in environ.items()},
            },
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    text = done.stderr.decode()
    assert (done.returncode, "Traceback" in text) == (status, False)
    assert text.count(said.format(**names)) == 1


async def test_hypercorn_says_in_a_sentence_that_workers_cannot_share(
    tmp_path: Path,
) -> None:
    """As `serve` does: where they share files is somebody else's, or is full."""
    shared = tmp_path / f"trio-ai-stream-{os.getuid()}-{os.getpid()}"
    shared.mkdir()
    shared.chmod(0o777)
    worker = {"TRIO_AI_STREAM_LISTEN_FDS": "0", "TMPDIR": str(tmp_path)}
    with trio.fail_after(60):
        done = await trio.run_process(
            [*HYPERCORN, "-w", "0", "-b", "127.0.0.1:0", APP],
            cwd=ROOT,
            env={**os.environ, **worker},
            capture_stderr=True,
            check=False,
        )
    text = done.stderr.decode()
    assert (done.returncode, "Traceback" in text) == (1, False)
    assert text.startswith(f"cannot start: expected {shared} to be a directory")


async def test_serves_flags_are_settings() -> None:
    """A flag wins over the environment; `--help` names the setting of each."""
    command = [*SERVE, "--host", "localhost"]
    async with server(command, HOST="127.0.0.9", UPSTREAM="simulator") as s:
        running = next(line for line in s.lines if "Running on" in line)
        assert "127.0.0.9" not in running
    done = await trio.run_process([*SERVE, "--help"], capture_stdout=True)
    shown = done.stdout.decode()
    for flag, (name, _) in FLAGS.items():
        assert f"--{flag}" in shown
        assert f"(setting {name})" in " ".join(shown.split())
