"""Mistakes around the relay: admission, the request, the stream, the transport."""

from __future__ import annotations

from typing import Final

from tests.sweep.mutants.mutant import Mutant

STREAM: Final = "stream/stream.py"
CONNECTION: Final = "http/connection.py"
ADMISSION: Final = "http/admission.py"

OTHER_MUTANTS: Final = (
    Mutant(
        "release-when-told",
        "the permit comes back only from a stream whose client could be told its end",
        CONNECTION,
        "            if incoming.stream is not None:\n"
        "                incoming.stream.close(outcome=end)",
        "            if incoming.stream is not None and incoming.stream.told:\n"
        "                incoming.stream.close(outcome=end)",
    ),
    Mutant(
        "await-after-permit",
        "a checkpoint between taking the permit and handing it to the request",
        ADMISSION,
        "    # No checkpoint from here to the end:",
        "    await __import__('trio').lowlevel.checkpoint()\n"
        "    # No checkpoint from here to the end:",
    ),
    Mutant(
        "await-before-entry",
        "a checkpoint between the registry's entry and the request's",
        ADMISSION,
        "    services.registry.add(stream)\n",
        "    services.registry.add(stream)\n"
        "    await __import__('trio').lowlevel.checkpoint()\n",
    ),
    Mutant(
        "drain-admits",
        "a stream that was on its way when the drain began is admitted",
        ADMISSION,
        "    if services.registry.draining.is_set():\n"
        "        permit.release()\n"
        "        raise Refused(SHUTTING_DOWN)\n",
        "",
    ),
    Mutant(
        "end-keeps-upstream",
        "the ending is decided, and upstream goes on until the relay comes to it",
        STREAM,
        "        if outcome is not Outcome.COMPLETED:\n"
        "            self.release_upstream()\n",
        "",
    ),
    Mutant(
        "late-answer-kept",
        "an answer that arrives after the ending keeps its connection",
        STREAM,
        "        self.answer.generation_id = response.generation_id\n"
        "        if self.ending is not None:\n"
        "            self.release_upstream()\n",
        "        self.answer.generation_id = response.generation_id\n",
    ),
    Mutant(
        "stop-is-only-noted",
        "a stream that is cancelled by id is not interrupted",
        STREAM,
        "        self.stop_scope.cancel(reason=outcome.value)\n",
        "",
    ),
    Mutant(
        "last-cause-wins",
        "a cause that comes later replaces the first",
        STREAM,
        "        if self.ending is not None:\n"
        "            return False\n"
        "        ending = Ending",
        "        if self.ending is not None:\n"
        "            at = self.ending.at\n"
        "            self.ending = Ending(outcome, at, None, detail)\n"
        "            return False\n"
        "        ending = Ending",
    ),
    Mutant(
        "gone-unheard",
        "the client's going is recorded, and nothing is cancelled",
        CONNECTION,
        "        incoming.stream.end(outcome)\n"
        "    client.cancel(reason=outcome.value)\n",
        "        incoming.stream.end(outcome)\n",
    ),
    Mutant(
        "stall-unrecorded",
        "a client that stalled is recorded like one that left",
        CONNECTION,
        "        incoming.stream.end(outcome)\n",
        "        pass\n",
    ),
    Mutant(
        "gone-untold",
        "nobody is told that the client is gone",
        CONNECTION,
        "                incoming.exchange.on_disconnect("
        "partial(_leave, client, incoming))\n",
        "",
    ),
    Mutant(
        "cut-by-shutdown-unrecorded",
        "a stream that dies with a draining server is recorded as the client's going",
        CONNECTION,
        "                end = Outcome.SHUTDOWN\n",
        "                pass\n",
    ),
    Mutant(
        "drain-forgets-waiting",
        "the drain tells only streams that have content",
        "stream/registry.py",
        "            stream.stop(Outcome.SHUTDOWN)\n",
        "            if stream.events:\n"
        "                stream.stop(Outcome.SHUTDOWN)\n",
    ),
    Mutant(
        "abort-keeps-socket",
        "an aborted body leaves its connection open",
        "upstream/transport/body.py",
        "            self._pool.counters.aborts += 1\n"
        "            self._pool.discard(self._connection)\n",
        "            self._pool.counters.aborts += 1\n",
    ),
    Mutant(
        "cancelled-request-keeps-socket",
        "a request that is cancelled before its head leaves its connection open",
        "upstream/transport/upstream_transport.py",
        "        except BaseException:\n"
        "            self._pool.discard(connection)\n"
        "            raise\n",
        "        except BaseException:\n            raise\n",
    ),
    Mutant(
        "closed-connection-kept",
        "a connection closed while its answer came goes to the idle ones (found by the"
        " sweep)",
        "upstream/transport/upstream_connection.py",
        "            if self.link is CLOSED_LINK:",
        "            if False:",
    ),
    Mutant(
        "idle-never-fires",
        "the timers see upstream's silence and let it be",
        "stream/timers.py",
        '                    self.idle_scope.cancel(reason="stream_idle_timeout")\n',
        "",
    ),
)
