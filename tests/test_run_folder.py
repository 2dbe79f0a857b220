"""A run's folder holds a whole checkpoint at every instant, lets one trainer in, and deletes nothing of others."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import ENVIRONMENT
from test_checkpoint import assert_same, record

from gpubp import run_folder
from gpubp.checkpoint import guard, warn_once, write
from gpubp.errors import CheckpointError, MismatchError, UsageError
from gpubp.run_folder import RunFolder, find_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def holding(path: Path, *iterations: int) -> Path:
    """A run folder with these checkpoints."""
    with RunFolder(path) as folder:
        for i in iterations:
            folder.save(record(i), keep=99)
    return path


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else b"" for p in sorted(path.rglob("*"))}


def iterations(path: Path) -> list[str]:
    return [p.stem.removeprefix("checkpoint-").lstrip("0") for p in sorted(path.glob("*checkpoint-*.h5"))]


# Saving and finding -------------------------------------------------------------------------------------------------


def test_the_last_few_are_kept_and_the_newest_is_found(run):
    with RunFolder(run / "deep" / "er") as folder:
        for i in (1, 2, 9, 10, 100):
            assert folder.save(record(i)).name == f"checkpoint-{i:08d}.h5"
        assert [p.name[-6:-3] for p in folder.checkpoints()] == ["009", "010", "100"]
        for found in (folder.newest(), find_checkpoint(folder.path), find_checkpoint(folder.checkpoints()[-1])):
            assert found.path == folder.path / "checkpoint-00000100.h5" and found.rejected == []
            assert_same(found.checkpoint, record(100))
        folder.save(record(101), keep=1)
        assert [p.name[-6:-3] for p in folder.checkpoints()] == ["101"]
        with pytest.raises(UsageError, match="0 checkpoints to keep"):
            folder.save(record(102), keep=0)
        folder.save(record(2, iteration=123_456_789))
        assert folder.newest().checkpoint.iteration == 123_456_789


def test_damaged_ones_are_passed_over_named_and_removed_when_the_run_has_gone_on(run):
    holding(run, 10, 20, 30, 40)
    (run / "checkpoint-00000040.h5").write_bytes(b"")
    with open(run / "checkpoint-00000030.h5", "r+b") as file:
        file.seek(3000)
        file.write(b"?")
    before = content(run)
    path, checkpoint, rejected = find_checkpoint(run)
    assert path.name == "checkpoint-00000020.h5" and checkpoint.iteration == 20
    assert [p.name for p, _ in rejected] == ["checkpoint-00000040.h5", "checkpoint-00000030.h5"]
    assert "empty" in rejected[0][1] and "digest" in rejected[1][1]
    assert content(run) == before
    with RunFolder(run, must_exist=True) as folder:
        folder.save(record(25), keep=2)
    assert iterations(run) == ["20", "25"]


def test_a_temporary_file_of_a_killed_process_that_had_our_number_is_no_hindrance(run):
    """In a container every trainer is process 1; where a file system has no locks nothing is swept."""
    with RunFolder(run) as folder:
        (run / f".checkpoint-00000001.h5.tmp.{os.getpid()}").write_bytes(b"of a killed one")
        folder.save(record(1))
    assert sorted(content(run)) == ["checkpoint-00000001.h5", "lock"]


def test_without_a_sound_one_each_is_named(run):
    holding(run, 1, 2)
    for path in run.glob("*.h5"):
        os.truncate(path, 700)
    with pytest.raises(
        CheckpointError, match=r"no sound .*-00000002\.h5 is dam.*-00000001\.h5 is dam.*overwrite"
    ) as no:
        find_checkpoint(run)
    assert "an earlier" not in str(no.value)  # there is none


def test_a_checkpoint_of_a_newer_gpubp_is_not_passed_over(run, monkeypatch):
    holding(run, 1)
    with monkeypatch.context() as newer:
        newer.setattr(guard, "FORMAT", 3)
        holding(run, 2)
    with pytest.raises(MismatchError, match="format 3"):
        find_checkpoint(run)


@pytest.mark.parametrize(("make", "says"), [(lambda p: None, "No such file"), (Path.mkdir, "holds no checkpoint")])
def test_where_nothing_is_nothing_is_found(run, make, says):
    make(run)
    with pytest.raises(CheckpointError, match=says):
        find_checkpoint(run)


def test_a_reader_is_not_confused_by_a_trainer_at_work(run, monkeypatch):
    holding(run, 1)
    real = run_folder.read

    def read_late(path: Path) -> Any:
        if path.name == "checkpoint-00000001.h5":  # between the reader's look and its reading, the trainer saves
            with RunFolder(run) as folder:
                folder.save(record(2), keep=1)
        return real(path)

    monkeypatch.setattr(run_folder, "read", read_late)
    found = find_checkpoint(run)
    assert found.checkpoint.iteration == 2 and found.rejected == []


def test_an_old_one_that_cannot_be_removed_does_not_end_the_run(run, monkeypatch, caplog):
    holding(run, 1)
    real = os.unlink

    def unlink(path: Any, *more: Any, **options: Any) -> None:
        if str(path).endswith("00000001.h5"):
            raise OSError(errno.EIO, "Input/output error")
        real(path, *more, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    with RunFolder(run) as folder:
        folder.save(record(2), keep=1)
    assert "cannot remove" in caplog.text and find_checkpoint(run).checkpoint.iteration == 2


# Who may write ------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from gpubp.run_folder import RunFolder
with RunFolder(sys.argv[1]):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    with process:
        assert process.stdout and process.stdout.readline() == "in\n"
        yield process
        process.kill()


@pytest.mark.parametrize("kill", [True, False])
def test_one_trainer_at_a_time_and_the_lock_dies_with_it(run, holder, kill):
    (run / ".checkpoint-00000001.h5.tmp.1").write_bytes(b"of a trainer at work")
    before = content(run)
    for must_exist in (False, True):
        if must_exist:
            write(run / "checkpoint-00000001.h5", record(1))
            before = content(run)
        with (
            pytest.raises(CheckpointError, match=f"in use by process {holder.pid} on "),
            RunFolder(run, must_exist=must_exist),
        ):
            pass
        assert content(run) == before
    assert find_checkpoint(run).checkpoint.iteration == 1  # readers need no lock
    if kill:
        holder.kill()
        holder.wait()
    else:
        holder.communicate("")
    with RunFolder(run):
        assert f"process {os.getpid()} on " in (run / "lock").read_text()
    with RunFolder(run):
        pass


def test_who_comes_before_the_holder_has_written_its_name_is_told_it_all_the_same(run, holder, monkeypatch):
    real, name = time.sleep, (run / "lock").read_text()
    (run / "lock").write_text("gpubp process 1 on a-machine-of-before\n")

    def sleep(seconds: float) -> None:
        (run / "lock").write_text(name)  # only now the holder writes
        real(0)

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(CheckpointError, match=f"in use by process {holder.pid} on "), RunFolder(run):
        pass


def test_the_lock_says_who_has_it_now(run):
    run.mkdir()
    (run / "lock").write_text("gpubp process 12345678901234567890 on a-machine-with-a-long-name.example.org\n")
    with RunFolder(run):
        assert (run / "lock").read_text() == f"gpubp process {os.getpid()} on {socket.gethostname()}\n"


def test_a_failure_inside_gives_the_lock_back(run):
    with pytest.raises(ZeroDivisionError), RunFolder(run) as folder:
        folder.append_history({"iteration": 1})
        raise ZeroDivisionError
    with RunFolder(run):
        pass


def test_temp_files_of_a_dead_trainer_are_swept_and_no_others(run):
    run.mkdir()
    ours = [".checkpoint-00000001.h5.tmp.17", ".history.jsonl.tmp.123456"]
    theirs = [".notes.tmp.17", ".checkpoint-00000001.h5.tmp.old", "checkpoint-00000001.h5.tmp.1", ".answers.h5.tmp.1"]
    for name in ours + theirs:
        (run / name).write_text(name)
    with RunFolder(run):
        assert sorted(os.listdir(run)) == sorted([*theirs, "lock"])


def test_without_locks_one_warning_and_no_sweep(run, monkeypatch, caplog):
    run.mkdir()
    temporary = run / ".checkpoint-00000001.h5.tmp.17"
    temporary.write_text("perhaps of a trainer on another machine")

    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    warn_once.cache_clear()
    for i in (1, 2):
        with RunFolder(run) as folder:
            folder.save(record(i))
    assert [r.name for r in caplog.records] == ["gpubp"] and "no locks" in caplog.text
    assert temporary.exists() and find_checkpoint(run).checkpoint.iteration == 2


def test_a_lock_file_of_another_program_is_left_alone(run):
    run.mkdir()
    (run / "lock").write_text("of a database\n")
    with pytest.raises(CheckpointError, match="lock is not gpubp's"), RunFolder(run):
        pass
    assert content(run) == {"lock": b"of a database\n"}


# Who may begin ------------------------------------------------------------------------------------------------------


def foreign(run: Path) -> None:
    run.mkdir()
    (run / "thesis.tex").write_text("ten years")


def died_early(run: Path) -> None:
    with RunFolder(run) as folder:
        folder.append_history({"iteration": 1})
    (run / "notes.txt").write_text("mine")
    (run / ".checkpoint-00000001.h5.tmp.1").write_text("half")


@pytest.mark.parametrize(
    ("make", "new", "overwriting"),
    [
        (lambda p: None, None, None),
        (Path.mkdir, None, None),
        (lambda p: holding(p), None, None),
        (died_early, None, None),
        (foreign, "holds thesis.tex and no run", None),
        (lambda p: holding(p, 3, 12), "holds checkpoint-00000012.h5; .*gpubp resume .*--overwrite", None),
        (lambda p: p.write_text("x"), "is no folder", "is no folder"),
        (lambda p: p.symlink_to("nowhere"), "is no folder", "is no folder"),
    ],
)
def test_which_folders_a_new_run_may_use(run, make, new, overwriting):
    make(run)
    before = content(run.parent)
    for overwrite, says in ((False, new), (True, overwriting)):
        for _ in range(2):
            if says is None:
                RunFolder.check(run, overwrite=overwrite)
            else:
                with pytest.raises(CheckpointError, match=says):
                    RunFolder.check(run, overwrite=overwrite)
    assert content(run.parent) == before
    if "is no folder" not in (new or ""):
        with RunFolder(run) as folder:
            if new is None:
                folder.refuse_if_used(False)
            else:
                with pytest.raises(CheckpointError, match=new):
                    folder.refuse_if_used(False)
            folder.refuse_if_used(True)
        kept = {k: v for k, v in content(run.parent).items() if k not in ("run", "run/lock") and ".tmp." not in k}
        assert kept == {k: v for k, v in before.items() if k not in ("run", "run/lock") and ".tmp." not in k}
    else:
        with pytest.raises(CheckpointError, match="is no folder"), RunFolder(run):
            pass
        assert content(run.parent) == before


@pytest.mark.parametrize(
    ("make", "says"),
    [(lambda p: None, "not exist"), (foreign, "holds no checkpoint"), (lambda p: p.write_text("x"), "is no folder")],
)
def test_where_there_is_nothing_to_go_on_with_nothing_is_made(run, make, says):
    make(run)
    before = content(run.parent)
    with pytest.raises(CheckpointError, match=says), RunFolder(run, must_exist=True):
        pass
    assert content(run.parent) == before


def test_who_names_a_checkpoint_to_go_on_with_is_told_of_its_folder(run):
    path = holding(run, 1) / "checkpoint-00000001.h5"
    with pytest.raises(CheckpointError, match=f"is no folder; wanted a run folder; name its folder, {run}$"):
        RunFolder(path, must_exist=True).__enter__()


def test_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    below = tmp_path / "file" / "run"
    with pytest.raises(CheckpointError, match=r"cannot write in .*: Not a directory"), RunFolder(below):
        pass
    with pytest.raises(CheckpointError, match="File name too long"):
        RunFolder.check(tmp_path / ("x" * 300))


# Overwriting --------------------------------------------------------------------------------------------------------


def test_an_overwritten_run_is_there_until_the_first_save_and_then_gone(run):
    holding(run, 50, 100)
    (run / "notes.txt").write_text("mine")
    before = content(run)
    with RunFolder(run) as folder:
        folder.refuse_if_used(overwrite=True)
        assert content(run) == before | {"lock": (run / "lock").read_bytes()}
        folder.save(record(3))
        folder.save(record(100))  # the same name as an earlier one
        folder.save(record(5))
    assert sorted(os.listdir(run)) == ["checkpoint-00000003.h5", "checkpoint-00000005.h5", "lock", "notes.txt"]


def test_a_first_save_that_fails_leaves_the_overwritten_run(run, monkeypatch):
    holding(run, 50, 100)
    with RunFolder(run) as folder:
        folder.refuse_if_used(overwrite=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
            with pytest.raises(CheckpointError, match="No space left"):
                folder.save(record(3))
        assert_same(folder.newest().checkpoint, record(100))
    with pytest.raises(CheckpointError, match="holds replaced-checkpoint-00000100"):
        RunFolder.check(run)
    with RunFolder(run, must_exist=True) as folder:  # the person changes their mind: the earlier run goes on
        assert folder.newest().checkpoint.iteration == 100
        folder.save(record(101))
    assert iterations(run) == ["101"]


# History ------------------------------------------------------------------------------------------------------------


def test_history_is_one_json_line_for_each_iteration(run):
    rows = [{"iteration": i, "J": 0.1 * i, "validation": None} for i in range(5)]
    with RunFolder(run) as folder:
        folder.rewrite_history([])
        for n, row in enumerate(rows, start=1):
            folder.append_history(row)
            lines = (run / "history.jsonl").read_text().splitlines()  # seen at once, while the run goes on
            assert [json.loads(line) for line in lines] == rows[:n]
        folder.append_history({"J": float("nan"), "gradient": float("-inf")})
    assert (run / "history.jsonl").read_text().splitlines()[-1] == '{"J": null, "gradient": null}'
    with open(run / "history.jsonl", "a") as file:
        file.write('{"iteration": 6, "J"')  # killed here
    with RunFolder(run) as folder:
        folder.append_history({"iteration": 7})
        folder.rewrite_history(rows[:2])  # back to the checkpoint
        folder.append_history(rows[2])
    assert [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()] == rows[:3]
