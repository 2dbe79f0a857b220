"""Whole runs as on a GPU: trained, cut, resumed, climbing; on the CPU by the kernels' own text, and on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devices import gpu
from gpu_on_host import GpuOnHost
from host_program import COMPILER

import gpubp
from gpubp import prepare as room
from gpubp.backend.cuda.vectors import DeviceVectors
from gpubp.errors import OutOfMemory
from gpubp.job import Job
from gpubp.prepare import array_dataset
from gpubp.run import resume, start


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def backends(request: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The backends that runs took, the newest last."""
    taken: list[Any] = []

    def choose(name: str, **options: Any) -> tuple[Any, str]:
        if request.param == "gpu":
            gpu()
            from gpubp.backend.cupy import CupyBackend

            backend: Any = CupyBackend(0, options["kernel"])
        elif COMPILER is None:
            pytest.skip("no C++ compiler (g++ or clang++)")
        else:
            backend = GpuOnHost(folder, options["kernel"])
            backend.choice = {"kernel": options["kernel"]}
        taken.append(backend)
        return backend, "the GPU of the test"

    monkeypatch.setattr(room, "choose", choose)
    monkeypatch.setattr("gpubp.going_on.choose", choose)
    return taken


def data(m: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, m)
    return (rng.normal(size=(m, 6)) + rng.normal(size=(3, 6))[y]).astype(np.float32), y


def train(out: Path, callback: Callable[..., Any] | None = None, **options: Any) -> gpubp.Model:
    X, y = data()
    job = Job(**{"hidden": (8,), "iterations": 8, "checkpoint_every": "1it", "validation": 0.2, **options})
    return start(job, out, dataset=array_dataset(X, y), callbacks=[callback] if callback else [])


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_run_that_is_cut_and_resumed_ends_with_the_same_bits(backends, tmp_path, precision):
    whole = train(tmp_path / "whole", precision=precision)
    train(tmp_path / "cut", lambda progress, state: progress.iteration == 3, precision=precision)
    X, y = data()
    resumed = resume(tmp_path / "cut", iterations=8, dataset=array_dataset(X, y))
    assert resumed.Theta.tobytes() == whole.Theta.tobytes()
    rows = [{**row, "seconds": 0} for row in whole.history]
    assert rows == [{**row, "seconds": 0} for row in resumed.history]
    assert all(row["validation"] > 0 for row in rows) and rows[-1]["J"] < rows[0]["J"]
    assert gpubp.load(tmp_path / "cut").Theta.tobytes() == whole.Theta.tobytes()


def test_vectors_that_find_the_card_full_have_rows_make_room(backends, tmp_path, monkeypatch, caplog):
    wanted = train(tmp_path / "wide", precision="fp32", iterations=3)
    zeros, full = DeviceVectors.zeros, [True]

    def once(self: DeviceVectors, *shape: int) -> Any:
        if full and len(shape) == 2:  # the history, the largest of them
            full.clear()
            raise OutOfMemory("the GPU of the test is full", do="nothing")
        return zeros(self, *shape)

    monkeypatch.setattr(DeviceVectors, "zeros", once)
    caplog.set_level(logging.WARNING)
    found = train(tmp_path / "narrow", precision="fp32", iterations=3)
    assert found.Theta.tobytes() == wanted.Theta.tobytes() and "200 rows stay there" in caplog.text


def test_a_run_reaches_what_the_cpu_reaches(backends, tmp_path):
    found = train(tmp_path / "gpu", precision="fp64", iterations=15)
    X, y = data()
    on_cpu = gpubp.train(X, y, hidden=(8,), iterations=15, validation=0.2, precision="fp64", backend="cpu")
    assert found.history[-1]["J"] == pytest.approx(on_cpu.history[-1]["J"], rel=1e-6)


def test_a_stalled_run_climbs(backends, tmp_path, caplog):
    caplog.set_level(logging.INFO, "gpubp")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4)).astype(np.float32)
    y = X @ rng.normal(size=4) + 0.1 * rng.normal(size=300)
    job = Job(hidden=(), cost="squares", iterations=400, precision="tf32x3", options={"tolerance": 1e-9})
    model = start(job, None, dataset=array_dataset(X, y))
    assert model.ending["kind"] == "converged" and "climbed from tf32x3 to fp32" in model.ending["reason"]
    assert "stalled at tf32x3" in caplog.text and model.history[-1]["gradient"] <= 1e-9
