"""The settings of one process, from the environment and `.env`."""

from trio_ai_stream.settings.handover import Handover, first_settings
from trio_ai_stream.settings.loading import (
    SettingsError,
    describe,
    foreign_names,
    load_settings,
    refuse_exposure,
)
from trio_ai_stream.settings.model import SETTINGS, Settings

__all__ = [
    "SETTINGS",
    "Handover",
    "Settings",
    "SettingsError",
    "describe",
    "first_settings",
    "foreign_names",
    "load_settings",
    "refuse_exposure",
]
