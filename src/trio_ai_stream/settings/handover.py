"""The settings that are in force, handed on by a supervisor to workers it starts.

A worker that takes the place of another must not read `.env` by itself: it may have
changed since, or be half written, and one server would run under two settings. They
are in memory, and a descriptor leads there: in an environment every process of this
user could read them, and they would hide what a reload finds in `.env`.
"""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from typing import Final

from trio_ai_stream.settings.loading import SettingsError, load_settings, reloaded
from trio_ai_stream.settings.model import SETTINGS, Settings

SETTINGS_VARIABLE: Final = "TRIO_AI_STREAM_SETTINGS_FD"
"""Names the descriptor to a worker."""


class Handover:
    """The settings of all workers; a reload is done here as each worker does it."""

    def __init__(self, settings: Settings) -> None:
        """Take those of the start.

        :raises OSError: no descriptor or no memory is left.
        """
        self._settings = settings
        self.descriptor = _in_memory(settings)

    @property
    def environ(self) -> dict[str, str]:
        """What tells a worker where the settings are."""
        return {SETTINGS_VARIABLE: str(self.descriptor)}

    def read_again(self) -> None:
        """Do what SIGHUP asks for; each worker says by itself what came of it.

        :raises OSError: as `__init__`; nothing has changed.
        """
        with suppress(SettingsError):
            settings, _, _ = reloaded(self._settings, load_settings(unopened=True))
            fresh = _in_memory(settings)
            # The number stays; whoever was started before still has the old ones, and
            # is told to reload.
            os.dup2(fresh, self.descriptor, inheritable=False)
            os.close(fresh)
            self._settings = settings


def first_settings() -> Settings:
    """Return what this process starts with: handed over by the same release, or read.

    :raises SettingsError: as `load_settings`.
    """
    descriptor = os.environ.get(SETTINGS_VARIABLE)
    if descriptor is None:
        return load_settings()
    size = os.fstat(int(descriptor)).st_size
    names, data = pickle.loads(os.pread(int(descriptor), size, 0))  # noqa: S301 - our parent's
    # Another release may have been installed since the parent was started.
    if names != list(SETTINGS):
        return load_settings()
    found = pickle.loads(data)  # noqa: S301
    assert isinstance(found, Settings)
    return found


def _in_memory(settings: Settings) -> int:
    descriptor = os.memfd_create("settings")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pickle.dumps((list(SETTINGS), pickle.dumps(settings))))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
