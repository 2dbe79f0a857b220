"""Every bad file of the catalogue gets its one line, and no file is opened but the one that was named."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import bad_files
import bad_labels
import bad_tables
import h5py
import numpy
import pytest
from catalogue import CATALOGUE, MOST_MEMORY, MOST_SECONDS, ROOT, listing, made, plant, remove, run_alone

assert bad_files and bad_labels and bad_tables  # they have filled the catalogue
NAMES = [pytest.param(name, marks=pytest.mark.skipif(bool(one.skip), reason=one.skip or "-"))
         for name, one in CATALOGUE.items()]  # fmt: skip
MADE = {name: one for name, one in CATALOGUE.items() if not one.skip}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What the command line says to each, all in one process; and which files it opened meanwhile, where that shows."""
    folder = tmp_path_factory.mktemp("bad")
    plant(folder)
    for name, one in MADE.items():
        made(one, folder / f"{name}.h5")
    asked, said, trace = (tmp_path_factory.mktemp("answers") / name for name in ("asked", "said", "trace"))
    asked.write_text(
        json.dumps([[name, one.arguments(folder / f"{name}.h5", folder / f"{name}.run")] for name, one in MADE.items()])
    )
    before = listing(folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GPUBP_")} | {"PYTHONPATH": str(ROOT)}
    environment["GPUBP_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")  # of compiled code, kept for all tests
    command = [sys.executable, str(Path(__file__).parent / "run_catalogue.py"), str(asked), str(said)]
    traced = _tracer(trace)
    # through a small process: what a process starts counts with its own memory at that moment, and ours may be large
    most = tmp_path_factory.mktemp("most") / "memory"
    small = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[2:], check=True); "
        "open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10))"
    )
    measured = [sys.executable, "-c", small, str(most), *traced, *command]
    subprocess.run(measured, check=True, cwd=folder, env=environment, timeout=300)
    memory = int(most.read_text())
    assert listing(folder) == before, "something was written"
    for name in MADE:
        remove(folder / f"{name}.h5")
    return folder, json.loads(said.read_text()), trace.read_text(errors="replace") if traced else None, memory


def _tracer(into: Path) -> list[str]:
    strace = shutil.which("strace")
    command = [str(strace), "-f", "-qq", "-s", "300", "-e", "trace=open,openat,openat2,creat,connect,execve",
               "-e", "signal=none", "-o", str(into)]  # fmt: skip
    if strace and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
        return command
    return []


@pytest.mark.parametrize("name", NAMES)
def test_one_line(name, answers):
    folder, said, *_ = answers
    code, out, error, seconds = said[name]
    one = CATALOGUE[name]
    assert error.startswith("gpubp: error: ") and error.endswith("\n") and error.count("\n") == 1, error
    line = error.removeprefix("gpubp: error: ").removesuffix("\n")
    assert line.isprintable() and len(line) < 1000
    assert one.agrees(line, folder / f"{name}.h5"), line
    assert (code, out) == (one.code, "")
    # computing takes half as long again where others share the core; alone, with GPUBP_FULL=1, the bound holds as it is
    assert seconds < 5 * MOST_SECONDS


def test_there_are_enough():
    assert len(CATALOGUE) >= 60 and len(MADE) >= len(CATALOGUE) - 2


def test_none_takes_much_memory(answers):
    assert 0 < answers[3] < MOST_MEMORY


def test_no_other_file_is_opened(answers):
    folder, _, trace, _ = answers
    if trace is None:
        pytest.skip("strace is not here, or may not trace")
    opened, programs = _opened(trace)
    assert set(opened) == set(MADE), "the trace does not show where files begin"
    # packages may ask for the machine's name, and for the system's libraries (CuPy does), when they are loaded
    assert set(programs) <= {Path(sys.executable).name, "uname", "ldconfig"}, programs
    assert programs.count(Path(sys.executable).name) <= 3  # the command, and what reads HDF5 without plug-ins and with
    assert "connect(" not in trace
    python = [Path(sys.prefix), Path(sys.base_prefix), ROOT / "gpubp", Path(h5py.__file__).parents[1],
              Path(numpy.__file__).parents[1], folder.parent / "cache",
              *map(Path, ("/proc", "/sys", "/lib", "/lib64", "/usr"))]  # fmt: skip
    python += [Path(one) for one in ("/dev/null", "/etc/ld.so.cache", "/etc/localtime")]
    outside = {"secret.txt", "other.h5", "other-0.h5", "pipe-that-waits.h5", "gone.h5", "gone.bin", "passwd", "environ"}
    searched = {str(ROOT), str(Path(__file__).parent), *sys.path}  # folders, for modules
    first = next(iter(opened))
    for name, files in opened.items():
        allowed = searched | {f"{folder}/{name}.h5"}
        if name == first:  # Intel's BLAS looks there for its settings when it is loaded, before any file
            files = [file for file in files if file != "/proc/self/environ"]
        places = {os.path.normpath(folder / file) for file in files}
        assert not {Path(file).name for file in places} & outside, name
        wrong = {file for file in places if not any(Path(file).is_relative_to(part) for part in python)} - allowed
        assert not wrong, f"{name}: {wrong} were opened"


def _opened(trace: str) -> tuple[dict[str, list[str]], list[str]]:
    """The files that were opened, or tried, for each bad file; and the programs that were started."""
    found: dict[str, list[str]] = {}
    at: list[str] = []
    programs: list[str] = []
    for line in trace.splitlines():
        if started := re.search(r"\bexecve\(\"([^\"]*)\".*= 0$", line):
            programs.append(Path(started[1]).name)
        match = re.search(r"\b(?:open|openat|openat2|creat)\((?:AT_FDCWD, |\d+, )?\"((?:[^\"\\]|\\.)*)\"", line)
        if match and match[1].startswith("/begins/"):
            name = match[1].removeprefix("/begins/")
            at = found.setdefault(name, []) if name else []
        elif match and not line.endswith("EPERM (Operation not permitted)"):  # the kernel was asked, and refused
            at.append(match[1])
    return found, programs


def test_the_tracer_sees_what_is_opened(tmp_path):
    if not (traced := _tracer(tmp_path / "trace")):
        pytest.skip("strace is not here, or may not trace")
    (tmp_path / "secret.txt").touch()
    script = (
        "import os; os.path.exists('/x') or open('secret.txt').close()\ntry: open('/begins/a')\nexcept OSError: pass\n"
        "open('secret.txt').close(); os.fork() or open('secret.txt', 'w').close()"
    )
    subprocess.run([*traced, sys.executable, "-c", script], check=True, cwd=tmp_path)
    opened, programs = _opened((tmp_path / "trace").read_text())
    assert opened["a"].count("secret.txt") == 2 and len(programs) == 1


@pytest.mark.skipif(os.environ.get("GPUBP_FULL") != "1", reason="GPUBP_FULL=1 runs each in a process of its own")
@pytest.mark.parametrize("name", NAMES)
def test_each_in_a_process_of_its_own(name):
    one = CATALOGUE[name]
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        plant(folder)
        code, out, said, _, seconds, memory = run_alone(one, folder)
        line = said.removeprefix("gpubp: error: ").removesuffix("\n")
        assert (code, out) == (one.code, "") and one.agrees(line, folder / f"{name}.h5"), said
        assert seconds < MOST_SECONDS and memory < MOST_MEMORY
