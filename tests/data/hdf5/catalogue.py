"""Bad files, what `gpubp train FILE --out RUN` must answer to each, and how that is looked at (`bad_files` has them).

In an expected line, {path} is the file, {folder} where it lies, and … stands for anything (the HDF5 library's own
words, which change). Beside the files lie others that must never be opened: see `plant`.

    python tests/data/hdf5/catalogue.py     runs each in a process of its own, with its time and its memory
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).parents[3]
X = np.random.default_rng(3).normal(size=(60, 4)).astype("f4")
Y = (np.arange(60) % 3).astype("i4")
SECRET = b"secret of the user, not of the file. " * 200
MOST_SECONDS, MOST_MEMORY = 2.0, 500e6  # of computing: the clock tells of what else the machine does

# How lines end, and one that HDF5 fills in.
OUT = "; wanted values that lie in this file, all of them; "
ELSEWHERE = OUT + "copy the values into one file, for instance with h5repack or h5py"
AGAIN = OUT + "make or copy the file again"
DAMAGED = "{path} is damaged or no complete HDF5 file: …; wanted a sound file; make or copy it again"
REAL = "; wanted real numbers (bool, integers, or floats of at most 8 bytes)"
ALLOW = OUT + "name the folder they may lie in with --allow DIR"
_FINITE = "; wanted finite numbers (rows and columns are counted from 0); "
GAP = _FINITE + "say --missing mean or --missing drop, or fill it in"
FINITE = _FINITE + "remove or fill in the row"
NAME_X = "; wanted X, data, features, inputs or images; say --x NAME"
UNPACK = "; wanted at most 1,100; if that is true, unpack it with h5repack -f NONE"
LACKING = "; wanted filters that are; pip install 'gpubp[codecs]', or h5repack -f NONE where it is"
WEIGHTS = "; wanted weights that are finite and not negative"
TRANSPOSED = "; wanted one y for every row of X; one of them looks transposed: store it with one example per row"


@dataclass(frozen=True)
class Bad:
    """One bad file: how it is made, what is said, what the command is called with, why it cannot be made here."""

    name: str
    make: Callable[[Path], object]
    line: str
    code: int
    options: tuple[str, ...]
    skip: str

    def arguments(self, path: Path, run: Path) -> list[str]:
        return ["train", str(path), "--out", str(run), "--iterations", "2", "--hidden", "3", *self.options]

    def agrees(self, said: str, path: Path) -> bool:
        line = self.line.replace("{path}", str(path)).replace("{folder}", str(path.parent))
        return re.fullmatch(".*".join(map(re.escape, line.split("…"))), said) is not None


CATALOGUE: dict[str, Bad] = {}


def bad(line: str, *options: str, code: int = 3, skip: str = "") -> Callable[[Callable[[Path], object]], object]:
    def enter(make: Callable[[Path], object]) -> object:
        CATALOGUE[make.__name__] = Bad(make.__name__, make, line, code, options, skip)
        return make

    return enter


def plant(folder: Path) -> None:
    """What lies beside the bad files and is none of theirs."""
    (folder / "secret.txt").write_bytes(SECRET)
    with h5py.File(folder / "other.h5", "w") as other:
        other["X"], other["y"] = X, Y
    os.mkfifo(folder / "pipe-that-waits.h5")


@contextlib.contextmanager
def h5(path: Path, x: bool = False, y: bool = True, **options: object) -> Iterator[h5py.File]:
    """An HDF5 file with a sound y, and a sound X if asked for."""
    with h5py.File(path, "w", **options) as file:
        if x:
            file["X"] = X
        if y:
            file["y"] = Y
        yield file


def patched(path: Path, place: int, new: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[place : place + len(new)] = new
    path.write_bytes(raw)


def run_alone(one: Bad, folder: Path) -> tuple[int, str, str, float, float, int]:
    """Exit code, stdout, stderr, seconds, those of computing, bytes of the largest process; of the real command."""
    path, run = folder / f"{one.name}.h5", folder / f"{one.name}.run"
    made(one, path)
    before = listing(folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GPUBP_")} | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said, tempfile.NamedTemporaryFile() as used:
        command = [sys.executable, "-m", "gpubp", *one.arguments(path, run)]
        measured = [sys.executable, "-S", "-c", _MEASURED, used.name, *command]
        done = subprocess.run(measured, stdout=out, stderr=said, cwd=folder, env=environment)
        out.seek(0), said.seek(0)
        assert listing(folder) == before, f"{one.name}: something was written"
        texts = out.read().decode(), said.read().decode()
        seconds, computing, memory = json.loads(used.read())
    return done.returncode, *texts, seconds, computing, memory


# A small process that starts another: what a process starts counts with its own memory at that moment.
_MEASURED = """
import json, resource, subprocess, sys, time
begun = time.monotonic()
code = subprocess.run(sys.argv[2:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([time.monotonic() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss << 10], file)
sys.exit(code)
"""


def made(one: Bad, path: Path) -> None:
    """Make a file in a process of its own: what a process took counts as taken by those that it starts."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            one.make(path)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0, f"{one.name}: cannot be made"


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder, with sizes and times."""
    return {
        one.name: (one.lstat().st_size, one.lstat().st_mtime_ns) for one in folder.iterdir() if one.suffix != ".trace"
    }


def remove(path: Path) -> None:
    """The file, whatever it is; so that many large ones do not lie there at once."""
    found = path.lstat() if path.is_symlink() or path.exists() else None
    if found is not None:
        path.rmdir() if stat.S_ISDIR(found.st_mode) else path.unlink()


def main() -> int:
    import bad_files  # noqa: F401  they fill the catalogue of this very module
    import bad_labels  # noqa: F401
    import bad_tables  # noqa: F401

    wrong, slowest, largest = 0, 0.0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plant(folder)
        for one in CATALOGUE.values():
            if one.skip:
                print(f"{one.name:40} skipped: {one.skip}")
                continue
            code, out, said, seconds, computing, memory = run_alone(one, folder)
            path = folder / f"{one.name}.h5"
            line = said.removeprefix("gpubp: error: ").removesuffix("\n")
            good = code == one.code and not out and one.agrees(line, path)
            good = good and computing < MOST_SECONDS and memory < MOST_MEMORY
            wrong, slowest, largest = wrong + (not good), max(slowest, computing), max(largest, memory)
            took = f"{code} {seconds:5.2f} s {computing:5.2f} s {memory / 1e6:4.0f} MB"
            print(f"{one.name:40} {'  ' if good else '!!'} {took}  {line}", flush=True)
            remove(path)
    most = f"{slowest:.2f} s of computing and {largest / 1e6:.0f} MB"
    print(f"{len(CATALOGUE)} files, {wrong} not as they should be; at most {most}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.modules["catalogue"] = sys.modules["__main__"]
    sys.exit(main())
