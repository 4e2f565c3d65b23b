"""Whose stream it was and what it cost, in each API's own words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.completions import over
from tests.support.world import world
from trio_ai_stream.wire.record import Basis

MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
CODE = "user_5d1e_account_77aa_session_0a3f"
DEEP = '{"a":' + 30_000 * "["
IDS = {"device_id": "5d1e", "account_uuid": "", "session_id": "0a3f"}
REQUESTS: dict[str, dict[str, Any]] = {
    "/chat": {"prompt": "hello"},
    "/v1/chat/completions": {**MESSAGES, "stream": True},
    "/v1/messages": {**MESSAGES, "max_tokens": 500, "stream": True},
    "/v1/responses": {"input": "hello", "stream": True},
}


@pytest.mark.parametrize("path", REQUESTS)
async def test_each_api_has_a_whole_bill(path: str, autojump_clock: MockClock) -> None:
    """Prompt, completion, reasoning and cached tokens, cost and provider."""
    async with world() as w:
        body = {**REQUESTS[path], "model": "simulator/fast?chunks=5&reasoning=4"}
        await over(w.visit(body, path))
        bill = w.record.bill
        assert bill.basis is Basis.EXACT
        assert (bill.prompt_tokens, bill.completion_tokens) == (1, 9)
        assert bill.cost_usd == pytest.approx(3e-6 + 9 * 15e-6)
        assert (bill.cached_tokens, bill.provider) == (0, "Simulator")
        # Anthropic's usage has no count of its own for what was thought.
        assert bill.reasoning_tokens == (None if path == "/v1/messages" else 4)


@pytest.mark.parametrize(
    ("path", "fields", "user"),
    [
        ("/chat", {"user": "ann"}, "ann"),
        ("/v1/chat/completions", {"user": "ann"}, "ann"),
        ("/v1/chat/completions", {"safety_identifier": "ann"}, "ann"),
        ("/v1/responses", {"user": "ann", "safety_identifier": "x"}, "ann"),
        ("/v1/responses", {"safety_identifier": "ann"}, "ann"),
        ("/v1/responses", {"user": "a\nb", "metadata": {"user_id": "x"}}, None),
        ("/v1/messages", {"metadata": {"user_id": "ann"}}, "ann"),
        ("/v1/messages", {"user": "ann", "metadata": {"user_id": "x"}}, "ann"),
        ("/v1/messages", {"metadata": {"user_id": CODE}}, "user_5d1e_account_77aa"),
        ("/v1/messages", {"metadata": {"user_id": json.dumps(IDS)}}, "5d1e"),
        ("/v1/messages", {"metadata": {"user_id": "{not JSON"}}, "{not JSON"),
        ("/v1/messages", {"metadata": {"user_id": '{"account_uuid":7}'}}, None),
        ("/v1/messages", {"metadata": {"user_id": DEEP}}, DEEP[:128]),
        ("/v1/messages", {"metadata": "ann"}, None),
        ("/v1/messages", {"metadata": {"user_id": 7}}, None),
    ],
)
async def test_each_api_names_the_callers_own_user(
    path: str, fields: dict[str, Any], user: str | None, autojump_clock: MockClock
) -> None:
    """In its own field; Claude Code's counts without the session."""
    async with world() as w:
        body = {**REQUESTS[path], **fields, "model": "simulator/fast?chunks=1"}
        visit = w.visit(body, path)
        await over(visit)
        assert visit.status == 200
        assert w.record.user == user
