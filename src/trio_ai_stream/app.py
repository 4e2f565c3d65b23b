"""`app` for Hypercorn, made from the environment when this module is imported.

Both launches load it by name, so that both get the same application, log and
hardened server.
"""

from __future__ import annotations

from functools import partial

from trio_ai_stream.app_factory import create_app, reload_settings, server_limits
from trio_ai_stream.http.application import Application
from trio_ai_stream.http.services import Drain
from trio_ai_stream.server.serving import install
from trio_ai_stream.server.signals import remember_early
from trio_ai_stream.server.supervisor import refuse_to_start
from trio_ai_stream.settings import SettingsError, first_settings
from trio_ai_stream.telemetry.garbage import settle_collector
from trio_ai_stream.telemetry.logs import configure_logging


def _from_environment() -> Application:
    remember_early()
    try:
        settings = first_settings()
        configure_logging(settings.LOG_LEVEL, settings.LOG_FORMAT)
        application = create_app(settings)
    except SettingsError as exc:
        refuse_to_start(str(exc), 2)
    except OSError as exc:  # where its workers share files
        refuse_to_start(f"cannot start: {exc}", 1)
    install(
        server_limits(settings),
        Drain(application.services),
        partial(reload_settings, application),
    )
    settle_collector()
    return application


app = _from_environment()
