"""`app` for Hypercorn, guarded: importing this module makes it from the environment.

Both launches load it by name, so that both get the same application, log and guard.
"""

from __future__ import annotations

import sys

from trio_ai_stream.admission.opening import MissingExtraError
from trio_ai_stream.assembly import create_app
from trio_ai_stream.http.application import Application
from trio_ai_stream.server.guard import install
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.settings import SettingsError, load_settings
from trio_ai_stream.telemetry.logs import configure_logging


def _from_environment() -> Application:
    try:
        settings = load_settings()
        configure_logging(settings.LOG_LEVEL, settings.LOG_FORMAT)
        application = create_app(settings)
    except (SettingsError, MissingExtraError) as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(2)
    install(Limits.from_settings(settings), application.services.registry)
    return application


app = _from_environment()
