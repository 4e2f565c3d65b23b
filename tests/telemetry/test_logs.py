"""Log records: their shape, what may not be in them, and a log that nobody reads."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from trio_ai_stream.telemetry import log_rendering
from trio_ai_stream.telemetry.log_rendering import (
    MASK,
    forget_secrets,
    redact,
    register_secret,
    shown_client,
)
from trio_ai_stream.telemetry.logs import (
    REQUEST_ID,
    InterceptHandler,
    LogFormat,
    configure_logging,
    dropped_records,
)


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    forget_secrets()
    configure_logging(stream=io.StringIO())


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def json_log(level: str = "INFO") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level, "json", stream)
    return stream


def text_log() -> io.StringIO:
    stream = io.StringIO()
    configure_logging("INFO", "text", stream)
    return stream


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_record_has_the_documented_keys() -> None:
    """A JSON record has time, level, message, event and request_id, then the extras."""
    stream = json_log()
    logger.bind(request_id="r-1").info(
        "stream ended", event="stream_ended", outcome="completed", events=3
    )
    (record,) = records(stream)
    assert list(record) == [
        *("time", "level", "message", "event", "request_id"),
        *("outcome", "events"),
    ]
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", str(record["time"])
    )
    assert record["request_id"] == "r-1"
    assert record["event"] == "stream_ended"


def test_an_extra_never_replaces_a_documented_key() -> None:
    """An extra named like a documented key is kept under an underscored name."""
    stream = json_log()
    logger.info("x", time="never", level=3)
    (record,) = records(stream)
    assert record["_time"] == "never"
    assert record["level"] == "INFO"


async def test_request_id_follows_a_request_into_its_tasks() -> None:
    """A task logs the request id of the task that started it; bound ones stand."""
    stream = json_log()

    async def child() -> None:
        await trio.lowlevel.checkpoint()
        logger.info("from the child")
        logger.bind(request_id="r-3").info("of another request")

    async with trio.open_nursery() as nursery:
        token = REQUEST_ID.set("r-2")
        nursery.start_soon(child)
        REQUEST_ID.reset(token)
        await trio.testing.wait_all_tasks_blocked()
    logger.info("outside")
    assert [record["request_id"] for record in records(stream)] == ["r-2", "r-3", None]


def test_configuring_twice_writes_each_record_once() -> None:
    """A second `configure_logging` replaces the first."""
    first = json_log()
    second = json_log()
    logger.info("once")
    logging.getLogger("anywhere").warning("once more")
    assert first.getvalue() == ""
    assert len(records(second)) == 2


def test_sinks_of_others_stay() -> None:
    """A sink that somebody else added to loguru is left alone."""
    seen: list[str] = []
    identifier = logger.add(
        lambda message: seen.append(str(message)), format="{message}"
    )
    try:
        json_log()
        logger.info("kept")
    finally:
        logger.remove(identifier)
    assert seen == ["kept\n"]


def test_standard_records_come_through_once_with_their_logger() -> None:
    """A standard logging record becomes one record of ours, braces and all."""
    stream = json_log()
    logging.getLogger("some.library").error("broken {braces} %d", 7)
    (record,) = records(stream)
    assert record["message"] == "broken {braces} 7"
    assert record["logger"] == "some.library"
    assert record["level"] == "ERROR"


def test_a_standard_record_can_name_its_event() -> None:
    """`extra={"event": …}` is how rooms without loguru name what has happened."""
    stream = json_log()
    logging.getLogger("a.room").warning("over", extra={"event": "drain_over"})
    logging.getLogger("some.library").warning("hello")
    assert [record["event"] for record in records(stream)] == ["drain_over", None]


def test_hypercorn_records_are_taken_from_handlers_put_there_later() -> None:
    """Handlers that Hypercorn assigns later get nothing; our sink gets it once."""
    stream = json_log()
    theirs = io.StringIO()
    hypercorn = logging.getLogger("hypercorn.error")
    earlier = hypercorn.handlers
    hypercorn.handlers = [logging.StreamHandler(theirs)]
    try:
        hypercorn.warning("listening")
    finally:
        hypercorn.handlers = earlier
    assert theirs.getvalue() == ""
    assert [record["message"] for record in records(stream)] == ["listening"]


def test_standard_record_whose_arguments_do_not_fit_is_still_logged() -> None:
    """A library's bad logging call costs a remark, not an exception."""
    stream = json_log()
    bad = logging.LogRecord(
        "x", logging.WARNING, "f.py", 1, "%d items", ("many",), None
    )
    InterceptHandler().emit(bad)
    (record,) = records(stream)
    assert "arguments do not fit" in str(record["message"])


def test_a_level_below_the_configured_one_is_not_logged() -> None:
    """LOG_LEVEL holds for our records and for the standard library's."""
    stream = json_log("WARNING")
    logger.info("quiet")
    logging.getLogger("x").info("quiet")
    assert stream.getvalue() == ""


def test_tracebacks_show_no_local_variables() -> None:
    """A traceback names the lines, never the values that were in reach."""
    stream = json_log()
    prompt = "tell me about whales"
    try:
        _ = 1 / (len(prompt) - len(prompt))
    except ZeroDivisionError:
        logger.exception("our bug")
    (record,) = records(stream)
    assert "ZeroDivisionError" in str(record["exception"])
    assert "whales" not in str(record["exception"]).replace(
        '"tell me about whales"', ""
    )


def test_a_long_traceback_is_cut_in_the_middle() -> None:
    """A traceback keeps its head and its end within the documented length."""
    stream = json_log()
    logger.opt(exception=ValueError("x" * 100_000)).error("our bug")
    (record,) = records(stream)
    assert len(str(record["exception"])) < 17_000
    assert "characters left out" in str(record["exception"])


@given(secret=st.text(min_size=6, max_size=40), others=st.sampled_from([0, 100]))
def test_a_registered_secret_is_in_no_spelling_of_a_record(
    secret: str, others: int
) -> None:
    """Raw, JSON-escaped, repr'd and traced: a registered secret is replaced in all."""
    forget_secrets()
    for number in range(others):
        register_secret(f"\ue000another secret {number}")
    register_secret(secret)
    for fmt in ("json", "text"):
        stream = io.StringIO()
        configure_logging("INFO", fmt, stream)
        logger.info("key {}", secret)
        logger.info("key", extra_key=secret)
        logger.opt(exception=ValueError(secret)).error("our bug")
        assert stream.getvalue().count(MASK) >= 2
    assert secret not in redact(f"{secret} and {secret!r}")


@pytest.mark.parametrize("others", [0, 1000])
def test_secrets_are_masked_whole_and_each_by_itself(
    others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, what finds them is worked out once."""
    forget_secrets()
    makers: list[int] = []
    for name in ("_by_pattern", "_by_beginnings"):
        real = getattr(log_rendering, name)

        def count(spellings: list[str], real: Any = real) -> Any:
            makers.append(len(spellings))
            return real(spellings)

        monkeypatch.setattr(log_rendering, name, count)
    for secret in ("secret-a", "secret-a-and-more", "a-and-more-b"):
        register_secret(secret)
    for number in range(others):
        register_secret(f"key-{number:06}-of-a-client")
    text = "secret-a-and-more-b secret-asecret-a secret-b key-000003-of-a-clien"
    masked = f"{MASK}-b {MASK}{MASK} secret-b key-000003-of-a-clien"
    assert redact(text) == masked
    assert redact("key-000007-of-a-client") == (
        MASK if others else "key-000007-of-a-client"
    )
    assert makers == [3 + others]
    forget_secrets()


def test_short_values_are_not_redacted() -> None:
    """A secret too short to be one does not tear holes into the log."""
    register_secret("a")
    assert redact("a banana") == "a banana"


def test_a_message_cannot_forge_a_second_line_or_send_terminal_codes() -> None:
    """Control characters of messages and fields are escaped in text records."""
    stream = text_log()
    logger.info("path {}", "/x\n12:00 ERROR forged\x1b[2J", agent="curl\r\n\x9b")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "\x9b" not in stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_turns_the_direction_of_a_line(form: LogFormat) -> None:
    """Marks of direction are spelt out: in messages, fields and tracebacks."""
    stream = io.StringIO()
    configure_logging("INFO", form, stream)
    marks = "".join(map(chr, (0x061C, 0x200E, 0x200F, 0x202A, 0x202E, 0x2066, 0x2069)))
    try:
        raise ValueError(f"x{marks}\x1b[2J")  # noqa: TRY301  the record needs one
    except ValueError:
        logger.exception("a{}", marks, model=f"m{marks}")
    assert not set(marks) & set(stream.getvalue())
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("\\u202e") >= 3


def test_a_field_cannot_split_a_line_of_json_or_send_terminal_codes() -> None:
    """JSON lets C1 controls and U+2028 stand; `str.splitlines` and terminals do not."""
    stream = json_log()
    model = "sim/x\x7f\x85\x9b31m\u2028\u2029\n{}"
    logger.info("stream ended", model=model)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert json.loads(line)["model"] == model


def test_auto_is_json_unless_the_stream_is_a_terminal() -> None:
    """`auto` writes colours to a terminal and JSON lines to anything else."""
    screen, file = Terminal(), io.StringIO()
    configure_logging("INFO", "auto", screen)
    logger.warning("look")
    configure_logging("INFO", "auto", file)
    logger.warning("look")
    assert "\x1b[33mWARNING" in screen.getvalue()
    assert json.loads(file.getvalue())["level"] == "WARNING"


def test_a_field_that_cannot_be_printed_costs_its_record_only() -> None:
    """An object whose `__str__` raises is reported and does not reach the caller."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    stream = json_log()
    logger.info("x", thing=Broken())
    (record,) = records(stream)
    assert "could not be rendered: RuntimeError" in str(record["message"])


@contextmanager
def pipe_log() -> Iterator[Callable[[], bytes]]:
    """Log into a pipe; yield what takes out all that is in it."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with (
        os.fdopen(reader, "rb", buffering=0) as source,
        os.fdopen(writer, "w") as stream,
    ):
        configure_logging("INFO", "json", stream)
        yield lambda: source.read(1 << 20) or b""


def test_a_log_that_nobody_reads_never_blocks_and_says_what_was_lost() -> None:
    """With a full pipe records are dropped; the next one through says how many."""
    with pipe_log() as take:
        for number in range(2_000):
            logger.info("filling", number=number, pad="x" * 100)
        dropped = dropped_records()
        assert 0 < dropped < 2_000
        received = take()
        logger.info("after")
        received += take()
    lines = [json.loads(line) for line in received.decode().splitlines() if line]
    assert lines[-2]["event"] == "log_records_dropped"
    assert "was not read, or its disk is full" in lines[-2]["message"]
    assert lines[-2]["count"] == dropped
    assert lines[-1]["message"] == "after"
    assert [line["number"] for line in lines[:-2]] == list(range(2_000 - dropped))


def test_a_terminal_that_nobody_reads_never_blocks() -> None:
    """A terminal with less room than a record takes what fits, and nobody waits."""
    screen, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stream:
        configure_logging("INFO", "json", stream)

        def fill() -> None:
            for number in range(2_000):
                logger.info("filling", number=number, pad="x" * 100)

        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        thread.join(10)
        ended, dropped = not thread.is_alive(), dropped_records()
        os.close(screen)  # lets go whoever waits
        thread.join()
        configure_logging(stream=io.StringIO())
    assert ended
    assert 0 < dropped < 2_000


def test_the_log_leaves_a_shared_pipe_as_it_is() -> None:
    """Nobody else's writes fail for want of room, and no descriptor is left."""
    reader, writer = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    with os.fdopen(reader, "rb"), os.fdopen(writer, "w") as stream:
        configure_logging("INFO", "json", stream)
        configure_logging("INFO", "json", stream)
        assert os.get_blocking(writer)
        assert len(os.listdir("/proc/self/fd")) == before + 1
        configure_logging(stream=io.StringIO())
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_long_record_that_was_cut_short_does_not_spoil_the_next() -> None:
    """A record longer than the pipe's room ends its line before the next begins."""
    with pipe_log() as take:
        logger.info("long", pad="x" * 200_000)
        received = take()
        logger.info("after")
        received += take()
    torn, notice, last = [line for line in received.decode().split("\n") if line]
    assert torn.startswith('{"time"')
    assert json.loads(notice)["count"] == 1
    assert json.loads(last)["message"] == "after"


def test_a_log_whose_reader_has_gone_is_no_error() -> None:
    """A broken pipe drops records and raises nothing."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    configure_logging("INFO", "json", stream)
    logger.info("nobody hears")
    assert dropped_records() == 1
    stream.close()


def test_a_record_of_another_thread_is_written_too() -> None:
    """A library's own thread may log; its record is whole."""
    stream = json_log()
    thread = threading.Thread(target=logging.getLogger("x").warning, args=("threaded",))
    thread.start()
    thread.join()
    assert [record["message"] for record in records(stream)] == ["threaded"]


@pytest.mark.parametrize(
    ("client", "how", "shown"),
    [
        ("ip:203.0.113.9", "full", "ip:203.0.113.9"),
        ("ip:203.0.113.9", "network", "ip:203.0.113.0/24"),
        ("ip:2001:db8:1:2::/64", "network", "ip:2001:db8:1::/48"),
        ("key:0123456789abcdef", "network", "key:0123456789abcdef"),
        ("local", "network", "local"),
        ("ip:203.0.113.9", "none", None),
        ("key:0123456789abcdef", "none", None),
        ("", "full", None),
    ],
)
def test_the_log_names_a_client_as_far_as_it_may(
    client: str, how: Literal["full", "network", "none"], shown: str | None
) -> None:
    """LOG_CLIENTS: all of it, an address's network, or nothing."""
    assert shown_client(client, how) == shown


TOO_LONG = "proxy: connecting: the proxy answered 407 to CONNECT"


@pytest.mark.parametrize("detail", [None, "DELETE /streams", TOO_LONG])
def test_a_streams_line_has_a_hundred_columns(detail: str | None) -> None:
    """For people: the outcome first, time and size after it; then why, or the model.

    A reason that does not fit stands below, whole.
    """
    stream = text_log()
    fields = {"duration_ms": 123456.7, "events": 12345, "bytes": 9876543}
    model = "somebody/a-model-with-a-rather-long-name"
    outcome = "upstream_unreachable" if detail else "completed"
    logger.bind(request_id="0123456789abcdef").info(
        "stream ended",
        event="stream_ended",
        outcome=outcome,
        detail=detail,
        model=model,
        **fields,
    )
    line, *below = stream.getvalue().splitlines()
    assert [one.strip() for one in below] == ([TOO_LONG] if detail == TOO_LONG else [])
    assert len(line) <= 100
    clock, first, *rest = line.split()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", clock)
    assert first == outcome
    assert rest[:6] == ["123.46", "s", "12345", "ev", "9876.5", "kB"]
    assert (model[:27] if below else detail or model[:27]) in line
    assert line.endswith("01234567")


def test_a_bills_line_has_the_columns_of_a_streams() -> None:
    """How it is known, what it costs, the tokens; a long id and names fit as well."""
    stream = text_log()
    logger.bind(request_id="0123456789abcdef").info(
        "stream billed",
        event="stream_billed",
        usage="reconciled",
        cost_usd=7.8e-05,
        prompt_tokens=1,
        completion_tokens=5,
        model="somebody/a-model-with-a-rather-long-name",
        generation_id="gen-0000000002",
    )
    line = stream.getvalue().rstrip("\n")
    assert len(line) <= 100
    words = ["billed:", "reconciled", "$0.000078", "1", "+", "5", "tokens"]
    assert line.split()[1:8] == words
    assert line.endswith("01234567")


def test_a_request_and_a_retry_have_one_line_each() -> None:
    """However long the path or the cause is."""
    stream = text_log()
    bound = logger.bind(request_id="0123456789abcdef")
    bound.info(
        "request ended",
        event="request_ended",
        method="GET",
        path="/nowhere/" + "x" * 90,
        http_version="1.1",
        status=404,
        client="ip:2001:db8::1234:5678",
        duration_ms=1.5,
    )
    cause = "upstream error 503 provider_overloaded, again"
    bound.warning("trying", event="stream_retried", attempt=2, wait_ms=557, cause=cause)
    ended, retried = stream.getvalue().splitlines()
    assert max(len(ended), len(retried)) <= 100
    assert ended.split()[1:5] == ["404", "GET", "0.00", "s"]
    assert "/nowhere/xxx" in ended
    assert retried.split()[1:6] == ["retry:", "attempt", "2", "0.56", "s"]
    assert cause in retried


@pytest.mark.parametrize(
    ("fault", "colour"),
    [(None, "\x1b[32m"), ("upstream", "\x1b[33m"), ("server", "\x1b[31m")],
)
def test_an_outcomes_colour_says_whose_doing_it_was(
    fault: str | None, colour: str
) -> None:
    """On a terminal: green, yellow, red."""
    stream = Terminal()
    configure_logging("INFO", "auto", stream)
    fields = {"duration_ms": 1.0, "events": 1, "bytes": 1, "model": "m"}
    logger.info(
        "stream ended", event="stream_ended", outcome="o", fault=fault, **fields
    )
    assert f" {colour}o  " in stream.getvalue()


def test_a_library_s_logger_is_not_named_to_people() -> None:
    """The drain's line fits 100 columns."""
    stream = text_log()
    logging.getLogger("trio_ai_stream.server").info("draining")
    assert stream.getvalue().endswith(" INFO     draining\n")
