"""A data file that goes away or changes while a run reads it, at the command line.

Where rows still come from the file, its size, time and inode are compared before and after each pass, and a read that
fails is told: exit code 3, one line, and what the last iteration reached on good rows is saved. Rows that are all in
memory need no file. A file whose name is gone is read as before.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from in_process import Ended, Theta_of, gpubp, newest
from raw_rows import later

from gpubp import prepare
from gpubp.data.rows import Rows
from gpubp.recording import Recorder

LAYOUTS: dict[str, dict[str, Any]] = {"contiguous": {}, "chunked": {"chunks": (100, 12), "compression": "gzip"}}
STREAMED, KEPT = ("--memory", "1KB"), ("--memory", "1GB")


def data(path: Path, seed: int = 0, m: int = 3000, **layout: Any) -> Path:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(m, 12)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=X, **layout)
        file["y"] = (X[:, 0] * X[:, 1] + 0.3 * rng.normal(size=m) > 0).astype(np.uint8)
    return path


def options(*files: Path) -> list[object]:
    return ["-q", "train", *files, "--hidden", "4", "--iterations", "7", "--backend", "cpu", "--kernel", "numpy"]


def unlink(path: Path) -> None:
    path.unlink()


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def shrink_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def change(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"other bytes")
    later(path)


def replace(path: Path) -> None:
    other = data(path.with_name("other.h5"), seed=1)
    os.replace(other, path)


def unmount(path: Path) -> None:
    """As seen by who comes later: the folder is there, and empty."""
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.mkdir()


CHANGES = {shrink: "had .* bytes when it was opened", shrink_to_nothing: "had .* bytes when it was opened",
           grow: "had .* bytes when it was opened", change: "was written to after it was opened",
           replace: "was replaced by another file"}  # fmt: skip
VANISHES = (unlink, unmount)


def once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, do: Callable[[], Any]) -> None:
    """Before that call of a function, counted from 1, something happens."""
    real, calls = getattr(owner, name), [0]

    def called(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            do()
        return real(*arguments, **more)

    monkeypatch.setattr(owner, name, called)


class Case:
    """A data file, what an undisturbed run makes of it, and a copy to put back."""

    def __init__(self, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, **layout: Any) -> None:
        (tmp_path / "data").mkdir()
        self.path = data(tmp_path / "data" / "d.h5", **layout)
        self.good = shutil.copy2(self.path, tmp_path / "good.h5")
        self.run, self._capsys, self._monkeypatch = tmp_path / "run", capsys, monkeypatch
        gpubp(capsys, *options(self.path), "--out", tmp_path / "whole")
        self.wanted = Theta_of(tmp_path / "whole")

    def train(self, fault: Callable[[Path], None], place: tuple[Any, str, int], memory: tuple[str, str]) -> Ended:
        with self._monkeypatch.context() as patch:
            once(patch, *place, lambda: fault(self.path))
            return gpubp(self._capsys, *options(self.path), *memory, "--out", self.run, code=None)

    def resumed(self) -> bool:
        """Once the file is as it was, the run goes on to the bits of the undisturbed one."""
        self.path.parent.mkdir(exist_ok=True)
        self.path.unlink(missing_ok=True)
        shutil.copy2(self.good, self.path)
        gpubp(self._capsys, "-q", "resume", self.run)
        return Theta_of(self.run) == self.wanted and newest(self.run) == 7


@pytest.fixture(params=list(LAYOUTS))
def case(request: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(tmp_path, capsys, monkeypatch, **LAYOUTS[request.param])


# Where in a run something happens: the call before which it does, and the last finished iteration.
BETWEEN = (Recorder, "note", 4), 4  # as an iteration ends, before the next pass
IN_A_PASS = (Rows, "read", 9), None


@pytest.mark.parametrize("where", [BETWEEN, IN_A_PASS], ids=["between passes", "in a pass"])
@pytest.mark.parametrize("fault", CHANGES, ids=lambda f: f.__name__)
def test_a_file_that_changes_under_a_run_that_reads_it_ends_the_run_which_goes_on(case, fault, where):
    place, iteration = where
    ended = case.train(fault, place, STREAMED)
    assert ended.code == 3 and str(case.path) in ended.line
    assert re.search(CHANGES[fault], ended.line), ended.line  # also where rows of it could not be read any more
    left = newest(case.run)
    done = (case.run / "history.jsonl").read_text().count("\n")
    assert left == done and left == (done if iteration is None else iteration)
    assert f"checkpoint-{left:08}.h5 is kept: gpubp resume {case.run}" in ended.line
    assert case.resumed()


@pytest.mark.parametrize("fault", VANISHES, ids=lambda f: f.__name__)
def test_a_file_whose_name_is_gone_is_read_as_before(case, fault):
    ended = case.train(fault, BETWEEN[0], STREAMED)
    assert ended.code == 0 and Theta_of(case.run) == case.wanted


@pytest.mark.parametrize("fault", [*CHANGES, *VANISHES], ids=lambda f: f.__name__)
def test_rows_in_memory_need_no_file(case, fault):
    ended = case.train(fault, BETWEEN[0], KEPT)
    assert ended.code == 0 and Theta_of(case.run) == case.wanted and newest(case.run) == 7


@pytest.mark.parametrize("memory", [STREAMED, KEPT], ids=["streamed", "kept"])
@pytest.mark.parametrize("fault", CHANGES, ids=lambda f: f.__name__)
def test_a_file_that_changes_between_the_first_look_and_training(case, fault, memory):
    """Rows that are in memory by then are good; others are compared before the first pass."""
    ended = case.train(fault, (_run(), "fit", 1), memory)
    if memory is KEPT:
        assert ended.code == 0 and Theta_of(case.run) == case.wanted
    else:
        assert ended.code == 3 and re.search(CHANGES[fault], ended.line) and newest(case.run) == -1


def _run() -> Any:
    import gpubp.sitting

    return gpubp.sitting


@pytest.mark.parametrize("fault", CHANGES, ids=lambda f: f.__name__)
def test_a_file_that_changes_during_the_first_look(case, fault):
    ended = case.train(fault, (prepare, "scan", 1), STREAMED)
    assert ended.code == 3 and str(case.path) in ended.line and not case.run.exists(), ended


@pytest.mark.parametrize("fault", [*CHANGES, *VANISHES], ids=lambda f: f.__name__)
def test_a_file_that_changed_before_a_resume_is_refused_and_nothing_is_lost(case, fault, capsys):
    with_stop = case.train(lambda path: None, BETWEEN[0], STREAMED)
    assert with_stop.code == 0
    shutil.rmtree(case.run)
    gpubp(capsys, *options(case.path), "--iterations", "4", "--out", case.run)
    before = {p.name: p.read_bytes() for p in case.run.glob("*.h5")}
    fault(case.path)
    ended = gpubp(capsys, "-q", "resume", case.run, "--iterations", "7", code=None)
    if fault is grow or (fault is shrink and ended.code == 0):  # what is not of the rows is not looked at
        assert ended.code == 0 and Theta_of(case.run) == case.wanted
        return
    assert ended.code == 3 and str(case.path) in ended.line, ended
    assert {p.name: p.read_bytes() for p in case.run.glob("*.h5")} == before
    gpubp(capsys, "-q", "resume", case.run, "--iterations", "7", "--data", case.good)
    assert Theta_of(case.run) == case.wanted


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_does_not_give_the_rows_ends_the_run_which_goes_on(case, monkeypatch, capsys, number):
    """An I/O error, a file handle that the server of an NFS does not know any more, a right that was taken."""
    real, broken = os.preadv, [False]

    def preadv(*arguments: Any) -> int:
        if broken[0]:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    with monkeypatch.context() as disk:
        disk.setattr(os, "preadv", preadv)
        ended = case.train(lambda path: broken.__setitem__(0, True), BETWEEN[0], STREAMED)
    assert ended.code == 3 and os.strerror(number) in ended.line and "rows 0 to" in ended.line and newest(case.run) == 4
    assert case.resumed()


def test_one_of_several_files_is_named(tmp_path, capsys, monkeypatch):
    files = [data(tmp_path / f"{i}.h5", seed=i, m=1000) for i in range(3)]
    gpubp(capsys, *options(*files), "--out", tmp_path / "whole")
    good, run = shutil.copy2(files[1], tmp_path / "good"), tmp_path / "run"
    with monkeypatch.context() as patch:
        once(patch, Recorder, "note", 4, lambda: change(files[1]))
        ended = gpubp(capsys, *options(*files), *STREAMED, "--out", run, code=3)
    assert ended.line.startswith(f"{files[1]} was written to") and newest(run) == 4
    shutil.copy2(good, files[1])
    gpubp(capsys, "-q", "resume", run)
    assert Theta_of(run) == Theta_of(tmp_path / "whole")


def test_no_row_of_a_training_comes_by_a_map_of_its_file():
    """A map of a file that shrinks ends the process by SIGBUS, without a word. Only conversions map files."""
    package = Path(prepare.__file__).parent
    maps = re.compile(r"\bmemmap\(|\bmmap\.mmap\(|mmap_mode")
    texts = {str(p.relative_to(package)): p.read_text() for p in package.rglob("*.py")}
    # of no file: memory that begins at a page
    found = {name for name, text in texts.items() if maps.search(text.replace("mmap.mmap(-1,", ""))}
    assert found == {
        "data/formats/__init__.py", "data/formats/_rows.py", "data/formats/mat.py", "data/formats/svmlight.py",
        "data/relayout.py",
    }  # fmt: skip
