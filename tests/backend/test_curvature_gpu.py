"""How J curves as a GPU finds it, run on the CPU: the plain composition's kernels and products, queued; and the
optimizers that ask for it, whose vectors live on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_on_host import GpuOnHost
from host_program import COMPILER
from passes import rows_of

import gpubp
from gpubp import curvature, optimizers
from gpubp.backend.numpy import NumpyBackend
from gpubp.data.scaling import Scaling
from gpubp.objective import Objective
from gpubp.optimizers.kronecker import Kronecker, level
from gpubp.optimizers.vectors import vectors_of

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++)")

NETWORK = gpubp.Network((3, 4, 3), activation="tanh", cost="softmax")


def rows(kept: int | None = None) -> Any:
    X = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    y = (np.abs(X[:, 0] - X[:, 1]) + X[:, 2] > 1).astype(np.uint32)
    weights = np.where(np.arange(200) % 5 == 0, 0.0, 1.5)
    scaling = Scaling("standard", np.array([0.1, 0.2, -0.1]), np.array([1.0, 0.5, 2.0]))
    return rows_of(X, y, kept=kept, scaling=scaling, weights=weights)


def test_products_and_matrices_are_those_of_the_host(folder: Path):
    Theta, v = NETWORK.initial_Theta(1), NETWORK.initial_Theta(2)
    found = {}
    for name, backend, kept in (
        ("host", NumpyBackend(1), None),
        ("gpu", GpuOnHost(folder), None),
        ("sent", GpuOnHost(folder), 30),
    ):
        it = Objective(NETWORK, rows(kept), 0.3, backend=backend, precision="fp32")
        out = np.empty(NETWORK.P)
        it.curvature.product(Theta, v, out)
        sampled, _ = it.curvature.sampled_matrix(Theta, 64, 3)
        found[name] = out, it.curvature.matrix(Theta), sampled
        if name == "gpu":
            there = [it.vectors.zeros(NETWORK.P) for _ in range(3)]
            it.vectors.put(Theta, there[0])
            it.vectors.put(v, there[1])
            it.curvature.product(*there)
            assert np.array_equal(it.vectors.to_host(there[2]), out)
            assert np.array_equal(it.curvature.matrix(there[0]), found[name][1])
        it.close()
    for gpu, sent, host in zip(found["gpu"], found["sent"], found["host"], strict=True):
        assert np.array_equal(gpu, sent)
        assert np.abs(gpu - host).max() <= 2e-6 * np.abs(host).max()


@pytest.mark.parametrize("wide", [4096, 4, 1])
def test_factors_and_their_inverse_are_those_of_the_host(wide, folder, monkeypatch):
    monkeypatch.setattr(curvature, "full", lambda units, operations: units < wide)
    Theta, v = NETWORK.initial_Theta(1), NETWORK.initial_Theta(2)
    found = []
    for backend in (NumpyBackend(1), GpuOnHost(folder)):
        it = Objective(NETWORK, rows(), 0.3, backend=backend, precision="fp32")
        there = vectors_of(it)
        arrays = [there.zeros(NETWORK.P) for _ in range(3)]
        there.put(Theta, arrays[0])
        there.put(v, arrays[1])
        with it.guard():
            A, G, passes = it.curvature.factors(arrays[0], 1)
            kronecker = Kronecker(it.curvature.layers, there)
            mu = level(A, G, 0.3, it.curvature.decay)
            shares = kronecker.shares(A, G, mu, np.zeros(2), same=False)
            kronecker.set(A, G, mu, shares)
            kronecker.apply(*arrays[1:])
            found.append([*A, *G, np.array(passes), there.to_host(arrays[2]).copy()])
        it.close()
    assert [part.ndim for part in found[0][:2]] == [1 + (3 < wide), 1 + (4 < wide)]
    for gpu, host in zip(*found, strict=True):
        assert np.abs(gpu - host).max() <= 1e-5 * np.abs(host).max()


@pytest.mark.parametrize(("name", "options"), [("lm", {}), ("gn", {"most_products": 3}), ("klbfgs", {})])
def test_optimizers_that_ask_for_it_run_on_either_backend(name, options, folder):
    reached = []
    for backend in (NumpyBackend(1), GpuOnHost(folder)):
        it = Objective(NETWORK, rows(), 0.3, backend=backend, precision="fp32")
        optimizer = optimizers.make(name, **options)
        state = optimizer.init(it, NETWORK.initial_Theta(0))
        first = state.J
        with it.guard():
            for _ in range(4):
                assert optimizer.step(it, state) is None
        assert state.extra > 0 and state.J < 0.9 * first
        reached.append(state.J)
        it.close()
    assert reached[0] == pytest.approx(reached[1], rel=1e-5)
