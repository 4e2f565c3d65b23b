"""Stream permits: never more than the limit, each given back exactly once."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
)

from trio_ai_stream.admission.gate import (
    GateStatus,
    LocalGate,
    Permit,
    PermitRefusal,
    Quota,
    StreamPermits,
)

TOTAL, PER_CLIENT = 5, 2


class PermitMachine(RuleBasedStateMachine):
    """Any order of acquiring and releasing, once or more often."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.subject = StreamPermits(TOTAL, PER_CLIENT)
        self.held: list[Permit] = []

    @rule(target=permits, client=st.sampled_from("abcd"))
    def acquire(self, client: str):
        mine = sum(permit.client_id == client for permit in self.held)
        match self.subject.acquire_nowait(client, "r"):
            case Permit() as permit:
                assert len(self.held) < TOTAL
                assert mine < PER_CLIENT
                self.held.append(permit)
                return permit
            case PermitRefusal(scope="server"):
                assert len(self.held) == TOTAL
            case PermitRefusal():
                assert mine == PER_CLIENT
        return multiple()

    @rule(permit=permits)
    def release(self, permit: Permit) -> None:
        permit.release()
        self.held = [other for other in self.held if other is not permit]

    @invariant()
    def counts_agree(self) -> None:
        assert self.subject.held == len(self.held)


TestPermitMachine = PermitMachine.TestCase


def test_a_permit_released_twice_counts_once() -> None:
    """`release` is idempotent: the second call gives nothing back."""
    permits = StreamPermits(1)
    first = permits.acquire_nowait("a", "1")
    assert isinstance(first, Permit)
    first.release()
    second = permits.acquire_nowait("a", "2")
    first.release()
    assert isinstance(second, Permit)
    assert isinstance(permits.acquire_nowait("a", "3"), PermitRefusal)


async def test_the_local_gate_limits_by_its_own_memory() -> None:
    """LocalGate answers by its bucket and its permits and has no background work."""
    permits = StreamPermits(1)
    gate = LocalGate(Quota(1, 1), permits)
    await gate.run()
    assert (await gate.admit_request("a")).allowed
    assert not (await gate.admit_request("a")).allowed
    assert isinstance(await gate.acquire_stream("a", "1"), Permit)
    refused = await gate.acquire_stream("b", "2")
    assert refused == PermitRefusal("server", 1, 1.0)
    await gate.leave()
    assert gate.status() == GateStatus("local", None, 1)
