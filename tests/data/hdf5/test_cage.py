"""What the process that works on a file still can do, if the file made it do whatever it liked.

`survey` is replaced by a function that tries. Every limit is looked at with the others away: two hold, and each alone.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpubp.data.hdf5 import cage, survey, warden
from gpubp.data.hdf5.wire import Ended, receive, send

X = np.arange(12, dtype="f4").reshape(4, 3)
without_filter = pytest.mark.skipif(cage._MACHINES.get(os.uname().machine) is None, reason="no filter for this machine")


@pytest.fixture
def cellmate(h5, tmp_path, monkeypatch):
    """`cellmate(tries)`: what `tries(folder)`, called in place of `survey`, answers; or how the process ended."""

    def run(tries: Callable[[Path], Any], **removed: Any) -> Any:
        path = h5({"X": X})
        for name, instead in removed.items():
            monkeypatch.setattr(cage, name, instead)
        monkeypatch.setattr(survey, "survey", lambda *_: ([], {"said": tries(tmp_path)}))
        (tmp_path / "secret.txt").write_text("secret")
        ours, theirs = socket.socketpair()
        fd = os.open(path, os.O_RDONLY)
        pid = os.fork()
        if pid == 0:
            ours.close()
            warden._child(fd, theirs.detach(), str(path))
        os.close(fd)
        theirs.close()
        with ours:
            ours.settimeout(20)
            try:
                assert receive(ours)[0] == {"open": True}
                send(ours, {"ask": "survey"})
                answer = receive(ours)[0]
            except Ended:
                return signal.Signals(os.WTERMSIG(os.waitpid(pid, 0)[1])).name
        os.waitpid(pid, 0)
        return answer["error"] if "error" in answer else answer["attributes"]["said"]

    return run


def refused(tries: Callable[[], Any]) -> str:
    """The error that the system gives, or what it was good for."""
    try:
        return f"could: {tries()}"
    except OSError as error:
        return error.strerror or "?"


def open_others(folder: Path) -> list[str]:
    return [
        refused(lambda: os.open(folder / "secret.txt", os.O_RDONLY)),
        refused(lambda: os.open("/etc/passwd", os.O_RDONLY)),
        refused(lambda: os.open(folder / "new", os.O_WRONLY | os.O_CREAT)),
        refused(lambda: socket.socket().fileno()),
        refused(lambda: os.dup(0)),
        refused(os.pipe),
    ]


def do_more(folder: Path) -> list[str]:
    parent = os.getppid()
    return [
        refused(os.fork),
        refused(lambda: os.execv("/bin/true", ["true"])),
        refused(lambda: os.kill(parent, 0)),
        refused(lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE)),
        refused(lambda: os.unlink(folder / "secret.txt")),
        refused(lambda: os.rename(folder / "secret.txt", folder / "taken")),
        refused(lambda: os.mkdir(folder / "new")),
        refused(lambda: os.chmod(folder / "secret.txt", 0o777)),
        refused(lambda: os.truncate(folder / "secret.txt", 0)),
    ]


def test_no_other_file(cellmate):
    assert {*cellmate(open_others)} <= {"Operation not permitted", "Too many open files", "Invalid argument"}


def test_no_other_file_by_the_number_of_descriptors_alone(cellmate):
    said = cellmate(open_others, no_programs=lambda **_: False)
    assert {*said} == {"Too many open files", "Invalid argument"}  # the other is what fcntl says


@without_filter
def test_no_other_file_by_the_filter_alone(cellmate):
    said = cellmate(open_others, no_more_files=lambda: None, one_file_more=lambda: None)
    assert {*said} == {"Operation not permitted"}


@without_filter
def test_nothing_else(cellmate, tmp_path):
    assert {*cellmate(do_more)} == {"Operation not permitted"}
    assert (tmp_path / "secret.txt").read_text() == "secret"


def test_without_the_filter_it_could(cellmate):
    """So the test above can fail."""
    said = cellmate(lambda folder: [refused(lambda: os.mkdir(folder / "new"))], no_programs=lambda **_: False)
    assert said == ["could: None"]


def test_its_own_limits_may_be_set(cellmate):
    assert cellmate(lambda _: refused(lambda: resource.getrlimit(resource.RLIMIT_NOFILE))) == "could: (0, 0)"


@without_filter
def test_while_it_opens_the_file_no_program_is_started_and_one_file_is_all(h5):
    path = h5({"X": X})

    def tries() -> str:
        cage.one_file_more()
        assert cage.no_programs(opening=True)
        os.open(path, os.O_RDONLY)
        return "; ".join([refused(lambda: os.open(path, os.O_RDONLY)), refused(os.fork), refused(lambda: os.kill(1, 0)),
                          refused(lambda: os.mkdir("/tmp/new"))])  # fmt: skip

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, tries().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as said:
        assert said.read() == "Too many open files; " + "; ".join(["Operation not permitted"] * 3)
    os.waitpid(pid, 0)


def test_memory(cellmate, tmp_path):
    # by much more: this process, which it is a fork of, may have much to give back, and a warden has not
    said = cellmate(lambda _: len(bytearray(warden.SURVEY_MEMORY + (4 << 30))))
    assert "more memory than a file of this size" in str(said)
    assert cellmate(lambda _: len(bytearray(warden.SURVEY_MEMORY // 2))) == warden.SURVEY_MEMORY // 2


def test_time(cellmate, monkeypatch):
    monkeypatch.setattr(warden, "LEAST_TIME", 0.3)

    def for_ever(_: Path) -> None:
        while True:
            pass

    since = time.monotonic()
    assert cellmate(for_ever) == "SIGPROF"
    assert time.monotonic() - since < 10


def test_nothing_is_written_where_descriptors_are_left(cellmate, tmp_path):
    """The file itself is open for reading; and what is open for writing cannot grow."""
    kept = os.open(tmp_path / "kept", os.O_WRONLY | os.O_CREAT)
    os.set_inheritable(kept, True)
    try:
        assert cellmate(lambda _: refused(lambda: os.write(kept, b"x"))) in ("SIGXFSZ", "File too large")
    finally:
        os.close(kept)
    assert (tmp_path / "kept").stat().st_size == 0


def test_no_core_is_left(cellmate):
    assert cellmate(lambda _: resource.getrlimit(resource.RLIMIT_CORE)) == [0, 0]


def test_it_ends_with_the_process_that_forked_it():
    script = (
        "import os, time\nfrom gpubp.data.hdf5 import cage\n"
        "pid = os.fork()\nif pid == 0:\n    cage.end_with_parent(); print(os.getpid(), flush=True); time.sleep(60)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        child = int(one.stdout.readline())
        one.kill()
        one.wait()
        assert gone(child)


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
