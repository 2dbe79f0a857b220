"""The check of gradients at the precisions that a GPU has: by the kernels' own text on the CPU, and on a GPU."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devices import gpu
from gpu_on_host import GpuOnHost
from host_program import COMPILER

from gpubp.backend.numpy import NumpyBackend
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.diagnostics import gradient_check, numerical_slopes, tolerance_of
from gpubp.network import Network
from gpubp.objective import Objective
from gpubp.precision import LADDER

SIZES = (7, 9, 6, 3)


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def backend(request: Any, folder: Path) -> Any:
    if request.param == "gpu":
        return gpu()
    if COMPILER is None:
        pytest.skip("no C++ compiler (g++ or clang++)")
    return GpuOnHost(folder, "layered")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_healthy_engine_passes_at_every_precision_and_a_fault_beyond_it_fails(backend, seed):
    rng = np.random.default_rng(seed)
    network = Network(SIZES, "tanh", "softmax")
    X = rng.normal(size=(150, SIZES[0])).astype(np.float32)
    rows = Rows(ArrayRows(X), X, Scaling("none", None, None), rng.integers(0, 3, 150).astype(np.int32))
    Theta = network.pack([rng.normal(size=(o, i + 1)) for i, o in pairwise(SIZES)])
    plain = Objective(network, rows, 0.5, backend=NumpyBackend(1), precision="fp64")
    slopes = numerical_slopes(plain, Theta, elements=10, seed=seed)
    for name in LADDER:
        engine = Objective(network, rows, 0.5, backend=backend, precision=name)
        found = gradient_check(engine, Theta, slopes=slopes)
        assert found.verdict == "PASS" and found.tolerance == tolerance_of(name), (name, found)
        engine.close()
        tight = Objective(network, rows, 0.5 + 1.5e5 * found.tolerance, backend=backend, precision=name)
        assert gradient_check(tight, Theta, slopes=slopes).verdict != "PASS", name  # λ's term is a little too large
        tight.close()
