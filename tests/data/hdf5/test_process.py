"""The processes that read HDF5: started, restarted, killed, forked, interrupted, and gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_cage import gone

from gpubp.data.dataset import open_dataset
from gpubp.data.guard import open_file
from gpubp.data.hdf5 import file as hdf_file
from gpubp.data.hdf5 import process
from gpubp.errors import DataError

ROOT = Path(__file__).parents[3]
X = np.random.default_rng(0).normal(size=(400, 3)).astype("f4")


@pytest.fixture
def packed(tmp_path) -> Path:
    """A file that only HDF5 reads."""
    path = tmp_path / "packed.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=X, chunks=(50, 2), scaleoffset=6)
        file["y"] = np.arange(400) % 3
    return path


def rows(file: hdf_file.HdfFile, start: int, stop: int) -> np.ndarray:
    return np.frombuffer(file.read(file.dataset("X"), start, stop), "f4").reshape(stop - start, 3)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def warden() -> Any:
    return process._wardens[False]


def test_a_question_and_its_answer(packed):
    with open_file(packed) as file:
        assert np.allclose(rows(file, 10, 20), X[10:20], atol=1e-5)
        into = bytearray(24)
        file.read(file.dataset("X"), 7, 9, memoryview(into))
        assert np.allclose(np.frombuffer(into, "f4").reshape(2, 3), X[7:9], atol=1e-5)


def test_the_second_look_at_a_file_starts_no_process(packed, monkeypatch):
    with open_dataset(packed) as data:
        assert data.source.m == 400

    def started(*_: Any, **__: Any) -> None:
        raise RuntimeError("a process was started")

    monkeypatch.setattr(hdf_file, "Parser", started)
    with open_file(packed) as file:
        assert file.dataset("X").shape == (400, 3)
    os.utime(packed, ns=(1, 1))
    with pytest.raises(RuntimeError, match="started"):  # another time: it has to be looked at again
        open_file(packed)


def test_another_file_of_the_same_name_is_looked_at_again(packed, tmp_path):
    with open_file(packed) as file:
        assert file.dataset("X").shape == (400, 3)
    state = packed.stat()
    with h5py.File(tmp_path / "new.h5", "w") as file:
        file["X"] = X[:4]
    (tmp_path / "new.h5").replace(packed)
    os.truncate(packed, state.st_size)
    os.utime(packed, ns=(state.st_atime_ns, state.st_mtime_ns))  # same name, size and time
    with open_file(packed) as file:
        assert file.dataset("X").shape == (4, 3)


def test_if_the_server_was_killed_another_is_started(packed):
    with open_file(packed):
        pass
    first = warden()._process.pid
    os.kill(first, signal.SIGKILL)
    with open_file(packed) as file:
        assert len(rows(file, 0, 5)) == 5
    assert warden()._process.pid != first


def test_a_server_that_does_not_start_is_one_line(packed, monkeypatch, refuses):
    process._end()
    monkeypatch.setattr(process, "_BOOT", "import sys; sys.exit('no \\x1b[2J room')")
    with refuses(DataError, "the process that reads HDF5 files did not start: no \\x1b[2J room"):
        open_file(packed.rename(packed.with_name("again.h5")))
    monkeypatch.undo()
    with open_file(packed.with_name("again.h5")) as file:
        assert len(rows(file, 0, 5)) == 5


def test_a_killed_child_is_said_and_the_next_question_starts_another(packed, refuses):
    with open_file(packed) as file:
        rows(file, 0, 5)
        assert file._parser is not None
        os.kill(file._parser._pid, signal.SIGKILL)
        with refuses(DataError, "packed.h5: the process that reads it was killed", "memory"):
            rows(file, 0, 5)
        assert np.allclose(rows(file, 5, 9), X[5:9], atol=1e-5)


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGSEGV, "crashed (SIGSEGV)"), (signal.SIGPROF, "did not come to an end")]
)
def test_how_a_child_ended_is_said(number, words, packed, refuses):
    with open_file(packed) as file:
        rows(file, 0, 5)
        assert file._parser is not None
        os.kill(file._parser._pid, number)
        with refuses(DataError, "packed.h5 is damaged or made to do harm: the HDF5 library", words):
            rows(file, 0, 5)


def test_a_child_that_does_nothing_is_killed(packed, monkeypatch, refuses):
    monkeypatch.setattr(process, "_WAIT", 0.2)
    with open_file(packed) as file:
        rows(file, 0, 5)
        assert file._parser is not None
        child = file._parser._pid
        os.kill(child, signal.SIGSTOP)
        monkeypatch.setattr(hdf_file, "_SLOWEST", 1e12)
        with refuses(DataError, "did not answer"):
            rows(file, 0, 5)
        assert gone(child)


def test_what_was_interrupted_is_not_taken_for_the_next_answer(packed, monkeypatch):
    """Ctrl-C while a question is out: its answer must not be read as that of the next one."""
    with open_file(packed) as file:
        rows(file, 0, 5)
        plain = process.receive

        def interrupted(*_: Any) -> None:
            monkeypatch.setattr(process, "receive", plain)
            raise KeyboardInterrupt

        monkeypatch.setattr(process, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rows(file, 0, 5)
        assert np.allclose(rows(file, 300, 305), X[300:305], atol=1e-5)


def test_an_interrupted_start_leaves_no_stale_answer(packed, monkeypatch):
    with open_file(packed):
        pass
    plain = process.receive

    def interrupted(*_: Any) -> None:
        monkeypatch.setattr(process, "receive", plain)
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "receive", interrupted)
    os.utime(packed, ns=(2, 2))
    with pytest.raises(KeyboardInterrupt):
        open_file(packed)
    with open_file(packed) as file:
        assert len(rows(file, 0, 5)) == 5


def test_from_many_threads(packed):
    wrong = []
    with open_file(packed) as file:
        file.dataset("X")

        def read(start: int) -> None:
            for at in range(start, 360, 40):
                if not np.allclose(rows(file, at, at + 8), X[at : at + 8], atol=1e-5):
                    wrong.append(at)

        threads = [threading.Thread(target=read, args=(start,)) for start in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert not wrong


def test_in_a_process_that_was_forked(packed):
    """As multiprocessing does it: both go on with the same open file, and do not hear each other's answers."""
    with open_file(packed) as file:
        rows(file, 0, 5)
        server = warden()._process.pid
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                right = all(np.allclose(rows(file, at, at + 5), X[at : at + 5], atol=1e-5) for at in range(0, 300, 7))
                code = 0 if right and warden()._process.pid != server else 2
            finally:
                process._end()
                os._exit(code)
        for at in range(0, 300, 7):
            assert np.allclose(rows(file, at, at + 5), X[at : at + 5], atol=1e-5)
        assert os.waitpid(pid, 0)[1] == 0
        assert warden()._process.pid == server


def test_many_files_leave_no_descriptor_and_no_process_behind(tmp_path):
    with h5py.File(tmp_path / "0.h5", "w") as file:
        file["X"], file["y"] = X, np.arange(400) % 3
    for number in range(1, 60):
        (tmp_path / f"{number}.h5").write_bytes((tmp_path / "0.h5").read_bytes())
    with open_file(tmp_path / "0.h5"):
        pass
    server = warden()._process.pid
    before = len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{server}/fd"))
    opened = [open_file(tmp_path / f"{number}.h5") for number in range(1, 60)]
    assert len(children(server)) >= 59
    for one in opened:
        one.close()
    (tmp_path / "bad.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(999))
    for _ in range(5):
        with pytest.raises(DataError):
            open_file(tmp_path / "bad.h5")
    here, there = len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{server}/fd"))
    assert here <= before[0] and there <= before[1]  # fewer, where what an earlier test had opened is closed meanwhile
    for _ in range(500):
        if not children(server):
            break
        time.sleep(0.01)
    assert not children(server)  # no zombies either


def in_python(script: str, *arguments: object, options: tuple[str, ...] = (), **more: Any) -> subprocess.Popen[str]:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}"
    return subprocess.Popen(
        [sys.executable, *options, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


READS = """
import os
from gpubp.data.dataset import open_dataset
from gpubp.errors import GpubpError
import numpy as np
try:
    with open_dataset(sys.argv[1]) as data:
        out = np.empty((400, 3), "f4")
        data.source.read(0, 400, out)
        print("read", int(np.isfinite(out).all()), flush=True)
except GpubpError as error:
    print("refused", error, flush=True)
"""


def test_nothing_is_left_behind_by_a_process_that_was_killed(packed):
    script = READS + (
        "from gpubp.data.guard import open_file\nfrom gpubp.data.hdf5 import process\n"
        "file = open_file(sys.argv[1]); file.read(file.dataset('X'), 0, 5)\n"
        "print(process._wardens[False]._process.pid, file._parser._pid, flush=True)\nimport time; time.sleep(60)"
    )
    with in_python(script, packed) as one:
        assert one.stdout is not None
        one.stdout.readline()
        server, child = map(int, one.stdout.readline().split())
        os.kill(child, 0)
        one.kill()
        one.wait()
        assert gone(server) and gone(child)


def test_a_child_that_computes_does_not_outlive_a_killed_server(packed):
    with open_file(packed) as file:
        rows(file, 0, 5)
        assert file._parser is not None
        child = file._parser._pid
        os.kill(warden()._process.pid, signal.SIGKILL)
        assert gone(child)


@pytest.mark.parametrize("options", [(), ("-I",), ("-P",), ("-W", "error"), ("-X", "dev", "-W", "error")])
def test_however_python_was_started(options, packed):
    with in_python(READS, packed, options=options) as one:
        out, said = one.communicate()
    assert (out, said) == ("read 1\n", "")


def test_where_the_working_folder_is_gone(packed, tmp_path):
    (tmp_path / "gone").mkdir()
    script = f"import os; os.chdir({str(tmp_path / 'gone')!r}); os.rmdir({str(tmp_path / 'gone')!r})\n{READS}"
    with in_python(script, packed) as one:
        assert one.communicate()[0] == "read 1\n"


def test_where_stdin_stdout_and_stderr_are_closed(packed, tmp_path):
    script = READS.replace("flush=True", "file=open(sys.argv[2], 'w')")
    with in_python(f"import os; [os.close(number) for number in range(3)]\n{script}", packed, tmp_path / "said") as one:
        one.communicate()
    assert (tmp_path / "said").read_text() == "read 1\n"


def test_no_socket_takes_the_place_of_stdin_stdout_or_stderr():
    """Where one of these is closed, the next descriptor would; and a new program gets others there."""
    script = (
        "import os; from gpubp.data.hdf5 import process; os.close(0); os.close(2)\n"
        "print(*(end.fileno() > 2 for end in process._pair()), os.dup(1))"
    )
    with in_python(script) as one:
        assert one.communicate()[0] == "True True 0\n"


@pytest.mark.parametrize(
    ("limit", "values"),
    [("AS", (150e6, 300e6, 2e9)), ("NOFILE", (4, 6, 8, 20)), ("DATA", (30e6, 300e6))],
)
def test_where_little_is_allowed(limit, values, packed):
    """It reads, or says in one line why it cannot."""
    loaded = (
        "import numpy, h5py, resource, gpubp.data.hdf5.process, gpubp.data.targets\nfrom gpubp.data import dataset\n"
    )
    for value in values:
        script = f"{loaded}resource.setrlimit(resource.RLIMIT_{limit}, ({int(value)},) * 2)\n{READS}"
        with in_python(script, packed) as one:
            out, said = one.communicate(timeout=60)
        assert out == "read 1\n" or (out.startswith("refused ") and out.count("\n") == 1), (value, out, said)
        assert not said, (value, said)


def test_no_processes_to_be_had_is_one_line(packed, monkeypatch, refuses):
    process._end()

    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process.subprocess, "Popen", refuse)
    with refuses(DataError, "the process that reads HDF5 files did not start: Resource temporarily unavailable"):
        open_file(packed)


def test_the_environment_cannot_make_hdf5_load_anything(packed, monkeypatch):
    process._end()
    monkeypatch.setenv("HDF5_PLUGIN_PATH", "/evil")
    monkeypatch.setenv("HDF5_DRIVER", "core")
    monkeypatch.setenv("HDF5_VOL_CONNECTOR", "evil")
    with open_file(packed) as file:
        assert len(rows(file, 0, 5)) == 5
    held = Path(f"/proc/{warden()._process.pid}/environ").read_bytes().split(b"\0")
    assert [one for one in held if one.startswith(b"HDF5")] == [b"HDF5_PLUGIN_PRELOAD=::"]
