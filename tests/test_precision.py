"""The ladder of precisions: what each is, which a backend has, what is said of one that it lacks."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from running import ROOT, write

import gpubp
from gpubp.backend.cupy import CupyBackend
from gpubp.backend.numpy import NumpyBackend
from gpubp.errors import UsageError
from gpubp.job import Job
from gpubp.precision import EXACT, LADDER, finer, on, precision, with_bits
from gpubp.prepare import array_dataset, prepare

CPU = NumpyBackend(1)


def test_the_ladder_goes_from_coarse_to_fine():
    records = [precision(name) for name in LADDER]
    assert LADDER == ("bf16", "tf32", "tf32x3", "fp32", "fp64")
    for coarse, fine in pairwise(records):
        assert coarse.bits < fine.bits and coarse.error > fine.error and coarse.noise > fine.noise
    assert [record.dtype for record in records] == 4 * [np.dtype(np.float32)] + [np.dtype(np.float64)]
    assert [record.products for record in records] == ["bf16", "tf32", "tf32x3", "exact", "exact"]
    assert [with_bits(record.bits) for record in records] == list(LADDER) and with_bits(float("nan")) is None
    # a difference of J rounds by less than a slope, which is what lets slopes lead, but never by less than its type
    assert all(np.finfo(r.dtype).eps / 4 < r.noise for r in records)


@pytest.mark.parametrize(
    ("name", "among", "wanted"),
    [
        ("fp32", ("fp32", "fp64"), "fp64"),
        ("fp64", LADDER, None),
        ("bf16", LADDER, "tf32"),
        ("bf16", ("fp64", "fp32", "bf16"), "fp32"),  # whatever their order
        ("tf32", ("fp32", "fp64"), "fp32"),  # one that is not among them
        ("fp32", ("fp32",), None),
    ],
)
def test_the_next_finer_one_that_there_is(name, among, wanted):
    assert finer(name, among) == wanted


def test_every_backend_says_which_it_has():
    assert CPU.precisions == EXACT == ("fp32", "fp64")
    assert CupyBackend.precisions == LADDER


@pytest.mark.parametrize("name", ["fp8", "FP32", ""])
def test_an_unknown_one_is_refused_with_the_names(name):
    words = f"precision '{name}'; wanted one of bf16, tf32, tf32x3, fp32, fp64"
    for call in (precision, lambda name: on(CPU, name), lambda name: finer(name, LADDER)):
        with pytest.raises(UsageError, match=words):
            call(name)


@pytest.mark.parametrize("name", ["bf16", "tf32", "tf32x3"])
def test_one_that_the_backend_lacks_is_refused_with_what_to_do(name, monkeypatch):
    words = f"precision {name}, which the CPU does not have; wanted one of fp32, fp64; take --backend gpu"
    X, y = np.eye(4), np.arange(4) % 2
    network = gpubp.Network((4, 1), cost="logistic")
    with pytest.raises(UsageError, match=words):
        gpubp.cost_and_gradient(network, network.initial_Theta(), X, y, precision=name)
    with pytest.raises(UsageError, match=words):
        gpubp.train(X, y, backend="cpu", precision=name, iterations=1)
    monkeypatch.setattr("gpubp.prepare.scan", lambda *_, **__: pytest.fail("the data were read before"))
    with pytest.raises(UsageError, match=words):
        prepare(Job(backend="cpu", precision=name), array_dataset(X, y))
    gpu = SimpleNamespace(kind="gpu", precisions=("fp32", "fp64"))
    with pytest.raises(UsageError) as caught:
        on(gpu, name)
    assert "--backend" not in str(caught.value)


def test_answers_are_given_in_fp32_or_fp64():
    X, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
    model = gpubp.train(X, y, hidden=3, iterations=1)
    with pytest.raises(UsageError, match="precision tf32 for outputs; wanted one of fp32, fp64"):
        model.predict(X, precision="tf32")


def test_real_targets_that_float32_would_make_equal_are_refused_at_every_coarse_precision(monkeypatch):
    monkeypatch.setattr(NumpyBackend, "precisions", LADDER)
    X = np.random.default_rng(0).normal(size=(50, 3))
    for name in LADDER[:-1]:
        with pytest.raises(gpubp.GpubpError, match="--precision fp64"):
            gpubp.train(X, 1.7e9 + X[:, 0], precision=name, kernel="numpy", backend="cpu", iterations=1)


def test_the_names_cost_no_numpy_and_are_the_choices_of_the_command_line(gpubp_command, tmp_path):
    code = "import sys, gpubp.precision as p; assert len(p.LADDER) == 5 and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    for command, names in (("train", LADDER), ("bench", LADDER), ("evaluate", EXACT), ("predict", EXACT)):
        text = "".join(gpubp_command(command, "--help").stdout.split())
        assert f"--precision[{'|'.join(names)}]" in text, command
    path = write(tmp_path / "d.h5", X=np.eye(4), y=np.arange(4) % 2)
    error = gpubp_command("train", path, "--out", "run", "--precision", "tf32", "--backend", "cpu", check=2).error
    assert "fp32, fp64" in error and "--backend gpu" in error and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", EXACT)
def test_what_is_said_of_the_rounding_holds(name):
    """ν and the error of ∇J, on a network whose sums are long, against the same in a finer type."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(3000, 20)), rng.integers(0, 3, 3000)
    network, kind = gpubp.Network((20, 30, 3), cost="softmax"), precision(name)
    Theta, costs = network.initial_Theta(), []
    _, exact = gpubp.cost_and_gradient(network, Theta, X.astype(np.float32), y)
    for leaves, block_rows in ((1, 3000), (1, 7), (8, 100), (64, 1000)):
        J, gradient = gpubp.cost_and_gradient(
            network, Theta, X.astype(np.float32), y, precision=name, leaves=leaves, block_rows=block_rows
        )
        costs.append(J)
        assert np.linalg.norm(gradient - exact) <= 10 * kind.error * np.linalg.norm(exact)
    assert np.ptp(costs) <= kind.noise * costs[0]
