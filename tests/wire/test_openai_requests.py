"""The body of a chat completion on its way to upstream."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.wire.openai_requests import Completion, parse_completion

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def parse(body: bytes) -> Completion:
    """Parse with a default model and a limit that no test meets."""
    return parse_completion(body, default_model="the/default", max_prompt_length=100)


def test_a_body_that_names_its_model_keeps_every_byte() -> None:
    """Spaces, order of keys and digits of numbers reach upstream as they came."""
    body = (
        b'{ "zeta": 1.10e+2,\n"model":"a/b", "messages":[{"role":"user",'
        b'"content":"hi","name":"x"}], "big": 12345678901234567890.000, "stream":true}'
    )
    assert parse(body) == Completion("a/b", True, body)


def test_a_model_is_filled_in_beside_unchanged_values() -> None:
    """Without a model the default is added; every other value keeps its bytes."""
    for model in (b"", b'"model":null,'):
        body = (
            b"{"
            + model
            + b'"seed":1.10e+2,"messages":[{"role":"user", "content":"hi"}]'
            b',"big":12345678901234567890.000}'
        )
        parsed = parse(body)
        assert parsed.model == "the/default"
        assert not parsed.stream
        assert json.loads(parsed.body)["model"] == "the/default"
        for kept in (
            b'"seed":1.10e+2',
            b'[{"role":"user", "content":"hi"}]',
            b'"big":12345678901234567890.000',
        ):
            assert kept in parsed.body


@given(st.dictionaries(st.text(min_size=1), values, max_size=5))
def test_unknown_fields_survive(fields: dict[str, object]) -> None:
    """Whatever else a body holds, it holds upstream as well."""
    known = {"messages": [{"role": "user", "content": "hi", "x": 1}]}
    fields = {k: v for k, v in fields.items() if k not in {"model", "stream"}} | known
    parsed = parse(json.dumps(fields).encode())
    assert json.loads(parsed.body) == {**fields, "model": "the/default"}
