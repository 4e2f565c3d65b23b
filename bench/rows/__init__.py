"""The rows of the table of goals, each a benchmark of its own."""

from __future__ import annotations

from typing import Final

from bench.rows.dialects import Dialects
from bench.rows.fairness import Fairness
from bench.rows.first import First
from bench.rows.idle import Idle
from bench.rows.many import Many
from bench.rows.paced import Paced
from bench.rows.pauses import Pauses
from bench.rows.pythons import Pythons
from bench.rows.relay import Relay
from bench.rows.row import Row
from bench.rows.sparse import Sparse
from bench.rows.streams import Streams
from bench.rows.tls import Tls
from bench.rows.workers import Workers

ROWS: Final[dict[str, type[Row]]] = {
    "relay": Relay,
    "dialects": Dialects,
    "first": First,
    "paced": Paced,
    "pauses": Pauses,
    "sparse": Sparse,
    "idle": Idle,
    "many": Many,
    "tls": Tls,
    "workers": Workers,
    "fairness": Fairness,
    "streams": Streams,
    "pythons": Pythons,
}
