"""What several settings must be together, each being right by itself."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Final

from trio_ai_stream.settings.model import Settings


def broken_rules(settings: Settings, *, unknown: Collection[str]) -> list[str]:
    """Return one line for each broken rule whose settings are known.

    :param unknown: names whose values were refused; `settings` has defaults for them.
    """
    checks = [check for names, check in RULES.items() if names.isdisjoint(unknown)]
    return [problem for check in checks if (problem := check(settings))]


def _upstream_needs_its_key(settings: Settings) -> str | None:
    if settings.UPSTREAM == "openrouter" and settings.OPENROUTER_API_KEY is None:
        return (
            "OPENROUTER_API_KEY: expected a key because UPSTREAM=openrouter,"
            " got none; set it, or UPSTREAM=simulator"
        )
    return None


def _certificate_needs_its_key(settings: Settings) -> str | None:
    certificate, key = settings.TLS_CERT_FILE, settings.TLS_KEY_FILE
    if certificate is not None and key is not None:
        return _pair_problem(certificate, key)
    if certificate is key:
        return None
    given = "TLS_CERT_FILE" if key is None else "TLS_KEY_FILE"
    return f"TLS_CERT_FILE: expected together with TLS_KEY_FILE, got only {given}"


def _pair_problem(certificate: Path, key: Path) -> str | None:
    """Say why TLS could not use the two files; the key itself is never shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password OpenSSL would ask the terminal for that of a locked key.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            why = "the key belongs to another certificate"
        else:
            reason = exc.reason or "no certificate or key in PEM"
            why = f"one of them can't be used ({reason}); a key must have no password"
        return (
            "TLS_CERT_FILE: expected a certificate, and in TLS_KEY_FILE its private"
            f" key, both PEM, got {certificate} and {key}: {why}"
        )
    return None


def _keys_or_anybody(settings: Settings) -> str | None:
    if settings.ALLOW_ANONYMOUS and (settings.api_keys or settings.KEYS_FILE):
        name = "API_KEYS" if settings.api_keys else "KEYS_FILE"
        return (
            f"ALLOW_ANONYMOUS: expected 0 because there are {name}, got 1;"
            " clients either need a key or they do not"
        )
    return None


def _budgets_are_kept(settings: Settings) -> str | None:
    limited = [one.name for one in settings.KEYS_FILE if one.has_budget]
    if limited and settings.LEDGER_FILE is None and settings.REDIS_URL is None:
        return (
            "LEDGER_FILE: expected a file, or REDIS_URL, because KEYS_FILE limits what"
            f" {limited[0]} may spend, got neither; a restart would forget it"
        )
    return None


def _budgets_are_remembered(settings: Settings) -> str | None:
    if settings.LEDGER_FILE is None or settings.REDIS_URL is not None:
        return None  # Valkey keeps what is spent for as long as it counts
    kept = settings.LEDGER_RETENTION_DAYS
    for one in settings.KEYS_FILE:
        days = 31 if one.usd_per_month is not None else 1
        if one.has_budget and kept < days:
            return (
                f"LEDGER_RETENTION_DAYS: expected {days} or more because KEYS_FILE"
                f" limits what {one.name} may spend, got {kept:g}; what is deleted is"
                " forgotten"
            )
    return None


def _one_fits_into_all(one: str, all_together: str, settings: Settings) -> str | None:
    least, got = getattr(settings, one), getattr(settings, all_together)
    if got < least:
        return f"{all_together}: expected {one} or more, which is {least}, got {got}"
    return None


def _listeners_differ(settings: Settings) -> str | None:
    binds = {
        "PORT": settings.bind,
        "METRICS_PORT": settings.management_bind,
        "PEER_ADDRESS": settings.PEER_ADDRESS,
    }
    taken: dict[str, tuple[str, int]] = {}
    for name, bind in binds.items():
        if bind is None or bind[1] == 0:
            continue
        for other, (host, port) in taken.items():
            hosts = {host, bind[0]}
            if port == bind[1] and (len(hosts) == 1 or hosts & {"0.0.0.0", "::"}):  # noqa: S104
                return (
                    f"{name}: expected another port than {other}, got {port} for both"
                )
        taken[name] = bind
    return None


def _peers_know_each_other(settings: Settings) -> str | None:
    if settings.PEER_ADDRESS is not None and settings.REDIS_URL is None:
        return (
            "PEER_ADDRESS: expected together with REDIS_URL, where other hosts find"
            " it, got no REDIS_URL; set it, or leave PEER_ADDRESS out"
        )
    return None


_SUMS: Final = {
    "MAX_BODY_BYTES": "MAX_BODIES_BYTES",
    "GRACE_STREAM_BYTES": "GRACE_TOTAL_BYTES",
}
RULES: Final[dict[frozenset[str], Callable[[Settings], str | None]]] = {
    frozenset({"UPSTREAM", "OPENROUTER_API_KEY"}): _upstream_needs_its_key,
    frozenset({"TLS_CERT_FILE", "TLS_KEY_FILE"}): _certificate_needs_its_key,
    frozenset(
        {"ALLOW_ANONYMOUS", "API_KEYS", "API_KEYS_FILE", "KEYS_FILE"}
    ): _keys_or_anybody,
    frozenset({"KEYS_FILE", "LEDGER_FILE", "REDIS_URL"}): _budgets_are_kept,
    frozenset(
        {"KEYS_FILE", "LEDGER_FILE", "LEDGER_RETENTION_DAYS", "REDIS_URL"}
    ): _budgets_are_remembered,
    **{frozenset(pair): partial(_one_fits_into_all, *pair) for pair in _SUMS.items()},
    frozenset({"HOST", "PORT", "METRICS_PORT", "PEER_ADDRESS"}): _listeners_differ,
    frozenset({"PEER_ADDRESS", "REDIS_URL"}): _peers_know_each_other,
}
"""Each check, by the settings without which it can't be made."""
