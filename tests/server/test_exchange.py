"""An exchange tells that its client is gone: once, at once, and only who watches."""

from __future__ import annotations

from trio_ai_stream.server.http_stream import Exchange


def test_who_watches_is_told_in_the_same_step_and_once() -> None:
    """`disconnect` returns after the call; a second one adds only the stall."""
    told: list[bool] = []
    exchange = Exchange(reports_disconnect=True)
    exchange.on_disconnect(lambda: told.append(exchange.stalled))
    exchange.disconnect()
    assert told == [False]
    exchange.disconnect(stalled=True)
    assert told == [False]
    assert exchange.stalled


def test_the_stall_is_known_to_who_is_told() -> None:
    """The outcome depends on it, so it is set before the call."""
    told: list[bool] = []
    exchange = Exchange(reports_disconnect=True)
    exchange.on_disconnect(lambda: told.append(exchange.stalled))
    exchange.disconnect(stalled=True)
    assert told == [True]


def test_who_comes_late_is_told_at_once() -> None:
    """A client may be gone before its application has begun."""
    told: list[str] = []
    exchange = Exchange(reports_disconnect=True)
    exchange.disconnect()
    exchange.on_disconnect(lambda: told.append("gone"))
    assert told == ["gone"]


def test_who_watches_no_more_is_not_told() -> None:
    """After its end a request must not be held, nor called."""
    told: list[str] = []
    exchange = Exchange(reports_disconnect=True)
    exchange.on_disconnect(lambda: told.append("gone"))
    exchange.ignore_disconnect()
    exchange.disconnect()
    assert told == []
