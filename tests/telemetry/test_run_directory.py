"""The directory that workers share: private, found by all, gone with the last."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.support.world import world
from trio_ai_stream.app_factory import count
from trio_ai_stream.server import launch
from trio_ai_stream.telemetry import run_directory
from trio_ai_stream.telemetry.run_directory import RunDirectory, join_run_directory


class Parent:
    """Stands for `multiprocessing.parent_process()` of a worker."""

    pid = 4711


def test_a_lone_process_shares_nothing() -> None:
    """Without a parent that starts workers there is no directory."""
    assert join_run_directory() is None


def test_workers_of_one_parent_share_a_private_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Siblings get the same directory, mode 0700; the last to leave removes it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(multiprocessing, "parent_process", Parent)
    first, second = join_run_directory(), join_run_directory()
    assert first is not None
    assert second is not None
    assert first.path == second.path
    assert first.path.stat().st_mode & 0o777 == 0o700
    first.close()
    first.close()
    assert second.path.is_dir()
    second.close()
    assert not second.path.exists()


async def test_files_in_use_do_not_grow_old(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or systemd-tmpfiles removes them: workers lost each other after ten days."""
    monkeypatch.setattr(run_directory, "TOUCH_S", 10.0)
    shared = RunDirectory(tmp_path / "shared")
    paths = [shared.path / name for name in ("alive", "metrics-1.bin", "peer-1.sock")]
    (shared.path / "a").symlink_to("a")  # one that cannot be touched ends nothing
    for path in paths:
        path.touch()
        os.utime(path, (0, 0))
    async with world() as w, trio.open_nursery() as nursery:
        nursery.start_soon(count, w.services, shared)
        await trio.sleep(11)
        assert all(path.stat().st_mtime > 0 for path in paths)
        nursery.cancel_scope.cancel(reason="the worker ends")


def test_workers_of_our_own_launch_are_known_by_their_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the launch gives its workers is what this room looks for."""
    assert run_directory.WORKER_VARIABLE == launch.LISTEN_VARIABLE
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv(launch.LISTEN_VARIABLE, "3")
    joined = join_run_directory()
    assert joined is not None
    assert joined.path.name.endswith(f"-{os.getppid()}")
    joined.close()


def test_workers_share_files_where_their_parent_found_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later worker would find another place if that one has become full."""
    assert run_directory.BASE_VARIABLE == launch.SHARED_FILES_VARIABLE
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    monkeypatch.setenv(launch.LISTEN_VARIABLE, "3")
    monkeypatch.setenv(launch.SHARED_FILES_VARIABLE, str(tmp_path))
    joined = join_run_directory()
    assert joined is not None
    assert joined.path.parent == tmp_path
    joined.close()


def test_a_dead_servers_directory_is_removed_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that nobody holds is cleared away; a held one is not."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(multiprocessing, "parent_process", Parent)
    dead = tmp_path / f"trio-ai-stream-{os.getuid()}-4711"
    dead.mkdir(mode=0o700)
    (dead / "alive").touch()
    (dead / "metrics-1-x.bin").touch()
    living = RunDirectory(tmp_path / f"trio-ai-stream-{os.getuid()}-4712")
    joined = join_run_directory()
    assert joined is not None
    assert [path.name for path in joined.path.iterdir()] == ["alive"]
    assert living.path.is_dir()
    joined.close()
    living.close()


def test_one_that_comes_while_the_last_leaves_has_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that joins as another removes the directory does not lose its own."""
    path = tmp_path / "shared"
    came: list[RunDirectory] = []
    rmtree, close = shutil.rmtree, os.close

    def remove(going: Path, *, ignore_errors: bool) -> None:
        came.append(RunDirectory(path))  # between the look and the removal
        rmtree(going, ignore_errors=ignore_errors)

    def let_go(descriptor: int) -> None:
        assert came, "the lock was given up before the directory was gone"
        close(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", remove)
        last = RunDirectory(path)
        patched.setattr(os, "close", let_go)
        last.close()
    assert [child.name for child in path.iterdir()] == ["alive"]
    came[0].close()
    assert list(tmp_path.iterdir()) == []


def test_one_that_finds_a_directory_just_before_it_goes_makes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one leaves between the look and the next: the start failed."""
    path = tmp_path / "shared"
    last, lstat = RunDirectory(path), Path.lstat

    def leave_first(self: Path) -> os.stat_result:
        last.close()
        return lstat(self)

    monkeypatch.setattr(Path, "lstat", leave_first)
    joined = RunDirectory(path)
    assert path.is_dir()
    joined.close()


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Somebody else's directory under our name is an error that says what to do."""
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(PermissionError, match="mode 0700"):
        RunDirectory(path)
