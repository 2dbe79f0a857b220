"""Run folders on odd or hostile file systems, at the command line: one warning or one line, and nothing is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import Theta_of, gpubp, newest
from running import ENVIRONMENT, Result, write

from gpubp.run_folder import RunFolder


@pytest.fixture
def train(tmp_path: Path) -> list[object]:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(200, 5)).astype(np.float32)
    path = write(tmp_path / "d.h5", X=X, y=(X[:, 0] > 0).astype(np.uint8))
    return ["-q", "train", path, "--hidden", "3", "--iterations", "4", "--checkpoint-every", "2it", "--backend", "cpu",
            "--kernel", "numpy", "--out"]  # fmt: skip


def no_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def no_folder_sync(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(number, os.strerror(number))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)


LOCKS, SYNC = "has no locks: see that no second trainer", "cannot sync a folder: a power cut may lose"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_is_warned_of_once_and_trains(train, tmp_path, capsys, monkeypatch, number):
    """NFS whose lock daemon is gone: ENOLCK; Lustre mounted without -o flock: ENOSYS; others: ENOTSUP, EINVAL."""
    gpubp(capsys, *train, tmp_path / "whole")
    no_locks(monkeypatch, number)
    run = tmp_path / "run"
    ended = gpubp(capsys, *train, run, "--iterations", "2")
    again = gpubp(capsys, "-q", "resume", run, "--iterations", "4")
    for one in (ended, again):
        assert len(one.warnings) == 1 and LOCKS in one.warnings[0] and str(run) in one.warnings[0], one.log
    assert Theta_of(run) == Theta_of(tmp_path / "whole")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_a_folder_is_warned_of_once_and_trains(
    train, tmp_path, capsys, monkeypatch, number
):
    """SMB before Linux 4.18 and some of FUSE: EINVAL; others: ENOTSUP, ENOSYS."""
    gpubp(capsys, *train, tmp_path / "whole")
    no_folder_sync(monkeypatch, number)
    run = tmp_path / "run"
    ended = gpubp(capsys, *train, run, "--iterations", "3", "--checkpoint-every", "1it")  # five saves
    again = gpubp(capsys, "-q", "resume", run, "--iterations", "4")
    for one in (ended, again):
        assert len(one.warnings) == 1 and SYNC in one.warnings[0], one.log
    assert Theta_of(run) == Theta_of(tmp_path / "whole")


def test_a_file_system_that_can_neither_is_warned_of_once_for_each(train, tmp_path, capsys, monkeypatch):
    no_locks(monkeypatch, errno.ENOSYS)
    no_folder_sync(monkeypatch, errno.EINVAL)
    ended = gpubp(capsys, *train, tmp_path / "run")
    assert sorted(LOCKS in line for line in ended.warnings) == [False, True] and newest(tmp_path / "run") == 4


def test_a_lock_that_is_refused_for_another_reason_is_an_error(train, tmp_path, capsys, monkeypatch):
    no_locks(monkeypatch, errno.EIO)
    ended = gpubp(capsys, *train, tmp_path / "run", code=3)
    assert ended.line == f"cannot write in {tmp_path}/run: Input/output error" and newest(tmp_path / "run") == -1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_takes_nothing_from_the_start(train, tmp_path, capsys, monkeypatch, number):
    gpubp(capsys, *train, tmp_path / "whole")
    real, run = os.write, tmp_path / "run"

    def full(fd: int, data: Any) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(run)):
            raise OSError(number, os.strerror(number))
        return real(fd, data)

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        ended = gpubp(capsys, *train, run, code=3)
    assert os.strerror(number) in ended.line and str(run) in ended.line
    assert newest(run) == -1 and [p.name for p in run.iterdir()] == ["lock"]
    gpubp(capsys, *train, run)  # as if nothing had been
    assert Theta_of(run) == Theta_of(tmp_path / "whole")


def a_file(run: Path) -> None:
    run.write_text("mine")


def a_dangling_link(run: Path) -> None:
    run.symlink_to(run.with_name("nowhere"))


def below_a_file(run: Path) -> None:
    run.parent.write_text("mine")


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (a_file, "run", "is no folder"),
        (a_dangling_link, "run", "is no folder"),
        (below_a_file, "file/run", "Not a directory"),
        (None, "n" * 300, "File name too long"),
    ],
)
def test_a_run_that_cannot_be_a_folder_is_one_line_before_any_work(train, tmp_path, capsys, make, name, says):
    run = tmp_path / name
    if make:
        make(run)
    for command in ([*train, run], ["-q", "resume", run]):
        ended = gpubp(capsys, *command, code=3)
        missing = command[1] == "resume" and "does not exist; wanted a run folder" in ended.line
        assert (says in ended.line or missing) and str(run) in ended.line, ended.line
    assert not (tmp_path / "nowhere").exists()


def test_missing_parents_are_made(train, tmp_path, capsys):
    gpubp(capsys, *train, tmp_path / "a" / "b" / "run")
    assert newest(tmp_path / "a" / "b" / "run") == 4


def test_two_trainers_on_one_folder(train, tmp_path, capsys):
    run = tmp_path / "run"
    gpubp(capsys, *train, run, "--iterations", "2")
    before = {p.name: p.read_bytes() for p in run.glob("*.h5")}
    with RunFolder(run):
        for command in ([*train, run, "--overwrite"], ["-q", "resume", run, "--iterations", "4"]):
            ended = gpubp(capsys, *command, code=3)
            assert f"{run} is in use by process {os.getpid()}" in ended.line and "one trainer at a time" in ended.line
    assert {p.name: p.read_bytes() for p in run.glob("*.h5")} == before
    gpubp(capsys, "-q", "resume", run, "--iterations", "4")
    assert newest(run) == 4


# Rights: root may do anything, so the commands run without that privilege -------------------------------------------


def without_privilege(*arguments: object, cwd: Path) -> Result:
    command = [sys.executable, "-m", "gpubp", *map(str, arguments)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv to give that up")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=120)
    return Result(done.args, done.returncode, done.stdout, done.stderr)


def test_folders_that_may_only_be_read(train, tmp_path, capsys):
    gpubp(capsys, *train, tmp_path / "whole")
    run, closed = tmp_path / "run", tmp_path / "closed"
    gpubp(capsys, *train, run, "--iterations", "2")
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    closed.mkdir()
    for folder in (run, closed):
        folder.chmod(0o555)
    (run / "lock").chmod(0o444)
    try:
        new = without_privilege(*train, closed / "run", cwd=tmp_path)
        assert new.returncode == 3 and new.error == f"cannot write in {closed}/run: Permission denied"
        inside = without_privilege(*train, closed, cwd=tmp_path)
        assert inside.returncode == 3 and inside.error == f"cannot write in {closed}: Permission denied"
        go_on = without_privilege("-q", "resume", run, "--iterations", "4", cwd=tmp_path)
        assert go_on.returncode == 3 and go_on.error == f"cannot write in {run}: Permission denied"
        assert without_privilege("info", run, cwd=tmp_path).returncode == 0  # readers need no more
        assert {p.name: p.read_bytes() for p in run.iterdir()} == before and list(closed.iterdir()) == []
    finally:
        for folder in (run, closed):
            folder.chmod(0o755)
        (run / "lock").chmod(0o644)
    gpubp(capsys, "-q", "resume", run, "--iterations", "4")
    assert Theta_of(run) == Theta_of(tmp_path / "whole")


def test_a_data_file_that_may_not_be_read(train, tmp_path, capsys):
    run, path = tmp_path / "run", tmp_path / "d.h5"
    gpubp(capsys, *train, run, "--iterations", "2")
    path.chmod(0)
    new = without_privilege(*train, tmp_path / "new", cwd=tmp_path)
    assert new.returncode == 2 and f"'{path}' is not readable" in new.error  # an argument that cannot be meant
    go_on = without_privilege("-q", "resume", run, "--iterations", "4", cwd=tmp_path)
    assert go_on.returncode == 3 and f"{path}: Permission denied" in go_on.error
    assert newest(run) == 2 and not (tmp_path / "new").exists()
    path.chmod(0o644)
    gpubp(capsys, "-q", "resume", run, "--iterations", "4")
    assert newest(run) == 4
