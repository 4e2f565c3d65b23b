"""Who is asking, and whether they may: keys, addresses, roles, and loopback without.

The client is the identity that limits are counted by. An authenticated API key is the
client, whatever address it comes from; else the address is. Two rules keep both honest:

- Only a key that was *checked* counts. An unchecked one is the caller's to invent, one
  for each request, and so would be its limit.
- A forwarded address is believed only from TRUSTED_PROXIES, and only as far as the
  chain of trust reaches: the walk goes from the right, which is the end that our own
  proxy wrote, and stops at the first hop which is not a trusted proxy. What stands left
  of it is the client's own claim. A malformed entry stops the walk too: the client is
  then the last hop that could be read.

`Forwarded` (RFC 7239) and `X-Forwarded-For` are read alike. A proxy writes one of them
and may pass the other through as the client sent it; where both are present and
disagree, neither is believed and the proxy itself is the client.

IPv6 clients are grouped by /64: that is what one subscriber gets (RFC 6177), so single
addresses are free for the taking. IPv4 addresses written as IPv6 count as IPv4.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from trio_ai_stream.http.page.page_routes import MARKDOWN
from trio_ai_stream.http.page.page_routes import PREFIX as PAGE_PREFIX
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.services import Services
from trio_ai_stream.wire.keys import Role, tokens_of
from trio_ai_stream.wire.problems import Problem, Refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOCAL = "local"
"""The client of a connection without an address, such as a Unix socket's."""

_HASH_CONTEXT = b"trio-ai-stream client\0"
_FOR = re.compile(r'(?i)(?:^|;)\s*for\s*=\s*("[^"\\]*"|[^";,\s]+)\s*(?:;|$)')
_IPV4_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_IPV6_PORT = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?")


def identify(
    peer: str | None,
    *,
    api_key: str | None = None,
    key_name: str | None = None,
    x_forwarded_for: Sequence[str] = (),
    forwarded: Sequence[str] = (),
    trusted: Sequence[Network] = (),
) -> str:
    """Return the id that a request's limits are counted by; safe to log and to share.

    `api_key` is an authenticated key or None, `key_name` its name if it has one: keys
    of one name are one client, so that a key can be exchanged. `peer` is the address of
    the connection's other end, None if it has none; the two header arguments hold the
    field's values, one for each line, in the order of arrival.
    """
    if key_name is not None:
        return f"name:{key_name}"
    if api_key is not None:
        return key_id(api_key)
    return address_id(client_address(peer, x_forwarded_for, forwarded, trusted))


def key_id(api_key: str) -> str:
    """Return `key:` and 64 bits of the key's hash, never the key itself."""
    digest = hashlib.sha256(_HASH_CONTEXT + api_key.encode("utf-8", "surrogatepass"))
    return f"key:{digest.hexdigest()[:16]}"


@functools.lru_cache(maxsize=1024)
def address_id(address: Address | None) -> str:
    """Return `ip:` and the address, an IPv6 one as its /64; `local` for None."""
    if address is None:
        return LOCAL
    if isinstance(address, ipaddress.IPv6Address):
        prefix = ipaddress.IPv6Address(int(address) >> 64 << 64)
        return f"ip:{prefix}/64"
    return f"ip:{address}"


def client_address(
    peer: str | None,
    x_forwarded_for: Sequence[str],
    forwarded: Sequence[str],
    trusted: Sequence[Network],
) -> Address | None:
    """Return the nearest address that no trusted proxy stands for, or None.

    A peer without an address is on a Unix socket, which file permissions protect: it is
    trusted where the operator trusts any proxy at all.
    """
    nearest = _parse(peer) if peer is not None else None
    believed = bool(trusted) if nearest is None else _is_trusted(nearest, trusted)
    if not believed:
        return nearest
    by_legacy = _walk(nearest, _entries(x_forwarded_for), trusted)
    by_standard = _walk(nearest, _forwarded_entries(forwarded), trusted)
    if not forwarded:
        return by_legacy
    if not x_forwarded_for:
        return by_standard
    return by_legacy if by_legacy == by_standard else nearest


def _walk(
    nearest: Address | None, entries: Sequence[str], trusted: Sequence[Network]
) -> Address | None:
    for entry in reversed(entries):
        address = _parse(entry)
        if address is None:
            break
        nearest = address
        if not _is_trusted(address, trusted):
            break
    return nearest


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _entries(lines: Sequence[str]) -> list[str]:
    return [entry.strip() for line in lines for entry in line.split(",")]


def _forwarded_entries(lines: Sequence[str]) -> list[str]:
    """Return the `for` of each element; empty, so malformed, where it has none.

    Elements are split at every comma: a quoted node contains none (RFC 7239,
    section 6), and one inside another parameter's quotes only stops the walk early.
    """
    found = []
    for element in _entries(lines):
        match = _FOR.search(element)
        found.append(match.group(1).strip('"') if match else "")
    return found


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> Address | None:
    """Read an address with or without port or brackets; None if it is none."""
    if match := _IPV4_PORT.fullmatch(text) or _IPV6_PORT.fullmatch(text):
        text = match.group(1)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


# Probes come from an orchestrator, which has no key and another address.
PROBES: Final = frozenset({"/health", "/ready"})
# What a browser loads before its user can give a key; it holds no data.
PUBLIC: Final = PROBES | {"/", "/docs", "/openapi.json"}
PUBLIC_PREFIX: Final = PAGE_PREFIX

_PORT: Final = re.compile(":[0-9]*$")
LOOPBACK_ONLY: Final = Problem(
    403,
    "loopback_only",
    "this server has no API_KEYS, so it serves its own machine only,"
    " by an address or name of loopback; set API_KEYS, or ALLOW_ANONYMOUS=1",
)
TWO_KEYS: Final = Problem(
    400,
    "invalid_request",
    "authorization: expected one key, in one header field, got more",
)
OPERATORS_ONLY: Final = Problem(
    403, "permission_denied", "this needs one of the server's ADMIN_KEYS"
)


def check_client(services: Services, context: RequestContext) -> Problem | None:
    """Find out who is asking; return why they are refused, if they are.

    The caller counts the request first and refuses it then: guessing keys is limited
    by the guesser's address.
    """
    said = context.fields(b"authorization")
    plain = context.fields(b"x-api-key")
    tokens = tokens_of(said, plain) if said or plain else set()
    # What stands before the server may have read another one than is read here.
    several = len(said) > 1 or len(tokens) > 1
    token = None if several else next(iter(tokens), None)
    known = None if token is None else services.keys.find(token)
    context.role = None if known is None else known.role
    client = context.scope["client"]
    context.client_id = identify(
        client[0] if client else None,
        api_key=None if known is None else token,
        key_name=None if known is None else known.name,
        x_forwarded_for=context.fields(b"x-forwarded-for"),
        forwarded=context.fields(b"forwarded"),
        trusted=services.settings.TRUSTED_PROXIES,
    )
    if known is not None and known.name is not None:
        context.limits = services.settings.named_keys.get(known.name)
    path = context.path
    if path in PROBES:
        return None
    if several:
        return TWO_KEYS
    if services.settings.loopback_only and not _on_loopback(context):
        return LOOPBACK_ONLY
    if not services.settings.keys_required or context.role is not None:
        return None
    public = path in PUBLIC or (path.startswith(PUBLIC_PREFIX) and path != MARKDOWN)
    return None if public else _unauthorized(token)


def require_operator(services: Services) -> None:
    """Let operators pass; without ADMIN_KEYS, everybody who may ask at all.

    :raises Refused: 403.
    """
    if services.keys.has_admins and RequestContext.current().role is not Role.ADMIN:
        raise Refused(OPERATORS_ONLY)


def visible_owner() -> str | None:
    """Return the owner whose streams the caller may see and cancel; None for all."""
    context = RequestContext.current()
    return None if context.role is Role.ADMIN else context.client_id


def _unauthorized(token: str | None) -> Problem:
    if token is None:
        message = "expected `Authorization: Bearer KEY` or `x-api-key`, got no key"
        return Problem(401, "missing_api_key", message)
    message = "the key is not one of this server's API_KEYS"
    return Problem(401, "invalid_api_key", message)


def _on_loopback(context: RequestContext) -> bool:
    """Whether the request is this machine's own: by address, and by name.

    By name as well, because a page of another site may have its name resolve to
    loopback and then ask in the user's browser (DNS rebinding). A Unix socket's clients
    have passed the file's permissions.
    """
    server = context.scope.get("server")
    if server is None:
        return True
    return is_loopback(server[0]) and names_loopback(context.field(b"host"))


def names_loopback(host: str | None) -> bool:
    """Whether a `Host` is a name or an address of loopback; none counts as one."""
    name = _PORT.sub("", (host or "localhost").lower())
    named = name == "localhost" or name.endswith(".localhost")
    return named or is_loopback(name.strip("[]"))


def is_loopback(host: str) -> bool:
    """Whether an address is one of loopback; a name is none."""
    address = _parse(host)
    return address is not None and address.is_loopback
