"""A stream is left at one step and come back to at another: some of all pairs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.resume.endpoints import SAID
from tests.resume.mutants import MUTANTS
from tests.resume.pairs import (
    PLAIN,
    STREAMS,
    Plan,
    judge,
    read_tried,
    run,
    sweep,
    sweep_all,
)
from tests.sweep.__main__ import main
from tests.sweep.mutants.mutant import Mutant
from trio_sweep import MisuseError


@pytest.mark.parametrize("path", SAID)
def test_whenever_it_is_lost_and_found_it_is_the_undisturbed_stream(path: str) -> None:
    """`python -m tests.sweep --full` tries them all."""
    tried = sweep(Plan(path, ()), stride=40)
    assert tried.runs > 10
    assert tried.whole
    assert tried.violations == []


@pytest.mark.parametrize("stream", [stream for stream in STREAMS if stream != PLAIN])
def test_so_it_is_with_a_stream_of_another_kind(stream: str) -> None:
    """Silence, a second attempt, a failure, tools, a log that is full."""
    path = list(SAID)[list(STREAMS).index(stream) % len(SAID)]
    assert sweep(Plan(path, (), stream), stride=60).violations == []


def test_an_act_that_meets_nothing_changes_nothing() -> None:
    """So such a run need not be tried: it is the run without that act."""
    left = (30, "detach")
    alone = run(Plan("/chat", (left,)), probing=True)
    met = enumerate(alone.meets, 1)
    late = next(n for n, acts in met if n > 30 and "first_token" not in acts)
    for step, act in ((late, "first_token"), (len(alone.meets) + 1, "attach")):
        same = run(Plan("/chat", (left, (step, act))))
        assert (same.steps, same.body) == (alone.steps, alone.body)


def test_what_is_recorded_is_gone_on_with(tmp_path: Path) -> None:
    """A sweep that was broken off goes on behind the last step that it finished."""
    record = tmp_path / "resume.json"
    whole = dict(sweep_all(200, 1, record))
    broken = read_tried(record)
    broken["/chat plain"].through = 0
    record.write_bytes(msgspec.json.encode(broken))
    again = dict(sweep_all(200, 1, record))
    assert again["/chat plain"].runs == 2 * whole["/chat plain"].runs
    assert again["/v1/messages plain"].runs == whole["/v1/messages plain"].runs
    assert again["/chat plain"].whole
    record.write_bytes(msgspec.json.encode(broken))
    with pytest.raises(MisuseError, match="expected stride 30"):
        dict(sweep_all(30, 1, record))


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_a_cancel_behind_the_last_event_says_no_second_one(path: str) -> None:
    """The API's own last event is the terminal one; `--resume 5` asked for an error."""
    undisturbed = run(Plan(path, ()))
    for step in range(undisturbed.steps - 20, undisturbed.steps):
        lost = ((step, "detach"), (step + 3, "delete"), (step + 6, "attach"))
        assert judge(Plan(path, lost), undisturbed) == ""


def test_the_sweep_has_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    """`--resume N` asks every endpoint, and says what it found."""
    assert main(["--resume", "200", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"resuming {path} plain" for path in SAID
    ]
    assert all(line.endswith(" runs, 0 violations") for line in lines)
    assert main(["--resume", "0"]) == 2


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_a_mistake_can_still_be_made(mutant: Mutant) -> None:
    """Each mutant applies exactly once to the source as it stands."""
    mutant.check()
