"""The sweep's Valkey in memory answers our scripts as a real one does."""

from __future__ import annotations

import uuid
from typing import Any

import coredis
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.admission.valkey import Server
from tests.sweep.valkey import BY_SHA, Counts
from trio_ai_stream.admission.shared import valkey_scripts
from trio_ai_stream.billing import shared_totals

PROCESSES = ("one", "two", "three")
NAMES = st.sampled_from(["a", "b", "c", "d"])
ASKS = st.lists(
    st.tuples(
        NAMES,
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(["-1", "2", "4"]),
        st.sampled_from(["0", "1", "2"]),
    ),
    max_size=3,
)
ACTS = st.one_of(
    st.tuples(
        st.just("change"), st.sampled_from(PROCESSES), st.lists(NAMES, max_size=3), ASKS
    ),
    st.tuples(st.sampled_from(["leave", "held", "living"]), st.sampled_from(PROCESSES)),
    st.tuples(st.just("owner"), st.just("one"), NAMES),
)


def plain(reply: Any) -> Any:
    """Return an answer as the memory gives it; sets have no order."""
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, set | frozenset):
        return sorted(map(plain, reply))
    return [plain(one) for one in reply] if isinstance(reply, list) else reply


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(acts=st.lists(ACTS, max_size=12))
def test_memory_and_valkey_agree(valkey: Server, acts: list[Any]) -> None:
    """Each answer to each script is the same, through ends of leases and takeovers."""
    prefix = uuid.uuid4().hex
    memory = Counts(now_s=lambda: 0.0)

    async def compare() -> None:
        async with coredis.Redis.from_url(valkey.url) as client:
            for name, process, *rest in acts:
                keys = valkey_scripts.Keys(prefix, process)
                args = [keys.of, process, "60000"]
                if name == "change":
                    released, asks = rest
                    args += [str(len(released)), *released]
                    args += [word for ask in asks for word in ask]
                else:
                    args += rest
                script = next(one for one in BY_SHA.values() if one.name == name)
                named = keys.leaving if name == "leave" else keys.permits
                real = plain(await client.eval(script.text, named, args))
                ours = memory.run(name, named, args)
                if name in {"held", "living"}:
                    real, ours = sorted(real), sorted(ours)
                if name != "leave":
                    assert ours == real, (name, process, rest)

    trio.run(compare)


async def test_what_is_spent_in_memory_is_spent_in_valkey(valkey: Server) -> None:
    """Batches count once; a cell too many is with its key's others, or with all."""
    memory = Counts()
    names = ("day", "month", "pushed", "usage")
    keys = [f"{{{uuid.uuid4().hex}}}:{name}" for name in names]
    async with coredis.Redis.from_url(valkey.url) as client:
        for number in ("1", "1", "3", "2"):
            args = [number, "60000", "1", "others", "2", "a", "5", "b", "-2"]
            args += ["cell", "own", "1 20", number, "own", "1 -3"]
            args += ["more", f"own {number}", "1 1"]
            real = await client.eval(shared_totals.PUSH.text, keys, args)
            assert real == memory.run("push", keys, args)
        asked = ["a", "b", "nobody"]
        real = plain(await client.eval(shared_totals.SPENT.text, keys[:3], asked))
        assert real == memory.run("spent", keys[:3], asked)
        found = await client.hgetall(keys[3])
        assert {plain(k): plain(v) for k, v in found.items()} == memory.hashes[keys[3]]


async def test_the_rate_in_memory_is_the_rate_in_valkey(valkey: Server) -> None:
    """A burst is admitted, the next request is told to wait for one interval."""
    memory = Counts(now_s=lambda: 0.0)
    key = f"{{{uuid.uuid4().hex}}}:rate"
    async with coredis.Redis.from_url(valkey.url) as client:
        for number in range(4):
            args = ["1000000000", "3"]
            real: Any = await client.eval(valkey_scripts.ADMIT.text, [key], args)
            ours = memory.run("admit", [key], args)
            assert ours[:2] == real[:2] == ([1, 2 - number] if number < 3 else [0, 0])
            assert abs(ours[3] - real[3]) < 10e6


async def test_who_returns_in_memory_returns_in_valkey(valkey: Server) -> None:
    """Nobody has, until one says so."""
    memory = Counts()
    key = valkey_scripts.Keys(uuid.uuid4().hex, "one").back
    answers = []
    async with coredis.Redis.from_url(valkey.url) as client:
        for name in ("returning", "return", "returning"):
            script = next(one for one in BY_SHA.values() if one.name == name)
            args = ["60000"] if name == "return" else []
            answers.append(plain(await client.eval(script.text, [key], args)))
            assert answers[-1] == memory.run(name, [key], args)
    assert answers == [None, "OK", "1"]
