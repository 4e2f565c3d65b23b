"""The mutants: each a mistake that was made somewhere, or could be made here."""

from __future__ import annotations

from typing import Final

from trio_ai_stream.lab.mutants.mutant import Edit, Mutant

RELAY: Final = "stream/relay.py"
STREAM: Final = "stream/stream.py"
CONNECTION: Final = "http/connection.py"
ADMISSION: Final = "http/admission.py"
CHECKPOINT: Final = "__import__('trio').lowlevel.checkpoint()"

_ALL: Final = (
    Mutant(
        "release-when-told",
        "the permit comes back only from a stream whose client could be told its end",
        (
            Edit(
                CONNECTION,
                "                if incoming.stream is not None:\n"
                "                    incoming.stream.close(outcome=end)",
                "                if incoming.stream is not None and incoming.stream.told:\n"
                "                    incoming.stream.close(outcome=end)",
            ),
        ),
    ),
    Mutant(
        "await-after-permit",
        "a checkpoint between taking the permit and handing it to the request",
        (
            Edit(
                ADMISSION,
                "    # No checkpoint from here to the end:",
                f"    await {CHECKPOINT}\n    # No checkpoint from here to the end:",
            ),
        ),
    ),
    Mutant(
        "await-before-entry",
        "a checkpoint between the registry's entry and the request's",
        (
            Edit(
                ADMISSION,
                "    services.registry.add(stream)\n",
                f"    services.registry.add(stream)\n    await {CHECKPOINT}\n",
            ),
        ),
    ),
    Mutant(
        "drain-admits",
        "a stream that was on its way when the drain began is admitted",
        (
            Edit(
                ADMISSION,
                "if services.registry.draining.is_set() or call.request_id in",
                "if call.request_id in",
            ),
        ),
    ),
    Mutant(
        "unbounded-shield",
        "the clean-up's shield has no deadline",
        (
            Edit(
                RELAY,
                "trio.move_on_after(REUSE_S, shield=True)",
                "trio.CancelScope(shield=True)",
            ),
        ),
    ),
    Mutant(
        "long-shield",
        "the clean-up's shield has a deadline that helps nobody",
        (
            Edit(
                RELAY,
                "trio.move_on_after(REUSE_S, shield=True)",
                "trio.move_on_after(30 * REUSE_S, shield=True)",
            ),
        ),
    ),
    Mutant(
        "no-shield",
        "the clean-up is cancelled with the rest: a whole answer's connection is lost",
        (
            Edit(
                RELAY,
                "trio.move_on_after(REUSE_S, shield=True)",
                "trio.move_on_after(REUSE_S)",
            ),
        ),
    ),
    Mutant(
        "swallow-cancelled",
        "the relay takes Cancelled for an error of its own",
        (
            Edit(
                RELAY,
                "        except Exception:\n            logger.exception("
                '"stream failed")\n            stream.end(Outcome.INTERNAL_ERROR)\n\n'
                "    async def _converse",
                "        except BaseException:\n            logger.exception("
                '"stream failed")\n            stream.end(Outcome.INTERNAL_ERROR)\n\n'
                "    async def _converse",
            ),
        ),
    ),
    Mutant(
        "second-terminal",
        "a stream that the drain ended is told so twice",
        (
            Edit(
                RELAY,
                "            await conversation.tell()\n",
                "            await conversation.tell()\n"
                "            if stream.ending.outcome is Outcome.SHUTDOWN:\n"
                "                await conversation.tell()\n",
            ),
        ),
    ),
    Mutant(
        "unbounded-farewell",
        "the terminal event waits for the client for ever",
        (
            Edit(
                RELAY,
                "with trio.move_on_after(self.stream.budgets.write_s) as last_words",
                "with trio.CancelScope() as last_words",
            ),
        ),
    ),
    Mutant(
        "two-writers",
        "the terminal event does not wait for a heartbeat under way",
        (
            Edit(
                RELAY,
                "            await self.watch.writable()\n"
                "            await self.client.ended",
                "            await self.client.ended",
            ),
        ),
    ),
    Mutant(
        "heartbeat-in-farewell",
        "the watch goes on while the terminal event is written (found by the sweep)",
        (
            Edit(
                RELAY,
                "            self.watch.waiting_since = None  # a heartbeat now",
                "            pass  # a heartbeat now",
            ),
        ),
    ),
    Mutant(
        "step-after-end",
        "an answer that arrives after the ending is taken up (found by the sweep)",
        (
            Edit(
                RELAY,
                "        if stream.ending is not None:  # it came while this answer",
                "        if False:  # it came while this answer",
            ),
        ),
    ),
    Mutant(
        "read-after-end",
        "the relay reads on after the ending (found by the sweep)",
        (
            Edit(
                RELAY,
                "        if stream.ending is not None:  # it came while this task",
                "        if False:  # it came while this task",
            ),
        ),
    ),
    Mutant(
        "retry-after-content",
        "a stream that has delivered content is retried",
        (
            Edit(
                RELAY,
                "exc.problem is None or self.stream.events:",
                "exc.problem is None:",
            ),
        ),
    ),
    Mutant(
        "retry-leaks",
        "a retry forgets the connection of the attempt before",
        (
            Edit(
                RELAY,
                "        except EndStream:\n            stream.release_upstream()\n",
                "        except EndStream:\n            stream.source = None\n",
            ),
        ),
    ),
    Mutant(
        "watch-outlives",
        "the timers run in a task of the server's",
        (
            Edit(
                RELAY,
                "            nursery.start_soon(\n"
                "                conversation.watch.run,",
                "            trio.lowlevel.spawn_system_task(\n"
                "                conversation.watch.run,",
            ),
        ),
    ),
    Mutant(
        "end-keeps-upstream",
        "the ending is decided, and upstream goes on until the relay comes to it",
        (
            Edit(
                STREAM,
                "        if outcome is not Outcome.COMPLETED:\n"
                "            self.release_upstream()\n",
                "",
            ),
        ),
    ),
    Mutant(
        "late-answer-kept",
        "an answer that arrives after the ending keeps its connection",
        (
            Edit(
                STREAM,
                "        if self.ending is not None:\n"
                "            self.release_upstream()\n",
                "",
            ),
        ),
    ),
    Mutant(
        "stop-is-only-noted",
        "a stream that is cancelled by id is not interrupted",
        (Edit(STREAM, "        self.stop_scope.cancel(reason=outcome.value)\n", ""),),
    ),
    Mutant(
        "last-cause-wins",
        "a cause that comes later replaces the first",
        (
            Edit(
                STREAM,
                "        if self.ending is not None:\n            return False\n"
                "        ending = Ending",
                "        if self.ending is not None:\n"
                "            at = self.ending.at\n"
                "            self.ending = Ending(outcome, at, None, detail)\n"
                "            return False\n        ending = Ending",
            ),
        ),
    ),
    Mutant(
        "gone-unheard",
        "the client's going is recorded, and nothing is cancelled",
        (
            Edit(
                CONNECTION,
                "            incoming.stream.end(outcome)\n"
                "        nursery.cancel_scope.cancel(reason=outcome.value)\n",
                "            incoming.stream.end(outcome)\n",
            ),
        ),
    ),
    Mutant(
        "stall-unrecorded",
        "a client that stalled is recorded like one that left",
        (
            Edit(
                CONNECTION,
                "            incoming.stream.end(outcome)\n",
                "            pass\n",
            ),
        ),
    ),
    Mutant(
        "cut-by-shutdown-unrecorded",
        "a stream that dies with a draining server is recorded as the client's going",
        (
            Edit(
                CONNECTION,
                "                    end = Outcome.SHUTDOWN\n",
                "                    pass\n",
            ),
        ),
    ),
    Mutant(
        "drain-forgets-waiting",
        "the drain tells only streams that have content",
        (
            Edit(
                "stream/registry.py",
                "            stream.stop(Outcome.SHUTDOWN)\n",
                "            if stream.events:\n"
                "                stream.stop(Outcome.SHUTDOWN)\n",
            ),
        ),
    ),
    Mutant(
        "abort-keeps-socket",
        "an aborted body leaves its connection open",
        (
            Edit(
                "upstream/transport/body.py",
                "            self._pool.counters.aborts += 1\n"
                "            self._pool.discard(self._connection)\n",
                "            self._pool.counters.aborts += 1\n",
            ),
        ),
    ),
    Mutant(
        "cancelled-request-keeps-socket",
        "a request that is cancelled before its head leaves its connection open",
        (
            Edit(
                "upstream/transport/transport.py",
                "        except BaseException:\n            self._pool.discard(connection)\n"
                "            raise\n",
                "        except BaseException:\n            raise\n",
            ),
        ),
    ),
    Mutant(
        "idle-never-fires",
        "the watch sees upstream's silence and lets it be",
        (
            Edit(
                "stream/watch.py",
                '                    self.idle_scope.cancel(reason="stream_idle_timeout")\n',
                "",
            ),
        ),
    ),
)
MUTANTS: Final[dict[str, Mutant]] = {mutant.name: mutant for mutant in _ALL}
