"""`app` for Hypercorn, made from the environment when this module is imported.

Both launches load it by name, so that both get the same application, log and
hardened server.
"""

from __future__ import annotations

import gc
import sys
from functools import partial
from typing import Final

from trio_ai_stream.admission.admission_factory import MissingExtraError
from trio_ai_stream.app_factory import create_app, reload_settings, server_limits
from trio_ai_stream.http.application import Application
from trio_ai_stream.server.serving import install
from trio_ai_stream.server.signals import remember_early
from trio_ai_stream.settings import SettingsError, load_settings
from trio_ai_stream.telemetry.logs import configure_logging

# Allocations before a young collection, and collections of one generation before one of
# the next. A stream's start makes some hundred objects that live as long as it does, so
# the usual (700, 10, 10) spends a third of a start on looking at live streams
# (docs/performance.md). The older generations keep their usual ten: with more, what
# thousands of stalled streams left behind waited long enough to be seen in the memory.
# No socket waits for a collection to be closed.
COLLECT_AFTER: Final = (5_000, 10, 10)


def _settle_collector() -> None:
    """Never again look at what lives as long as the process, less often at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def _from_environment() -> Application:
    remember_early()
    try:
        settings = load_settings()
        configure_logging(settings.LOG_LEVEL, settings.LOG_FORMAT)
        application = create_app(settings)
    except (SettingsError, MissingExtraError) as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(2)
    install(
        server_limits(settings),
        application.services.registry,
        partial(reload_settings, application),
    )
    _settle_collector()
    return application


app = _from_environment()
