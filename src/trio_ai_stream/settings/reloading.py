"""Which settings SIGHUP reads again, and which wait for a restart."""

from __future__ import annotations

from typing import Final

from trio_ai_stream.settings.model import Settings

KEYS: Final = {
    *("ADMIN_KEYS", "ADMIN_KEYS_FILE", "API_KEYS", "API_KEYS_FILE", "KEYS_FILE"),
}
RELOADED: Final = KEYS | {
    "H2_MAX_BUFFERED_BYTES",
    "H2_MAX_CONTROL_FRAMES",
    "H2_MAX_RESETS",
    "H2_MAX_STREAMS",
    "MAX_BODIES_BYTES",
    "MAX_BODY_BYTES",
    "MAX_CONCURRENT_STREAMS",
    "MAX_CONNECTIONS",
    "MAX_HEADER_BYTES",
    "MAX_MESSAGES_LENGTH",
    "MAX_PROMPT_LENGTH",
    "MAX_READ_AHEAD_BYTES",
    "MAX_REQUESTS_PER_CONNECTION",
    "MAX_STREAMS_PER_CLIENT",
    "RATE_LIMIT",
    "TRUSTED_PROXIES",
}
"""The settings that SIGHUP reads again; the others need a restart."""


def reloaded(old: Settings, new: Settings) -> tuple[Settings, set[str], set[str]]:
    """Return the settings from now on, and the names of what changed in them.

    The last are the names of those that changed and keep their old value until a
    restart.
    """
    changed = {
        name
        for name in Settings.model_fields
        if getattr(old, name) != getattr(new, name)
    }
    fixed = changed - RELOADED
    if old.keys_required != new.keys_required:
        fixed |= changed & KEYS  # the page and the documents were made for the other
    changed -= fixed
    settings = old.model_copy(update={name: getattr(new, name) for name in changed})
    return settings, changed, fixed
