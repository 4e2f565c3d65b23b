"""`python -m trio_ai_stream`."""

from __future__ import annotations

import sys

from trio_ai_stream.cli import main

sys.exit(main())
