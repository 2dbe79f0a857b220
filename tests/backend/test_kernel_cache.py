"""Compiled code is kept on disk where it is safe, found again by the next process, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import ENVIRONMENT, ROOT

from gpubp.errors import BackendError

pytest.importorskip("numba")

from gpubp.backend.compiled import build

A_KERNEL = """
from numba import cfunc, int64
@cfunc(int64(int64), cache=True)
def kernel(x):
    return x + {number}
"""
# A whole pass, and how often numba found the loops that all networks share.
A_PASS = """
import numpy as np, gpubp
net = gpubp.Network((3, 4, 2), activation="tanh")
X = np.linspace(-1, 1, 30).reshape(10, 3)
Theta, y = net.initial_Theta(1), np.arange(10) % 2
J, gradient = gpubp.cost_and_gradient(net, Theta, X, y, kernel="compiled", precision="fp32")
from gpubp.backend.compiled import build, leaf, owners
print(J, gradient.sum(), build.cache_folder())
for loop in (leaf.run, owners.work):
    print("hits", sum(loop.stats.cache_hits.values()), "misses", sum(loop.stats.cache_misses.values()))
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Where a process with this environment keeps its kernels; by default in `tmp_path`/ours."""
    monkeypatch.setenv("GPUBP_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr(build.tempfile, "tempdir", str(tmp_path))  # for folders that go with the process
    yield build.cache_folder.__wrapped__


def python(code: str, cache: Path, **more: str) -> str:
    """What a process prints that keeps its kernels in `cache`."""
    environment = ENVIRONMENT | {"GPUBP_CACHE": str(cache)} | more
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def state(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


@pytest.mark.slow
def test_the_second_process_compiles_nothing(tmp_path):
    cache, home = tmp_path / "cache", tmp_path / "home"
    home.mkdir()
    before = set(state(ROOT / "gpubp"))
    first = python(A_PASS, cache, HOME=str(home)).splitlines()
    assert first[0].split()[-1].startswith(str(cache)) and first[1:] == ["hits 0 misses 1"] * 2
    kept = state(cache)
    assert sum(name.endswith(".nbc") for name in kept) >= 8  # g, its slope, the end, the labels, a sum, and the loops
    new = set(state(ROOT / "gpubp")) - before
    assert not list(home.rglob("*")) and not any(".nb" in name for name in new), "kept somewhere else too"
    assert not any(name.endswith((".tmp", ".pyc")) for name in kept)
    assert all(path.stat().st_mode & 0o077 == 0 for path in cache.iterdir())  # what is in it can be run as us
    second = python(A_PASS, cache, HOME=str(home)).splitlines()
    assert second[0] == first[0] and second[2] == "hits 1 misses 0"  # with all that it calls
    assert second[1].endswith("misses 0")
    assert state(cache) == kept


def test_a_kernel_is_compiled_once_and_told_by_its_text(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "cache_folder", folder)
    first = build._module(A_KERNEL.format(number=1)).kernel
    kept = state(tmp_path)
    again = build._module(A_KERNEL.format(number=1)).kernel
    assert state(tmp_path) == kept and again.cache_hits == 1 and first.cache_hits == 0
    assert build._module(A_KERNEL.format(number=2)).kernel.ctypes(40) == 42
    assert again.ctypes(40) == 41


def test_a_file_with_another_text_is_written_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "cache_folder", folder)
    build._module(A_KERNEL.format(number=3))
    (path,) = folder().glob("kernel_*.py")
    for damage in ("", A_KERNEL.format(number=4)):
        path.write_text(damage)
        assert build._module(A_KERNEL.format(number=3)).kernel.ctypes(1) == 4


def test_numba_is_left_as_it_was(folder):
    from numba.core import config

    before, writes = config.CACHE_DIR, sys.dont_write_bytecode
    with pytest.raises(KeyError), build.kept_on_disk():
        assert config.CACHE_DIR == str(build.cache_folder())
        raise KeyError
    assert before == config.CACHE_DIR
    with pytest.raises(BackendError, match="numba cannot compile"):
        build.address("def kernel(: no Python")
    assert before == config.CACHE_DIR and writes == sys.dont_write_bytecode


def test_other_code_has_another_folder(folder, tmp_path, monkeypatch):
    first = folder()
    assert first == folder() and first.parent == tmp_path / "ours"
    (tmp_path / "code").mkdir()
    for path in Path(build.__file__).parent.glob("*.py"):
        (tmp_path / "code" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "__file__", str(tmp_path / "code" / "build.py"))
    assert folder() == first
    with (tmp_path / "code" / "vector_math.py").open("a") as file:
        file.write("\n")
    assert folder() not in (first, tmp_path) and folder().parent == tmp_path / "ours"


def test_where_it_is(folder, tmp_path, monkeypatch):
    assert folder().parent == tmp_path / "ours"
    monkeypatch.delenv("GPUBP_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folder().parent == tmp_path / "xdg" / "gpubp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folder().parent == tmp_path / "home" / ".cache" / "gpubp"


def temporary(path: Path, tmp_path: Path) -> bool:
    """Whether it is a folder for this process alone."""
    return path.parent == tmp_path and path.name.startswith("gpubp-") and path.stat().st_mode & 0o077 == 0


def test_a_folder_that_others_can_write_to_is_not_used(folder, tmp_path):
    used = folder()
    for path in (used, used.parent):
        for mode in (0o777, 0o722, 0o720, 0o702):
            path.chmod(mode)
            assert temporary(folder(), tmp_path), f"{path} with mode {mode:o}"
            path.chmod(0o700)
    used.parent.chmod(0o755)
    assert folder() == used  # others may look


def test_a_folder_of_somebody_elses_is_not_used(folder, tmp_path, monkeypatch):
    used = folder()
    monkeypatch.setattr(os, "geteuid", lambda: used.stat().st_uid + 1)
    assert temporary(folder(), tmp_path)


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077, 0o000])
def test_whatever_the_umask_is_our_own_folder_is_used_again(folder, tmp_path, umask):
    """Most distributions give each user a group and the umask 002."""
    before = os.umask(umask)
    try:
        used = [folder(), folder()]
    finally:
        os.umask(before)
    assert used[0] == used[1] and used[0].parent == tmp_path / "ours"


def test_a_folder_that_cannot_be_written_is_not_used(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GPUBP_CACHE", str(tmp_path / "file" / "ours"))
    assert temporary(folder(), tmp_path)
    monkeypatch.setenv("GPUBP_CACHE", str(tmp_path / "ours"))
    used = folder()

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build.tempfile, "TemporaryFile", full)
    assert folder() != used and temporary(folder(), tmp_path)


def test_a_user_without_a_home_has_a_folder(folder, tmp_path, monkeypatch):
    """As in a container that runs under a number nobody has a name for."""
    import pwd

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert folder().parent == tmp_path / "ours"
    monkeypatch.delenv("GPUBP_CACHE")
    assert temporary(folder(), tmp_path)


def test_without_a_folder_kernels_work_and_go_with_the_process(tmp_path):
    (tmp_path / "file").write_text("in the way")
    code = f"""
from gpubp.backend.compiled import build
print(build._module({A_KERNEL.format(number=5)!r}).kernel.ctypes(1), build.cache_folder())
assert build.cache_folder().is_dir()
"""
    printed = python(code, tmp_path / "file" / "ours", TMPDIR=str(tmp_path))
    number, used = printed.split()
    assert number == "6" and Path(used).parent == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
