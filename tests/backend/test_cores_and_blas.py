"""How many cores are ours; which BLAS, and that it has one thread while a pass runs; which kernel is chosen and why."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading

import numpy as np
import pytest
from running import ENVIRONMENT

from gpubp import backend as backends
from gpubp.backend import blas, choose, compiled, for_forward
from gpubp.backend.cores import _quota, available_cores
from gpubp.errors import BackendError, UsageError


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.5),
        ({"cpu/cpu.cfs_quota_us": "250000\n"}, None),
        ({}, None),
    ],
)
def test_quota_of_a_control_group(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _quota(tmp_path, tmp_path / "none") == cores


@pytest.mark.parametrize(
    ("ours", "files", "cores"),
    [
        ("0::/job/step\n", {"job/cpu.max": "200000 100000\n", "job/step/cpu.max": "max 100000\n"}, 2),
        ("0::/job/step\n", {"job/cpu.max": "200000 100000\n", "job/step/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
        (
            "4:memory:/other\n3:cpu,cpuacct:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "150000", "cpu/job/cpu.cfs_period_us": "100000", "other/cpu.max": "1 1"},
            1.5,
        ),
        ("nonsense", {"cpu.max": "max 100000\n"}, None),
    ],
)
def test_quota_of_the_groups_around_ours(tmp_path, ours, files, cores):
    """Slurm and systemd set a limit on the group above the one a process is in."""
    (tmp_path / "ours").write_text(ours)
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    assert _quota(tmp_path / "cgroup", tmp_path / "ours") == cores


def test_there_is_a_core():
    assert available_cores() >= 1


@pytest.fixture
def libraries():
    """NumPy's BLAS with two threads, restored afterwards; an MKL that we loaded has one always."""
    found = [b for b in blas.loaded() if b.path == getattr(blas.of_numpy(), "path", "")]
    if not found:
        pytest.skip("no BLAS whose threads can be set")
    before = [b.threads() for b in found]
    for b in found:
        b.set_threads(2)
    yield found
    for b, threads in zip(found, before, strict=True):
        b.set_threads(threads)


def counts(libraries) -> set[int]:
    return {b.threads() for b in libraries}


def test_one_thread_is_set_and_restored(libraries):
    with blas.one_thread():
        assert counts(libraries) == {1}
        with blas.one_thread():
            assert counts(libraries) == {1}
        assert counts(libraries) == {1}
    assert counts(libraries) == {2}


def test_one_thread_is_restored_after_an_error(libraries):
    with pytest.raises(KeyError), blas.one_thread():
        raise KeyError
    assert counts(libraries) == {2}


def test_the_last_to_leave_restores(libraries):
    entered, leave = threading.Event(), threading.Event()

    def other():
        with blas.one_thread():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with blas.one_thread():
        thread.start()
        assert entered.wait(10)
    assert counts(libraries) == {1}
    leave.set()
    thread.join()
    assert counts(libraries) == {2}


def test_blas_is_named(libraries):
    assert any(b.title in blas.describe() for b in libraries)


# The BLAS that is found.


@pytest.fixture
def mkl():
    """Intel's BLAS; the test is skipped without it."""
    if not blas._mkl_path():
        pytest.skip("MKL is not installed (pip install mkl)")
    return blas.find("mkl")


@pytest.fixture
def numpys():
    """NumPy's own BLAS; the test is skipped where it has none that compiled code can call."""
    own = blas.of_numpy()
    if own is None or own.gemm(np.dtype("f4")) is None:
        pytest.skip("NumPy's BLAS cannot be called")
    return own


def test_numpys_blas_is_the_one_that_numpy_calls(libraries, numpys):
    """Its thread count is seen by numpy's own report of what it runs on."""
    assert blas.find("numpy") == numpys and numpys.path in [library.path for library in libraries]
    assert numpys.describe().split()[0] == numpys.title
    wanted = np.show_config("dicts")["Build Dependencies"]["blas"]["name"]  # type: ignore[index]
    assert wanted.removeprefix("scipy-").lower() in (numpys.title.lower(), "blas", "cblas")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_matrix_product_by_its_address_is_numpys(numpys, dtype):
    import ctypes

    found = numpys.gemm(np.dtype(dtype))
    assert found is not None
    address, wide = found
    integer, real = (ctypes.c_int64 if wide else ctypes.c_int32), (ctypes.c_float if dtype == "f4" else ctypes.c_double)
    e, p = ctypes.c_int32, ctypes.c_void_p
    gemm = ctypes.CFUNCTYPE(None, e, e, e, integer, integer, integer, real, p, integer, p, integer, real, p, integer)(
        address
    )
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(5, 3)).astype(dtype), rng.normal(size=(4, 3)).astype(dtype), np.ones((5, 4), dtype)
    gemm(101, 111, 112, 5, 4, 3, 1.0, a.ctypes.data, 3, b.ctypes.data, 3, 2.0, c.ctypes.data, 4)
    np.testing.assert_allclose(c, a @ b.T + 2, rtol=1e-6)


def test_an_unknown_name_is_refused():
    with pytest.raises(UsageError, match=r"^blas 'atlas'; wanted auto, mkl or numpy$"):
        blas.find("atlas")


def test_auto_takes_mkl_where_it_is_installed(monkeypatch, numpys):
    monkeypatch.setattr(blas, "_mkl_path", lambda: "")
    blas._mkl.cache_clear()
    assert blas.find("auto") == numpys
    assert blas.available() == {"numpy": numpys.describe()}
    with pytest.raises(BackendError, match=r"^no MKL; wanted Intel's BLAS; pip install mkl, or take --blas numpy$"):
        blas.find("mkl")
    monkeypatch.undo()
    blas._mkl.cache_clear()
    if blas._mkl_path():
        assert blas.find("auto").title == "MKL"
        assert list(blas.available()) == ["mkl", "numpy"]


def test_an_mkl_that_cannot_be_loaded_is_one_line(monkeypatch, tmp_path):
    broken = tmp_path / "libmkl_rt.so.2"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(blas, "_mkl_path", lambda: str(broken))
    blas._mkl.cache_clear()
    try:
        with pytest.raises(
            BackendError, match=r"^MKL cannot be loaded: .*; install mkl again, or take --blas numpy$"
        ) as e:
            blas.find("mkl")
        assert "\n" not in str(e.value)
        if not compiled.missing():  # whoever did not ask for MKL is told why he does not get it
            assert "MKL cannot be loaded" in choose("cpu")[1]
    finally:
        blas._mkl.cache_clear()


def test_a_numpy_whose_blas_cannot_be_called_is_one_line_and_a_reason(monkeypatch):
    monkeypatch.setattr(blas, "_mkl_path", lambda: "")
    monkeypatch.setattr(blas, "of_numpy", lambda: None)
    assert blas.describe() == "unknown BLAS" and blas.available() == {}
    with pytest.raises(BackendError, match=r"no OpenBLAS, MKL or BLIS under NumPy; .*--kernel numpy"):
        blas.find("numpy")
    if not compiled.missing():
        backend, why = choose("cpu")
        assert backend.choice == {"kernel": "numpy"} and "because no OpenBLAS, MKL or BLIS under NumPy" in why
        with pytest.raises(BackendError, match="no OpenBLAS"):
            choose("cpu", kernel="compiled")


def test_mkl_is_described_by_its_version_and_its_kernels(mkl, numpys):
    name, version, *branch = mkl.describe().split()
    assert name == "MKL" and int(version.split(".")[0]) >= 2024 and branch[0].startswith(("AVX", "SSE", "comp", "auto"))
    assert blas.find("mkl") is mkl
    # NumPy's stays NumPy's, and both work with one thread in a pass
    assert blas.of_numpy() == numpys and blas.describe() == numpys.describe() and blas.find("numpy") == numpys
    assert {mkl.path, numpys.path} <= {b.path for b in blas.loaded()}
    mkl.set_threads(2)
    with blas.one_thread():
        assert mkl.threads() == numpys.threads() == 1


def test_what_numpy_computes_with_is_not_renamed_by_another_blas():
    """SciPy brings an OpenBLAS of its own, and may be imported before us, after us or not at all."""
    if importlib.util.find_spec("scipy") is None:
        pytest.skip("SciPy is not installed")
    ours = "from gpubp.backend import blas; print(blas.describe(), (blas.of_numpy() or 1).path)"
    codes = (ours, f"import scipy.linalg; {ours}", f"{ours}; import scipy.linalg; blas.loaded.cache_clear(); {ours}")
    lines = set()
    for code in codes:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        lines |= set(done.stdout.splitlines())
    assert len(lines) == 1, lines


# What is chosen.


@pytest.fixture
def no_numba(monkeypatch):
    """As if numba were not installed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "numba" else find_spec(name, *a))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel": "fast"}, "kernel 'fast'; wanted one of auto, fused, layered, compiled, numpy"),
        ({"blas": "atlas"}, "blas 'atlas'; wanted auto, mkl or numpy"),
        ({"threads": 0}, "0 threads; wanted 1 or more"),
        ({"threads": -2}, "-2 threads; wanted 1 or more"),
        ({"name": "gpu", "kernel": "compiled"}, "'compiled' for the GPU; wanted auto; it is a choice of the CPU's"),
        ({"name": "gpu", "kernel": "numpy"}, "'numpy' for the GPU; wanted auto"),
        ({"name": "gpu", "blas": "mkl"}, "'mkl' for the GPU; wanted auto"),
        ({"name": "cpu", "kernel": "numpy", "blas": "mkl"}, "MKL for the kernel 'numpy'; .*needs --kernel compiled"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(options, words):
    with pytest.raises(UsageError, match=f"^{words}") as caught:
        choose(**options)
    assert "\n" not in str(caught.value)


def test_without_numba_auto_takes_numpy_and_says_why(no_numba):
    backend, why = choose("cpu", threads=2)
    assert backend.choice == {"kernel": "numpy"} and backend.owners == 2
    assert (
        why == f"CPU, as asked; NumPy with {blas.describe()}, because numba is not installed (pip install 'gpubp[cpu]')"
    )
    with pytest.raises(
        BackendError, match=r"^no compiled loop: numba is not installed \(pip .*\); take --kernel numpy$"
    ):
        choose("cpu", kernel="compiled")
    with pytest.raises(UsageError, match="MKL needs --kernel compiled"):
        choose("cpu", blas="mkl")


def test_a_numba_that_cannot_be_imported_is_a_reason(monkeypatch):
    """It refuses a NumPy that is newer than it knows."""
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())
    backend, why = choose("cpu")
    assert backend.choice == {"kernel": "numpy"} and "because numba cannot be imported: " in why and "\n" not in why


def test_numpy_as_asked_needs_no_reason():
    backend, why = choose("cpu", kernel="numpy")
    assert backend.choice == {"kernel": "numpy"} and why == f"CPU, as asked; NumPy with {blas.describe()}, as asked"
    assert backend.conditions()["kernel"] == "numpy" and backend.owners == available_cores()


def test_a_choice_of_the_cpus_is_one_for_the_cpu(monkeypatch):
    """Where a GPU works, `--kernel` or `--blas` on its own still means the CPU; and `choice` gives the same again."""
    monkeypatch.setattr(backends, "gpu_status", lambda device=0: (True, "a GPU"))
    backend, why = choose("auto", kernel="numpy")
    assert backend.kind == "cpu" and why.startswith("CPU, as 'numpy' asks; ")
    assert type(choose("cpu", **backend.choice)[0]) is type(backend)
    if not compiled.missing():
        backend, why = choose("auto", blas="numpy")
        assert backend.choice == {"kernel": "compiled", "blas": "numpy"} and why.startswith("CPU, as 'numpy' asks; ")
        assert choose("cpu", **backend.choice)[0].choice == backend.choice


def test_forward_passes_take_numpy_and_need_no_numba(no_numba):
    for name in ("cpu", "auto"):
        assert for_forward(name).kind in ("cpu", "gpu")
    assert for_forward("cpu").choice == {"kernel": "numpy"}
    with pytest.raises(UsageError, match="backend 'tpu'"):
        for_forward("tpu")
