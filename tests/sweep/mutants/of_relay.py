"""Mistakes in the relay: its clean-up, its one writer, its retries."""

from __future__ import annotations

from typing import Final

from tests.sweep.mutants.mutant import Mutant

RELAY: Final = "stream/relay.py"

RELAY_MUTANTS: Final = (
    Mutant(
        "unbounded-shield",
        "the clean-up's shield has no deadline",
        RELAY,
        "trio.move_on_after(REUSE_S, shield=True)",
        "trio.CancelScope(shield=True)",
    ),
    Mutant(
        "long-shield",
        "the clean-up's shield has a deadline that helps nobody",
        RELAY,
        "trio.move_on_after(REUSE_S, shield=True)",
        "trio.move_on_after(30 * REUSE_S, shield=True)",
    ),
    Mutant(
        "no-shield",
        "the clean-up is cancelled with the rest: a whole answer's connection is lost",
        RELAY,
        "trio.move_on_after(REUSE_S, shield=True)",
        "trio.move_on_after(REUSE_S)",
    ),
    Mutant(
        "swallow-cancelled",
        "the relay takes Cancelled for an error of its own",
        RELAY,
        "        except Exception:\n"
        '            logger.exception("stream failed")\n'
        "            stream.end(Outcome.INTERNAL_ERROR)\n"
        "\n"
        "    async def _converse",
        "        except BaseException:\n"
        '            logger.exception("stream failed")\n'
        "            stream.end(Outcome.INTERNAL_ERROR)\n"
        "\n"
        "    async def _converse",
    ),
    Mutant(
        "second-terminal",
        "a stream that the drain ended is told so twice",
        RELAY,
        "                await conversation.write_ending()\n",
        "                await conversation.write_ending()\n"
        "                if stream.ending.outcome is Outcome.SHUTDOWN:\n"
        "                    await conversation.write_ending()\n",
    ),
    Mutant(
        "unbounded-farewell",
        "the terminal event waits for the client for ever",
        RELAY,
        "with trio.move_on_after(self.stream.budgets.write_s) as terminal_scope",
        "with trio.CancelScope() as terminal_scope",
    ),
    Mutant(
        "two-writers",
        "the terminal event does not wait for a heartbeat under way",
        RELAY,
        "            await self.timers.writable()\n            # Before the client",
        "            # Before the client",
    ),
    Mutant(
        "heartbeat-in-farewell",
        "the timers go on while the terminal event is written (found by the sweep)",
        RELAY,
        "            self.timers.waiting_since = None  # a heartbeat now",
        "            pass  # a heartbeat now",
    ),
    Mutant(
        "step-after-end",
        "an answer that arrives after the ending is taken up (found by the sweep)",
        RELAY,
        "        if stream.ending is not None:  # it came while this answer",
        "        if False:  # it came while this answer",
    ),
    Mutant(
        "read-after-end",
        "the relay reads on after the ending (found by the sweep)",
        RELAY,
        "        if stream.ending is not None:  # it came while this task",
        "        if False:  # it came while this task",
    ),
    Mutant(
        "cut-after-finish",
        "a connection that breaks after the finish makes a failure of a whole answer",
        RELAY,
        "                    if stream.ending is not None:\n"
        "                        raise\n",
        "                    raise\n",
    ),
    Mutant(
        "retry-after-content",
        "a stream that has delivered content is retried",
        RELAY,
        "begun = stream.events or self.transcript.begun or finished",
        "begun = False",
    ),
    Mutant(
        "retry-leaks",
        "a retry forgets the connection of the attempt before",
        RELAY,
        "        except EndStream:\n            stream.release_upstream()\n",
        "        except EndStream:\n            stream.response = None\n",
    ),
    Mutant(
        "still-to-be-watched",
        "a stream that is over stays in the queue of those that need timers",
        RELAY,
        "                timer_queue.leave(start_timers)\n",
        "                pass\n",
    ),
    Mutant(
        "watch-outlives",
        "the timers run in a task of the server's",
        RELAY,
        "                nursery.start_soon,\n",
        "                trio.lowlevel.spawn_system_task,\n",
    ),
)
