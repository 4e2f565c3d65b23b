"""The command line of the client: options in, exit code out."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TextIO

import httpx
import trio

from trio_ai_stream.chat_client.chat_exchange import ChatEnding, ChatExchange
from trio_ai_stream.chat_client.conversation import Conversation, converse
from trio_ai_stream.upstream.transport import UpstreamTransport

# A model's words are not to move the cursor, rename the window or write the clipboard:
# C0 and C1 controls but for tab and newline.
CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Screen:
    """Shows one exchange; with `raw` every event is a line of JSON instead.

    The answer goes to stdout, what became of it to stderr. The writes block: a terminal
    that does not read holds the reading from the server as well (backpressure). With
    `keep` the answer stays in `text`.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        *,
        raw: bool = False,
        keep: bool = False,
    ) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._raw = raw
        self._terminal = self._out.isatty()
        self._column_zero = True
        self._keep = keep
        self.text = ""

    def event(self, event: dict[str, Any]) -> None:
        """Show one event as it comes.

        :raises BrokenPipeError: nobody reads stdout any more.
        """
        if self._raw:
            self._out.write(json.dumps(event, ensure_ascii=False) + "\n")
        elif event.get("type") == "content" and (text := str(event["content"])):
            if self._keep:
                self.text += text
            self._out.write(harmless(text) if self._terminal else text)
            self._column_zero = text.endswith("\n")
        self._out.flush()

    def warn_of_simulator(self) -> None:
        """Say that no model answers."""
        self._note("no model answers: this is the server's embedded simulator")

    def end(self, line: str) -> None:
        """End the answer's last line and say how it ended."""
        if not self._column_zero:
            self._out.write("\n")
            self._out.flush()
        self._note(line)

    def _note(self, line: str) -> None:
        self._err.write(f"[{harmless(line)}]\n")
        self._err.flush()


def harmless(text: str) -> str:
    """Return the text without what a terminal would obey."""
    return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


URL_VARIABLE: Final = "TRIO_AI_STREAM_URL"
# An argument can be read by everybody on the machine; the environment cannot.
KEY_VARIABLE: Final = "TRIO_AI_STREAM_KEY"
CONNECT_S: Final = 10.0


def main(words: Sequence[str]) -> int:
    """Ask one question and show the answer as it comes.

    Returns 0 when the answer is whole, 1 when it failed, 2 for bad usage, 130 when it
    was cancelled.
    """
    parser = _parser()
    options = parser.parse_args(words)
    prompt = options.prompt
    if prompt == "-":
        if sys.stdin.isatty() and sys.stdout.isatty() and not options.json:
            return _converse(options)
        prompt = sys.stdin.read()
        if not prompt.strip():
            parser.error("expected a prompt on stdin, got nothing")
    screen = Screen(raw=options.json)
    question = {"role": "user", "content": prompt}
    conversation = Conversation(options.system, options.model, [question])
    ending = trio.run(_chat, options, conversation.body(), screen)
    try:
        screen.end(ending.line)
    except BrokenPipeError:
        # Python would flush stdout once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ending.code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-ai-stream chat",
        description="Ask a server of this kind; Ctrl-C cancels and says what it did.",
    )
    parser.add_argument(
        "prompt",
        nargs="?",
        default="-",
        help="what to ask; - reads stdin; none begins a conversation",
    )
    parser.add_argument(
        "--url",
        type=_url,
        default=os.environ.get(URL_VARIABLE, "http://127.0.0.1:8080"),
        help=f"the server (or ${URL_VARIABLE}; default http://127.0.0.1:8080)",
    )
    parser.add_argument(
        "--key",
        default=os.environ.get(KEY_VARIABLE, ""),
        help=f"its API key (better: ${KEY_VARIABLE})",
    )
    parser.add_argument("--model", help="the model, if not the server's own choice")
    parser.add_argument("--system", help="a system message before the prompt")
    parser.add_argument(
        "--json", action="store_true", help="print the events, a line of JSON each"
    )
    return parser


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    if url.scheme not in {"http", "https"} or not url.host:
        raise argparse.ArgumentTypeError(f"expected http://… or https://…, got {text}")
    return url


def _converse(options: argparse.Namespace) -> int:
    """Have a conversation until its input ends."""

    def ask(body: dict[str, Any]) -> str:
        screen = Screen(keep=True)
        ending = trio.run(_chat, options, body, screen)
        screen.end(ending.line)
        return screen.text

    def say(text: str) -> None:
        sys.stderr.write(f"{harmless(text)}\n")

    with contextlib.suppress(ModuleNotFoundError):
        import readline  # noqa: F401  gives `input` its history and its editing

    converse(Conversation(options.system, options.model), input, ask, say)
    return 0


async def _chat(
    options: argparse.Namespace, body: dict[str, Any], screen: Screen
) -> ChatEnding:
    """Run the exchange; signals are handled from before the first byte is sent."""

    def show(event: dict[str, Any]) -> None:
        if event.get("type") == "connected" and event.get("upstream") == "simulator":
            screen.warn_of_simulator()
        screen.event(event)

    headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
    client = httpx.AsyncClient(
        transport=UpstreamTransport(),
        base_url=options.url,
        headers={"Accept-Encoding": "identity", **headers},
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        trust_env=False,
    )
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with client, trio.open_nursery() as nursery:
            exchange = ChatExchange(client, show)
            nursery.start_soon(_obey, signals, exchange, nursery)
            ending = await exchange.run(body)
            nursery.cancel_scope.cancel(reason="the exchange is over")
    return ending


async def _obey(
    signals: AsyncIterator[int], exchange: ChatExchange, nursery: trio.Nursery
) -> None:
    """Cancel politely on the first signal, hang up on the second."""
    await anext(signals)
    nursery.start_soon(exchange.cancel)
    await anext(signals)
    exchange.hang_up()
