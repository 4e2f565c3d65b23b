"""The fault grammar: what a model name may ask for, and how a wrong one is refused."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.simulator.faults import (
    KEYS,
    PRESETS,
    FaultError,
    Faults,
    parse_model,
    parse_query,
)
from trio_ai_stream.upstream.upstream_errors import MAX_TEXT

DOCS = Path(__file__).parents[2] / "docs" / "simulator.md"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("eco", "did you mean echo? GET /models lists all"),
        ("xyzzy", "no such preset; GET /models lists all"),
        ("drop?delay=1", "did you mean delay_ms"),
        ("y" * 500, "GET /models lists all"),
    ],
)
def test_a_wrong_name_is_answered_with_near_ones(text: str, meant: str) -> None:
    """Whole, within what the server in front passes on of an upstream's error."""
    with pytest.raises(FaultError, match=re.escape(meant)) as caught:
        parse_model(f"simulator/{text}")
    assert len(str(caught.value)) < MAX_TEXT


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_parses(name: str) -> None:
    """A preset is a valid list of keys with a description of one line."""
    assert isinstance(parse_model(f"simulator/{name}"), Faults)
    assert PRESETS[name].description
    assert "\n" not in PRESETS[name].description


def test_keys_override_the_preset() -> None:
    """What stands after the question mark wins over the preset, key by key."""
    faults = parse_model("simulator/drop?at=9&delay_ms=0.5")
    assert (faults.end, faults.at, faults.delay_ms) == ("drop", 9, 0.5)


def test_values_are_url_decoded() -> None:
    """Values may be percent-encoded, so that a message can hold any character."""
    assert parse_query("message=a%26b+c") == {"message": "a&b c"}


def test_forever_is_a_time() -> None:
    """A time key takes `forever`, which never comes."""
    assert parse_model("simulator/fast?headers_ms=forever").headers_ms == math.inf


def test_error_code_is_a_number_where_it_is_one() -> None:
    """`code` is sent as an int if it is digits, else as a string."""
    assert parse_query("code=429") == {"code": 429}
    assert parse_query("code=server_error") == {"code": "server_error"}


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("simulator/", "simulator/"),
        ("simulator/nope", "nope"),
        ("simulator/fast?chunk=3", "chunk"),
        ("simulator/fast?chunks", "chunks"),
        ("simulator/fast?chunks=", "chunks"),
        ("simulator/fast?chunks=-1", "chunks"),
        ("simulator/fast?chunks=\u0663", "chunks"),
        ("simulator/fast?delay_ms=x", "delay_ms"),
        ("simulator/fast?delay_ms=nan", "delay_ms"),
        ("simulator/fast?delay_ms=inf", "delay_ms"),
        ("simulator/fast?end=maybe", "end"),
        ("simulator/fast?status=302", "status"),
        ("simulator/fast?echo=yes", "echo"),
        ("simulator/fast?retry_after=a%0d%0ab", "retry_after"),
        ("simulator/fast?burst=0", "burst"),
        ("simulator/fast?size=999999999999", "size"),
    ],
)
def test_a_bad_key_is_named(model: str, named: str) -> None:
    """A refused model name says which key is wrong and what was expected."""
    with pytest.raises(FaultError, match=named):
        parse_model(model)


@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """No model name does anything but parse or raise FaultError."""
    with contextlib.suppress(FaultError):
        assert isinstance(parse_model(f"simulator/{text}"), Faults)


def test_healed_keeps_pace_and_drops_failure() -> None:
    """A healed request keeps its pace and wire, and nothing that makes it fail."""
    faults = parse_model(
        "simulator/flaky?delay_ms=5&headers_ms=forever&eol=crlf&chunks=3"
    ).healed()
    assert faults == Faults(delay_ms=5, eol="crlf", chunks=3)


def test_every_key_and_preset_is_documented() -> None:
    """docs/simulator.md names every fault key and every preset with its description."""
    text = DOCS.read_text(encoding="utf-8")
    assert [key for key in KEYS if f"| `{key}` |" not in text] == []
    missing = [
        name
        for name, preset in PRESETS.items()
        if f"| `{name}` | {preset.description} |" not in text
    ]
    assert missing == []
