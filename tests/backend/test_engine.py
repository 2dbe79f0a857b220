"""Whole evaluations as a GPU does them, run on the CPU: kernels, launches, products, copies are the engine's own."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
import pytest
from gpu_on_host import GpuOnHost
from host_program import COMPILER

import gpubp
from gpubp import activation, cost
from gpubp.backend.cuda import fused_pass
from gpubp.backend.numpy import NumpyBackend
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.errors import BackendError, OutOfMemory
from gpubp.objective import Objective

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++)")

# the largest error of ∇J, of its largest element, that a precision may have on the small networks of these tests
ERRORS = {"fp64": 1e-12, "fp32": 2e-6, "tf32x3": 3e-6, "tf32": 4e-3, "bf16": 4e-2}
UNSCALED = Scaling("none", None, None)


def rows_of(
    network: gpubp.Network, m: int, *, stored: Any = np.float32, scaling=UNSCALED, held=False, kept=None
) -> Rows:
    rng = np.random.default_rng(7)
    X = (rng.normal(size=(m, network.sizes[0])) * 2 + 3).clip(0, 255 if stored == np.uint8 else None).astype(stored)
    if network.cost == "squares":
        y: np.ndarray = rng.normal(size=(m, network.K))
    elif network.K == 1:
        y = rng.integers(0, 2, m).astype(np.uint32)
    elif network.cost == "softmax":
        y = rng.integers(0, network.K, m).astype(np.uint32)
    else:
        y = rng.integers(0, 2, (m, network.K)) * 1.0
    w = v = None
    if held:
        v = np.where(np.arange(m) % 7 == 0, 1.5, 0.0)
        w = np.where(v > 0, 0.0, np.arange(m) % 3)
    source = ArrayRows(X)
    return Rows(source, source.array if kept is None else source.array[:kept], scaling, y, w, v)


def theta(network: gpubp.Network) -> np.ndarray:
    """Weights and biases, none of them 0."""
    initial = network.unpack(network.initial_Theta(1))
    return network.pack([T + 0.1 * np.sin(np.arange(T.size)).reshape(T.shape) for T in initial])


def evaluate(backend: Any, network: gpubp.Network, rows: Rows, precision: str, **plan: Any) -> tuple[float, Any, bytes]:
    """J, the validation cost and ∇J's bytes; three times, since the second captures and the third replays."""
    objective = Objective(network, rows, 0.3, backend=backend, precision=precision, **plan)
    gradient, Theta, found = np.zeros(network.P), theta(network), set()
    for _ in range(3):
        gradient[:] = np.nan
        J = objective.value_and_gradient(Theta, gradient)
        found.add((J, objective.validation_cost, gradient.tobytes()))
    assert objective.value(Theta) == J
    objective.close()
    assert len(found) == 1
    return found.pop()


def assert_like_the_cpu(backend: Any, network: gpubp.Network, rows: Rows, precision: str, **plan: Any) -> None:
    J, held, gradient = evaluate(backend, network, rows, precision, **plan)
    exact_J, exact_held, exact = evaluate(NumpyBackend(1), network, rows, "fp64")
    tolerance = ERRORS[precision]
    wanted = np.frombuffer(exact)
    assert J == pytest.approx(exact_J, rel=tolerance)
    assert (held is None) == (exact_held is None) and (held is None or held == pytest.approx(exact_held, rel=tolerance))
    assert np.abs(np.frombuffer(gradient) - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("g", activation.names())
def test_every_activation(folder, g):
    network = gpubp.Network((5, 7, 6, 3), activation=g)
    for precision in ("fp64", "fp32", "bf16"):
        plan = {"leaves": 4, "block_rows": 60}
        assert_like_the_cpu(GpuOnHost(folder, "layered"), network, rows_of(network, 301), precision, **plan)


@pytest.mark.parametrize("J", cost.names())
@pytest.mark.parametrize("K", [1, 3, 40])
def test_every_cost(folder, J, K):
    if J == "softmax" and K == 1:
        pytest.skip("softmax needs two outputs")
    network = gpubp.Network((5, 6, K), activation="tanh", cost=J)
    rows = rows_of(network, 401, held=True)
    for precision in ("fp64", "fp32"):
        assert_like_the_cpu(GpuOnHost(folder, "layered"), network, rows, precision, leaves=2, block_rows=150)


@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("sizes", [(5, 3), (3, 70, 1), (9, 65, 130, 2)], ids=str)
def test_every_precision(folder, precision, sizes):
    network = gpubp.Network(sizes, activation="silu" if len(sizes) > 3 else "sigmoid", cost="logistic")
    rows = rows_of(network, 333, held=True)
    assert_like_the_cpu(GpuOnHost(folder, "layered"), network, rows, precision, leaves=2, block_rows=100)


@pytest.mark.parametrize("stored", [np.uint8, np.int32, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("precision", ["fp64", "bf16"])
@pytest.mark.parametrize("mean", [0.5, 3.0, 900.0], ids=["folded", "folded if exact", "standardised on the way"])
def test_scaled_rows_of_every_type(folder, stored, precision, mean):
    network = gpubp.Network((4, 6, 3))
    scaling = Scaling("standard", np.full(4, mean), np.linspace(1, 3, 4))
    rows = rows_of(network, 150, stored=stored, scaling=scaling)
    if mean == 900.0:  # what is far from 0 beside its spread
        far = np.asarray(rows.kept, np.float64) % 100 + 850
        source = ArrayRows(far.astype(np.int32 if stored == np.uint8 else stored))
        rows = Rows(source, source.array, scaling, rows.labels)
    assert_like_the_cpu(GpuOnHost(folder, "layered"), network, rows, precision, leaves=2)


@pytest.mark.parametrize("labels", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64])
def test_class_numbers_of_every_type(folder, labels):
    network = gpubp.Network((4, 6, 3))
    for kernel, precision in (("layered", "fp64"), ("fused", "tf32")):
        rows = rows_of(network, 100)
        assert rows.labels is not None
        rows.labels = rows.labels.astype(labels)
        assert_like_the_cpu(GpuOnHost(folder, kernel), network, rows, precision)


@pytest.mark.parametrize(("kernel", "precision"), [("layered", "fp32"), ("fused", "bf16")])
def test_rows_made_on_the_device_are_used_where_they_are(folder, kernel, precision):
    network = gpubp.Network((4, 6, 1), cost="logistic")
    rows, backend = rows_of(network, 300, stored=np.uint8), GpuOnHost(folder, kernel)
    wanted = evaluate(GpuOnHost(folder, kernel), network, rows, precision)

    class NoSource(ArrayRows):
        def read(self, start, stop, out):
            raise AssertionError("rows on the device were asked of the source")

    there = Rows(NoSource(np.asarray(rows.kept)), backend.upload(rows.kept), UNSCALED, backend.upload(rows.labels))
    assert evaluate(backend, network, there, precision) == wanted


def test_only_what_folds_without_loss_is_folded():
    scaling = Scaling("standard", np.full(4, 30.0), np.ones(4))
    rows = rows_of(gpubp.Network((4, 6, 3)), 10, scaling=scaling)
    assert rows.folds("exact") and rows.folds("tf32x3") and not rows.folds("tf32") and not rows.folds("bf16")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows_that_are_sent_give_the_bits_of_rows_that_stay(folder, precision):
    network = gpubp.Network((7, 9, 3), activation="tanh")
    results = set()
    for kept, room in [(500, 1 << 60), (500, 0), (500, 200 * 28), (130, 1 << 60), (0, 1 << 60)]:
        backend = GpuOnHost(folder, "layered")
        backend.room = room
        results.add(evaluate(backend, network, rows_of(network, 500, kept=kept), precision, leaves=4, block_rows=40))
        stays = kept == 500 and room > 500 * 28
        assert (backend.sent == 0) == stays and backend.captured == (1 if stays else backend.captured) > 0
    assert len(results) == 1


def test_leaves_and_blocks_change_rounding_only(folder):
    network = gpubp.Network((5, 6, 3))
    rows = rows_of(network, 100)
    for leaves, block_rows in itertools.product((1, 2, 8), (7, 1000)):
        plan = {"leaves": leaves, "block_rows": block_rows}
        assert_like_the_cpu(GpuOnHost(folder, "layered"), network, rows, "fp64", **plan)


def test_an_infinite_theta_is_seen_in_J_and_no_lambda_hides_it(folder):
    network = gpubp.Network((5, 6, 3), activation="relu", cost="squares")
    objective = Objective(network, rows_of(network, 50), 0.0, backend=GpuOnHost(folder, "layered"), precision="fp32")
    Theta = network.initial_Theta(1)
    Theta[0] = 1e200
    assert not np.isfinite(objective.value_and_gradient(Theta, np.zeros(network.P)))
    Theta = network.initial_Theta(1)
    assert np.isfinite(objective.value_and_gradient(Theta, np.zeros(network.P)))
    objective.close()


def test_a_full_device_keeps_fewer_rows_and_the_same_bits(folder, caplog):
    network = gpubp.Network((7, 9, 3))
    rows, plan = rows_of(network, 400), {"leaves": 2, "block_rows": 64}
    wanted = evaluate(GpuOnHost(folder, "layered"), network, rows, "fp32", **plan)
    backend = GpuOnHost(folder, "layered")
    backend.fail_at = 12  # somewhere among the buffers of the pass
    with caplog.at_level(logging.WARNING):
        objective = Objective(network, rows, 0.3, backend=backend, precision="fp32", **plan)
    assert objective._pass.resident_rows == 200 and "200 rows stay" in caplog.text
    gradient = np.zeros(network.P)
    J = objective.value_and_gradient(theta(network), gradient)
    assert (J, None, gradient.tobytes()) == wanted and backend.sent
    # and in the middle of a run
    write, full = backend.write, [True]

    def full_once(host: np.ndarray, out: Any) -> None:
        if full:
            full.clear()
            raise OutOfMemory("the GPU of the test is full", do="nothing")
        write(host, out)

    backend.write = full_once  # type: ignore[method-assign]
    again = np.zeros(network.P)
    with caplog.at_level(logging.WARNING):
        assert objective.value_and_gradient(theta(network), again) == J and np.array_equal(again, gradient)
    assert objective._pass.resident_rows == 100
    objective.close()


def test_a_device_too_small_for_anything_says_so(folder):
    network = gpubp.Network((7, 9, 3))

    class Full(GpuOnHost):
        def empty(self, shape, dtype):
            raise OutOfMemory("the GPU of the test is full", do="nothing")

    with pytest.raises(OutOfMemory, match="is full"):
        Objective(network, rows_of(network, 400), 0.3, backend=Full(folder), precision="fp32")


# The whole network in one kernel; the kernel itself is in test_fused.


@pytest.mark.parametrize("precision", ["tf32x3", "tf32", "bf16"])
def test_narrow_networks_take_the_fused_kernel(folder, precision):
    network = gpubp.Network((5, 7, 6, 3), activation="silu")
    scaling = Scaling("standard", np.full(5, 3.0), np.full(5, 2.0))
    backend = GpuOnHost(folder)
    assert_like_the_cpu(backend, network, rows_of(network, 701, scaling=scaling, held=True), precision)
    assert any(name.startswith("gpubp_fused") for name in backend.launches)
    each = len(backend.launches) / 4
    assert each <= 4  # three evaluations and one of J alone: enter, the kernel, the tree, leave


def test_full_float32_and_wide_layers_are_layered(folder):
    narrow, wide = gpubp.Network((5, 6, 3)), gpubp.Network((5, 200, 3))
    for network, precision in ((narrow, "fp32"), (narrow, "fp64"), (wide, "tf32")):
        objective = Objective(network, rows_of(network, 50), backend=GpuOnHost(folder), precision=precision)
        assert objective.conditions()["kernel"] == "layered"
        objective.close()
        with pytest.raises(BackendError, match="fused kernel"):
            Objective(network, rows_of(network, 50), backend=GpuOnHost(folder, "fused"), precision=precision)


def test_groups_of_leaves_and_rows_that_are_sent_change_no_bit(folder, monkeypatch):
    network = gpubp.Network((5, 7, 3), activation="tanh")
    results = set()
    cuts = [(2048, 1 << 30, 900, 3), (2048, 1 << 30, 900, 1), (8, 1 << 30, 900, 100), (1, 1 << 30, 900, 3)]
    sent = [(8, 3000, 900, 3), (8, 3000, 333, 3), (2048, 1, 0, 3), (4, 900, 17, 3)]
    for group, piece, kept, processors in cuts + sent:
        monkeypatch.setattr(fused_pass, "GROUP", group)
        monkeypatch.setattr(fused_pass, "PIECE_BYTES", piece)
        backend = GpuOnHost(folder, "fused")
        backend.processors = processors
        results.add(evaluate(backend, network, rows_of(network, 900, kept=kept), "tf32"))
        assert (backend.sent == 0) == (kept == 900)
    assert len(results) == 1


def test_leaves_are_short_and_do_not_follow_the_device():
    assert fused_pass.fused_leaves(5_000) == 128
    assert fused_pass.fused_leaves(60_000) == 256
    assert fused_pass.fused_leaves(20_000_000) == 2048
    assert fused_pass.fused_leaves(1_000_000_000) == 1 << 16
    assert fused_pass.fused_leaves(1) == 1


def test_graphs_are_few_and_follow_theta(folder):
    network, backend = gpubp.Network((5, 6, 3)), GpuOnHost(folder, "layered")
    objective = Objective(network, rows_of(network, 60), 0.3, backend=backend, precision="fp64")
    vectors, host = objective.vectors, np.zeros(network.P)
    pairs = [(vectors.zeros(network.P), vectors.zeros(network.P)) for _ in range(12)]
    for turn in range(3):
        for i, (Theta, gradient) in enumerate(pairs):
            vectors.put(theta(network) * (1 + 0.1 * i + turn), Theta)
            J = float(objective.value_and_gradient(Theta, gradient))
            assert J == objective.value_and_gradient(theta(network) * (1 + 0.1 * i + turn), host)
            assert np.array_equal(vectors.to_host(gradient), host)
            assert len(objective._pass._engine._recorded) <= 8
    objective.close()
    objective.close()
