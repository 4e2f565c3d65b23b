"""The module that a server process imports: `app`, with the guard installed or not.

GUARD_LIMITS holds the limits as JSON; without it Hypercorn stays as it is.
"""

from __future__ import annotations

import json
import os

from tests.support.guarding.application import Application
from trio_ai_stream.server.guard import install
from trio_ai_stream.server.limits import Limits

app = Application()
if os.environ.get("GUARD_LIMITS"):
    install(Limits(**json.loads(os.environ["GUARD_LIMITS"])), app)
