"""The engine on a GPU: against float64 on the CPU, the same bits again, rows that are sent, a full card."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from devices import gpu
from test_engine import ERRORS, assert_like_the_cpu, evaluate, rows_of, theta

import gpubp
from gpubp import activation, cost
from gpubp.backend.cupy import CupyBackend
from gpubp.data.scaling import Scaling
from gpubp.objective import Objective

pytestmark = pytest.mark.gpu


@pytest.fixture
def make() -> Any:
    """``make(kernel)``: a backend."""
    gpu()
    return lambda kernel="auto": CupyBackend(0, kernel)


@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("sizes", [(28, 64, 64, 1), (400, 25, 10), (784, 256, 128, 10), (13, 300, 7), (5, 3)], ids=str)
def test_layered_passes(make, sizes, precision):
    network = gpubp.Network(sizes, activation="tanh", cost="logistic")
    assert_like_the_cpu(make("layered"), network, rows_of(network, 20_000, held=True), precision)


@pytest.mark.parametrize("precision", ["tf32x3", "tf32", "bf16"])
@pytest.mark.parametrize("sizes", [(28, 64, 64, 1), (400, 25, 10), (13, 7, 5, 3), (28, 128, 128, 1)], ids=str)
def test_fused_passes(make, sizes, precision):
    network = gpubp.Network(sizes, activation="sigmoid", cost="logistic")
    try:
        assert_like_the_cpu(make("fused"), network, rows_of(network, 20_011, held=True), precision)
    except gpubp.BackendError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("g", activation.names())
@pytest.mark.parametrize("J", cost.names())
def test_every_activation_and_cost(make, g, J):
    network = gpubp.Network((9, 20, 17, 3), activation=g, cost=J)
    for kernel, precision in (("layered", "fp64"), ("layered", "bf16"), ("fused", "tf32x3"), ("fused", "bf16")):
        assert_like_the_cpu(make(kernel), network, rows_of(network, 3001, held=True), precision)


@pytest.mark.parametrize("stored", [np.uint8, np.int32, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kernel", ["layered", "fused"])
def test_rows_of_every_type(make, kernel, stored):
    network = gpubp.Network((7, 16, 3))
    scaling = Scaling("standard", np.full(7, 3.0), np.linspace(1, 3, 7))
    rows = rows_of(network, 5000, stored=stored, scaling=scaling)
    assert_like_the_cpu(make(kernel), network, rows, "tf32x3")


@pytest.mark.parametrize("kernel", ["layered", "fused"])
@pytest.mark.parametrize("sizes", [(28, 64, 64, 1), (7, 33, 3)], ids=str)
def test_rows_that_are_sent_give_the_bits_of_rows_that_stay(make, kernel, sizes):
    network = gpubp.Network(sizes, activation="tanh", cost="logistic")
    kept = (0, 33_333, 100_000)
    results = {evaluate(make(kernel), network, rows_of(network, 100_000, kept=k), "tf32") for k in kept}
    assert len(results) == 1


@pytest.mark.parametrize("kernel", ["layered", "fused"])
def test_a_full_card_keeps_fewer_rows_and_the_same_bits(make, kernel):
    network = gpubp.Network((28, 64, 1), cost="logistic")
    rows = rows_of(network, 400_000)  # 45 MB
    wanted = evaluate(make(kernel), network, rows, "tf32")
    backend = make(kernel)
    objective = Objective(network, rows, 0.3, backend=backend, precision="tf32")
    before = objective._pass.resident_rows
    objective._pass._engine.queue = _full_once(backend, objective._pass._engine.queue)
    gradient = np.zeros(network.P)
    J = objective.value_and_gradient(theta(network), gradient)
    assert (J, None, gradient.tobytes()) == wanted and objective._pass.resident_rows <= before // 2
    objective.close()


def _full_once(backend: Any, queue: Any) -> Any:
    """The first call finds the card full."""

    def call(*arguments: Any) -> None:
        backend.empty((1 << 50,), np.dtype(np.uint8))
        queue(*arguments)

    return call


def test_one_wait_for_an_evaluation_of_device_vectors(make):
    backend = make()
    network = gpubp.Network((28, 64, 1), cost="logistic")
    objective = Objective(network, rows_of(network, 50_000), 0.3, backend=backend, precision="tf32")
    vectors = objective.vectors
    with backend.guard():
        Theta, gradient = vectors.zeros(network.P), vectors.zeros(network.P)
        before = vectors.waits
        for _ in range(5):
            float(objective.value_and_gradient(Theta, gradient))
        assert vectors.waits == before + 5
    objective.close()
