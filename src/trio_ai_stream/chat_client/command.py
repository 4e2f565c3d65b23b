"""The command line of the client: options in, exit code out."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import httpx
import trio

from trio_ai_stream.chat_client.chat_exchange import ChatEnding, ChatExchange, api_of
from trio_ai_stream.chat_client.completion_chunk import decode_object
from trio_ai_stream.chat_client.conversation import Conversation, converse, is_utf8
from trio_ai_stream.chat_client.screen import Screen, harmless
from trio_ai_stream.chat_client.server_client import (
    DEFAULT_URL,
    URL_VARIABLE,
    add_key_and_ca,
    open_client,
    server_url,
)

# From one look at what is new to the next, and the share of the time that drawing may
# take: a long table is drawn less often.
DRAW_EVERY_S: Final = 0.08
DRAW_SHARE: Final = 0.2
LIST_S: Final = 10.0
NO_RICH: Final = (
    "plain text; for formatted Markdown: pip install 'trio-ai-stream[chat]'"
    " (or say --plain)"
)


def main(words: Sequence[str]) -> int:
    """Ask one question and show the answer as it comes.

    Returns 0 when the answer is whole, 1 when it failed, 2 for bad usage, 130 when it
    was cancelled.
    """
    line = parser()
    options = line.parse_args(words)
    prompt = options.prompt
    if prompt == "-":
        if sys.stdin.isatty() and sys.stdout.isatty() and not options.json:
            return _converse(options)
        prompt = sys.stdin.read()
        if not prompt.strip():
            line.error("expected a prompt on stdin, got nothing")
    for name, text in (
        ("the prompt", prompt),
        ("--system", options.system),
        ("--model", options.model),
    ):
        if text and not is_utf8(text):
            line.error(f"expected {name} in UTF-8, got other bytes; convert it (iconv)")
    screen = screens(options)()
    question = {"role": "user", "content": prompt}
    conversation = Conversation(options.system, options.model, [question])
    ending = trio.run(_chat, options, conversation.body(), screen)
    with contextlib.suppress(OSError):  # `cli.main` sees it, too
        screen.end(ending.line)
    return ending.code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = argparse.ArgumentParser(
        prog="trio-ai-stream chat",
        description="Ask a server of this kind, or any other with OpenAI's API."
        " Ctrl-C cancels; a server of this kind says what it did.",
    )
    made.add_argument(
        "prompt",
        nargs="?",
        default="-",
        help="what to ask; - reads stdin; none begins a conversation",
    )
    made.add_argument(
        "--url",
        type=server_url,
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        help="the server, or the base of its API if that is not /v1"
        f" (or ${URL_VARIABLE}; default {DEFAULT_URL})",
    )
    add_key_and_ca(made)
    made.add_argument("--model", help="the model, if not the server's own choice")
    made.add_argument("--system", help="a system message before the prompt")
    shown = made.add_mutually_exclusive_group()
    shown.add_argument(
        "--plain", action="store_true", help="do not format Markdown on a terminal"
    )
    shown.add_argument(
        "--json", action="store_true", help="print the chunks, a line of JSON each"
    )
    return made


def screens(options: argparse.Namespace) -> Callable[[], Screen]:
    """Return what makes the screen of an answer: formatted on a terminal, if it can."""
    if options.json:
        return lambda: Screen(raw=True)
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    if options.plain or dumb or not sys.stdout.isatty():
        return Screen
    try:
        from trio_ai_stream.chat_client.markdown_screen import MarkdownScreen
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in {"rich", "markdown_it"}:
            raise
        Screen().note(NO_RICH)
        return Screen
    return MarkdownScreen


def _converse(options: argparse.Namespace) -> int:
    """Have a conversation until its input ends."""
    new_screen = screens(options)

    warned = False

    def ask(body: dict[str, Any]) -> str:
        nonlocal warned
        screen = new_screen()
        screen.warned = warned
        ending = trio.run(_chat, options, body, screen)
        screen.end(ending.line)
        warned = screen.warned
        return screen.text

    def say(text: str) -> None:
        sys.stderr.write(f"{harmless(text)}\n")

    with contextlib.suppress(ModuleNotFoundError):
        import readline  # gives `input` its history and its editing

        # Lines that are pasted are one question, not a question each.
        readline.parse_and_bind("set enable-bracketed-paste on")

    conversation = Conversation(options.system, options.model)
    converse(conversation, input, ask, say, lambda: trio.run(_models, options))
    return 0


async def _chat(
    options: argparse.Namespace, body: dict[str, Any], screen: Screen
) -> ChatEnding:
    """Run the exchange; signals are handled from before the first byte is sent."""
    client = open_client(options.url, options.key, options.ca)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with client, trio.open_nursery() as nursery:
            exchange = ChatExchange(client, screen.event, screen.note)
            nursery.start_soon(_obey, signals, exchange, nursery)
            nursery.start_soon(_draw, screen)
            ending = await exchange.run(body)
            nursery.cancel_scope.cancel(reason="the exchange is over")
    return ending


async def _draw(screen: Screen) -> None:
    """Keep the screen up to date, until cancelled."""
    while True:
        began_at = trio.current_time()
        screen.refresh()
        spent = trio.current_time() - began_at
        await trio.sleep(max(DRAW_EVERY_S, spent / DRAW_SHARE))


async def _models(options: argparse.Namespace) -> list[str]:
    """Return the names of the server's models; empty if it does not say."""
    client = open_client(options.url, options.key, options.ca)
    async with client:
        try:
            with trio.fail_after(LIST_S):
                response = await client.get(f"{api_of(client.base_url)}/models")
            listed = decode_object(response.content)
            return [str(model["id"]) for model in listed["data"]]
        except (httpx.HTTPError, ValueError, LookupError, TypeError, trio.TooSlowError):
            return []


async def _obey(
    signals: AsyncIterator[int], exchange: ChatExchange, nursery: trio.Nursery
) -> None:
    """Cancel politely on the first signal, hang up on the second."""
    await anext(signals)
    nursery.start_soon(exchange.cancel)
    await anext(signals)
    exchange.hang_up()
