"""Who is asking, and whether they may: keys, roles, and loopback without either."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable
from typing import Final

from trio_ai_stream.admission.clients import identify
from trio_ai_stream.http.page.page_routes import MARKDOWN
from trio_ai_stream.http.page.page_routes import PREFIX as PAGE_PREFIX
from trio_ai_stream.http.request import RequestContext
from trio_ai_stream.http.services import Services
from trio_ai_stream.wire.keys import Role, tokens_of
from trio_ai_stream.wire.problems import Problem, Refused

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
    token = next(iter(tokens)) if len(said) <= 1 == len(tokens) else None
    known = None if token is None else services.keys.find(token)
    context.role = None if known is None else known.role
    context.limits = None
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
    if (
        len(said) > 1 or len(tokens) > 1
    ):  # what stands before the server may have read the other
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


def whose_streams() -> Callable[[str], bool]:
    """Return which owners' streams the caller may see, for as long as it watches."""
    visible = visible_owner()
    return lambda owner: visible in {None, owner}


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


@functools.lru_cache(maxsize=64)  # the addresses of this machine
def is_loopback(host: str) -> bool:
    """Whether an address is one of loopback; a name is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback
