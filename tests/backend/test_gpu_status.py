"""Why there is no GPU, in one line; and that asking costs nothing where CuPy is absent."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from devices import gpu

from gpubp.backend import choose, gpu_status
from gpubp.backend.cupy import CupyBackend, probe
from gpubp.errors import BackendError


def test_status_is_one_line():
    works, why = gpu_status()
    assert isinstance(works, bool) and why and "\n" not in why


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_without_cupy_the_line_says_how_to_install_it():
    assert probe() == (False, "CuPy is not installed (pip install 'gpubp[cuda13]')")
    with pytest.raises(BackendError, match=r"CuPy is not installed.*--backend cpu"):
        choose("gpu")
    backend, why = choose("auto")
    assert backend.kind == "cpu" and why.startswith("CPU, because CuPy is not installed")


def test_a_cupy_that_cannot_be_imported_is_a_reason_and_no_traceback(tmp_path):
    (tmp_path / "cupy.py").write_text("raise PermissionError(13, 'no place\\nfor kernels')\n")
    code = "from gpubp.backend import choose; print(choose('auto')[1])"
    path = [str(tmp_path), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {code}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and done.stdout.startswith(
        "CPU, because CuPy cannot be imported: [Errno 13] no place for kernels "
        "(CUPY_CACHE_DIR names a folder it can write to); "
    )


def test_blocks_fit_a_small_device_and_depend_on_the_shape_alone():
    backend = object.__new__(CupyBackend)  # the rule needs no device
    for m, sizes, leaves, rows in [
        (5000, (400, 25, 10), 1, 65_536),
        (200_000, (28, 64, 64, 1), 2, 65_536),
        (2 * 10**7, (28, 64, 64, 1), 64, 65_536),
        (10**6, (784, 2048, 2048, 10), 8, 4096),
        (10**6, (10, 100_000, 10), 8, 335),
        (10**6, (10, 10**6, 10), 8, 64),
    ]:
        assert backend.leaves_and_block(m, sizes) == (leaves, rows)


@pytest.mark.gpu
def test_a_device_that_does_not_exist_is_named():
    gpu()
    works, why = probe(99)
    assert not works and why.startswith("there is no GPU 99: devices are numbered from 0")
