"""Who a client is: keys, addresses, and how far a forwarded address is believed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ai_stream.http.auth import Network, identify

TRUSTED: list[Network] = [
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("fd00::/8"),
]


def test_a_key_is_the_client_and_never_in_the_id() -> None:
    """An authenticated key identifies the client from anywhere, by its hash only."""
    key = "sk-live-1234567890"
    here = identify("192.0.2.1", api_key=key)
    there = identify("198.51.100.7", api_key=key)
    assert here == there
    assert here.startswith("key:")
    assert key not in here
    assert here != identify("192.0.2.1", api_key=key + "x")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("192.0.2.1", "ip:192.0.2.1"),
        ("::ffff:192.0.2.1", "ip:192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "ip:2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "ip:2001:db8:1:2::/64"),
        ("fe80::1%eth0", "ip:fe80::/64"),
        (None, "local"),
    ],
)
def test_an_address_is_the_client(peer: str | None, expected: str) -> None:
    """Without a key the address counts: IPv4 whole, IPv6 by its /64."""
    assert identify(peer) == expected


def test_forwarded_address_of_an_untrusted_peer_is_ignored() -> None:
    """Only a trusted proxy can speak for another address."""
    claimed = identify("192.0.2.1", x_forwarded_for=["1.1.1.1"], trusted=TRUSTED)
    assert claimed == "ip:192.0.2.1"
    assert identify("10.0.0.1", x_forwarded_for=["1.1.1.1"]) == "ip:10.0.0.1"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["192.0.2.1"], "ip:192.0.2.1"),
        (["1.1.1.1, 192.0.2.1"], "ip:192.0.2.1"),
        (["1.1.1.1", "192.0.2.1,10.1.1.1"], "ip:192.0.2.1"),
        (["192.0.2.1:4711"], "ip:192.0.2.1"),
        (["[2001:db8::1]:443"], "ip:2001:db8::/64"),
        (["10.9.9.9, 10.8.8.8"], "ip:10.9.9.9"),
        (["1.1.1.1, rubbish, 10.1.1.1"], "ip:10.1.1.1"),
        (["1.1.1.1,"], "ip:10.0.0.1"),
        ([""], "ip:10.0.0.1"),
        (["192.0.2.1 "], "ip:192.0.2.1"),
        (["192.0.2.999"], "ip:10.0.0.1"),
    ],
)
def test_x_forwarded_for_is_walked_from_the_right(
    lines: list[str], expected: str
) -> None:
    """The first hop from the right that is no trusted proxy is the client."""
    found = identify("10.0.0.1", x_forwarded_for=lines, trusted=TRUSTED)
    assert found == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["for=192.0.2.1;proto=https;by=10.0.0.1"], "ip:192.0.2.1"),
        (["proto=http; For=192.0.2.1"], "ip:192.0.2.1"),
        (['for="[2001:db8::1]:4711"'], "ip:2001:db8::/64"),
        (["for=1.1.1.1, for=192.0.2.1", "for=10.1.1.1"], "ip:192.0.2.1"),
        (["for=1.1.1.1, for=unknown"], "ip:10.0.0.1"),
        (["for=_hidden, for=10.1.1.1"], "ip:10.1.1.1"),
        (["proto=https"], "ip:10.0.0.1"),
        (["xfor=1.1.1.1"], "ip:10.0.0.1"),
    ],
)
def test_forwarded_is_walked_alike(lines: list[str], expected: str) -> None:
    """RFC 7239's `for` parameters are read like X-Forwarded-For's entries."""
    assert identify("10.0.0.1", forwarded=lines, trusted=TRUSTED) == expected


def test_two_headers_that_disagree_are_both_disbelieved() -> None:
    """A header that our proxy passed through must not speak for the one it wrote."""
    both = {"x_forwarded_for": ["192.0.2.1"], "trusted": TRUSTED}
    agreed = identify("10.0.0.1", forwarded=["for=192.0.2.1"], **both)  # type: ignore[arg-type]
    forged = identify("10.0.0.1", forwarded=["for=1.1.1.1"], **both)  # type: ignore[arg-type]
    assert agreed == "ip:192.0.2.1"
    assert forged == "ip:10.0.0.1"


def test_a_unix_sockets_peer_is_trusted_where_any_proxy_is() -> None:
    """A proxy on a Unix socket speaks for its clients if proxies are configured."""
    assert identify(None, x_forwarded_for=["192.0.2.1"]) == "local"
    found = identify(None, x_forwarded_for=["192.0.2.1"], trusted=TRUSTED)
    assert found == "ip:192.0.2.1"


@given(claim=st.text(max_size=60), hop=st.ip_addresses())
def test_what_a_client_writes_left_of_our_proxys_entry_changes_nothing(
    claim: str, hop: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    """No claim moves the client that the trusted proxy's own entry names."""
    honest = identify("10.0.0.1", x_forwarded_for=[str(hop)], trusted=TRUSTED)
    forged = identify(
        "10.0.0.1", x_forwarded_for=[f"{claim}, {hop}"], trusted=[TRUSTED[0]]
    )
    if not any(hop in network for network in TRUSTED):
        assert forged == honest
