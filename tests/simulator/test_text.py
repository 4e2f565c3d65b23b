"""The simulator's text: the same for the same prompt, and hard on decoders."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.simulator import text
from trio_ai_stream.simulator.simulated_answer import DEEPEST, sample


@given(st.text())
def test_tokens_joined_are_the_text(value: str) -> None:
    """Cutting into tokens loses and adds nothing, whatever the text."""
    tokens = text.tokenize(value)
    assert "".join(tokens) == value
    assert all(tokens)


def test_same_prompt_same_words() -> None:
    """The same prompt and seed give the same answer; another seed another one."""
    one = text.whole_answer("hi", text.seed_of("hi", None))
    assert one == text.whole_answer("hi", text.seed_of("hi", None))
    assert one != text.whole_answer("hi", text.seed_of("hi", 2))


@pytest.mark.parametrize("prompt", ["", "hi", "\ud800", "a b c d e f g h " * 9])
def test_an_answer_has_a_natural_length(prompt: str) -> None:
    """Any prompt, a lone surrogate too, gets an answer that ends with a sentence."""
    answer = text.whole_answer(prompt, text.seed_of(prompt, None))
    assert text.SHORTEST_ANSWER <= len(answer) <= text.LONGEST_ANSWER + 40
    assert "".join(answer).startswith("You asked")


def test_long_text_is_hard_on_decoders() -> None:
    """A long answer holds newlines, code, emoji, escapes and U+2028."""
    whole = "".join(itertools.islice(text.stream_of_tokens("x", 1), 3000))
    for needed in ("\n\n", "```python", "\u2028", "\U0001f389", "\\", '"', "\t", "| "):
        assert needed in whole


@given(st.lists(st.text(min_size=1, max_size=5), max_size=20), st.text(max_size=3))
def test_stop_cuts_before_the_first_hit(tokens: list[str], stop: str) -> None:
    """What is kept is the text before the stop sequence; no hit gives None."""
    whole = "".join(tokens)
    cut = text.cut_at_stop(tokens, (stop,))
    if not stop or stop not in whole:
        assert cut is None
    else:
        assert cut is not None
        kept, word = cut
        assert ("".join(kept), word) == (whole.partition(stop)[0], stop)


def test_sample_fits_the_schema() -> None:
    """A sample has each property of the schema, with a value of its type."""
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "array", "items": {"enum": ["x", "y"]}},
            "c": {"type": ["boolean", "null"]},
            "d": {"const": 7},
            "e": {"type": "object"},
            "f": {"anyOf": []},
        },
    }
    expected = {"a": 1, "b": ["x"], "c": True, "d": 7, "e": {}, "f": "sample"}
    assert sample(schema) == expected


def test_sample_of_an_endless_schema_ends() -> None:
    """A schema that holds itself gives a value of bounded depth."""
    schema: dict[str, object] = {"type": "array"}
    schema["items"] = schema
    assert msgspec.json.encode(sample(schema)).count(b"[") == DEEPEST + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "enum", "const", "properties", "items", "x"]),
            inner,
        )
    ),
)


@given(json_values)
def test_sample_takes_any_schema(schema: object) -> None:
    """Whatever stands as a schema, a sample comes out and not an exception."""
    assert msgspec.json.encode(sample(schema))
