"""Mistakes that resuming could have; `python -m tests.resume.mutants` sees them found.

Each is made in the source of a process of its own, and the tests of this folder must
fail there.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.sweep.mutants.mutant import Mutant, install

MUTANTS: Final = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            "skips-one",
            "who comes back misses an event",
            "Resumables.resume",
            "resumable.attach(after)",
            "resumable.attach(after + 1)",
        ),
        Mutant(
            "repeats-one",
            "who comes back gets an event twice",
            "Resumables.resume",
            "resumable.attach(after)",
            "resumable.attach(max(0, after - 1))",
        ),
        Mutant(
            "clock-goes-on",
            "the grace ends a stream that has a reader again",
            "Resumable.attach",
            "self.grace.deadline = math.inf",
        ),
        Mutant(
            "clock-never-starts",
            "a stream without a client goes on for ever",
            "Resumable.detach",
            "self.grace.deadline = _1 + _2",
        ),
        Mutant(
            "grace-without-end",
            "the grace's end ends nothing",
            "Resumable._abandon",
            "self.stream.stop(_1)",
        ),
        Mutant(
            "drops-what-is-unread",
            "a full log drops events that its reader has not had",
            "Resumable._is_full",
            "self.log.drop(reader.delivered, excess)",
            "self.log.drop(self.log.last, excess)",
        ),
        Mutant(
            "reads-on-when-full",
            "upstream is read although a detached stream's log is full",
            "Resumable._is_full",
            "return excess > 0",
            "return False",
        ),
        Mutant(
            "two-readers",
            "the first reader is not told that another has taken over",
            "Resumable.attach",
            "self.reader.superseded = True",
            "pass",
        ),
        Mutant(
            "superseded-in-silence",
            "a reader that had not had all of a whole answer is not told",
            "Resumable.farewell",
            "self.encoder.error(_1, _2)",
            "self.encoder.ending(_1, _2)",
        ),
        Mutant(
            "old-loss-detaches",
            "the end of a superseded reader detaches the stream of the next",
            "Resumable.detach",
            "self.reader is not reader",
            "self.reader is None",
        ),
        Mutant(
            "forgotten-at-once",
            "who comes back after the end gets nothing",
            "Resumable.run",
            "await trio.sleep(self.grace_s)",
        ),
        Mutant(
            "told-nobody",
            "the record says that a client was told which had gone",
            "Resumable.told",
            "return self._told",
            "return True",
        ),
        Mutant(
            "numbers-heartbeats",
            "a sign of life is kept as an event",
            "Resumable.beat",
            "is_comment(data)",
            "False",
        ),
        Mutant(
            "id-free-too-soon",
            "another request may take the id of a stream that can be come back to",
            "RequestContext.leave",
            "if not self.keeps_id:\n    ...",
            "taken.discard(self.request_id)",
        ),
        Mutant(
            "bytes-leak",
            "what a forgotten log held stays counted",
            "Resumable.release",
            "self._budget.give_back(_1)",
        ),
        Mutant(
            "any-token",
            "whoever knows the id may read",
            "Resumables.find",
            "resumable is None or _1",
            "resumable is None",
        ),
        Mutant(
            "key-stays-behind",
            "the process that has the stream is not told the client's key",
            "read_at",
            "services.settings.keys_required",
            "False",
        ),
        Mutant(
            "reader-stays",
            "who leaves another process goes on reading at the owner",
            "PeerReader.end",
            "self.response.close()",
            "pass",
        ),
        Mutant(
            "cut-is-whole",
            "a reader whose owner was killed gets a proper end",
            "_pass_on",
            "logger.warning(_1, event=_2, cause=_3)\nreturn",
            "pass",
        ),
        Mutant(
            "loss-is-the-end",
            "a client that is lost ends its stream",
            "Attachment.end",
            "outcome is Outcome.INTERNAL_ERROR",
            "True",
        ),
    )
}


def main() -> int:
    """Try each mutant that is named, or all; 1: one survived."""
    if len(sys.argv) == 3 and sys.argv[1] == "--as":
        install(MUTANTS[sys.argv[2]])
        here = Path(__file__).parent
        processes = here / "test_processes.py"  # of their own, without the mistake
        words = ["-x", "-q", "-n0", str(here), f"--ignore={processes}"]
        return int(pytest.main(words))
    survived = 0
    for name in sys.argv[1:] or MUTANTS:
        MUTANTS[name].check()  # one that cannot be made fails as if it were found
        words = [sys.executable, "-m", "tests.resume.mutants", "--as", name]
        verdict = "killed"
        try:
            done = subprocess.run(words, capture_output=True, timeout=300, check=False)
            killed = done.returncode == 1
        except subprocess.TimeoutExpired:
            killed, verdict = True, "killed, by its time: 300 s"
        survived += not killed
        verdict = verdict if killed else "SURVIVED"
        sys.stdout.write(f"{name}: {verdict} ({MUTANTS[name].mistake})\n")
        sys.stdout.flush()
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
