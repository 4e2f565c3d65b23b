"""The module that a server process imports: `app`, with the server installed or not.

SERVER_LIMITS holds the limits as JSON; without it Hypercorn stays as it is.
"""

from __future__ import annotations

import json
import os

from tests.support.server.application import Application
from trio_ai_stream.server.limits import Limits
from trio_ai_stream.server.serving import install

app = Application()
if os.environ.get("SERVER_LIMITS"):
    install(Limits(**json.loads(os.environ["SERVER_LIMITS"])), app)
