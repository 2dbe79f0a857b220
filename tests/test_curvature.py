"""B v and B: against dense JᵀHJ and ∇J from differences, and to the same bits however shared out."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp import activation, backprop, cost, curvature, optimizers
from gpubp.backend import choose
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.errors import UsageError
from gpubp.objective import Objective
from gpubp.optimizers import lm
from gpubp.optimizers.curvature import Layer
from gpubp.training import StopRequest, _Stopped, _Watched
from gpubp.walk import spread

NONE = Scaling("none", None, None)


def rows_of(network, m=29, seed=0, scaling=NONE, dtype: Any = np.float64, weighted=True, held=True, kept=None) -> Rows:
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(m, network.sizes[0])) * np.resize([2.0, 0.5, 1, 3], network.sizes[0]) + 1).astype(dtype)
    if network.cost == "squares":
        y: np.ndarray = rng.normal(size=(m, network.K))
    elif network.cost == "softmax":
        y = rng.integers(0, network.K, m).astype(np.uint32)
    else:
        y = (rng.random((m, network.K)) < 0.4) * 1.0
    w = np.linspace(0.5, 2, m) if weighted else None
    v = np.where(np.arange(m) % 7 == 0, 1.0, 0.0) if held else None
    if v is not None:
        w = np.where(v > 0, 0.0, 1.0 if w is None else w)
    source = ArrayRows(X)
    return Rows(source, source.array[:kept], scaling, y, w, v)


def array_of(rows: Rows) -> np.ndarray:
    source = rows.source
    assert isinstance(source, ArrayRows)
    return source.array


def theta_of(network, seed=1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return network.pack([rng.normal(size=(o, i + 1)) * 0.6 for i, o in pairwise(network.sizes)])


def direction(network, seed=2) -> np.ndarray:
    return theta_of(network, seed)


@contextmanager
def objective(network, rows, lambda_=0.7, threads=1, precision="fp64", **plan: Any):
    backend, _ = choose("cpu", threads=threads, kernel="numpy")
    backend.owners_for = lambda m, sizes: threads  # type: ignore[method-assign]
    it = Objective(network, rows, lambda_, backend=backend, precision=precision, **plan)
    try:
        yield it
    finally:
        it.close()


def where(network) -> np.ndarray:
    """The flat positions of the parameters, in the order of `layers`."""
    flat = np.arange(network.P)
    return np.concatenate([part for one in network.places for part in (flat[one.weights], flat[one.biases])])


def dense(network, rows: Rows, Theta, lambda_) -> np.ndarray:
    """B from central differences of z and h(z), written with NumPy alone; (p, p)."""
    g = activation.activation(network.activation).g
    takes_z = network.J

    def z_of(flat):
        W, b = network.views(flat)
        a = (array_of(rows) - (0 if rows.scaling.mean is None else rows.scaling.mean)) / (
            1 if rows.scaling.scale is None else rows.scaling.scale
        )
        for l in range(1, network.L):
            z = a @ W[l].T
            a = g(np, z, b[l]) if l + 1 < network.L else z + b[l]
        return a

    at = where(network)
    step, J = 1e-6, []
    for i in at:
        up, down = Theta.copy(), Theta.copy()
        up[i], down[i] = up[i] + step, down[i] - step
        J.append((z_of(up) - z_of(down)) / (2 * step))
    J = np.array(J)  # (p, m, K)
    z = z_of(Theta)
    h = takes_z.h(np, takes_z.score(np, z, np.zeros((1, network.K))))
    w = np.ones(len(z)) if rows.weights is None else rows.weights
    B = np.zeros((len(at), len(at)))
    for t in range(len(z)):
        H = np.eye(network.K)
        if network.cost == "softmax":
            H = np.diag(h[t]) - np.outer(h[t], h[t])
        elif network.cost == "logistic":
            H = np.diag(h[t] * (1 - h[t]))
        elif network.cost == "sigmoid_squares":
            H = np.diag((h[t] * (1 - h[t])) ** 2)
        B += w[t] * J[:, t] @ H @ J[:, t].T
    B /= rows.weight_sum
    weights = np.zeros(network.P)
    for one in network.places:
        weights[one.weights] = lambda_ / rows.weight_sum
    return B + np.diag(weights[at])


def product(it: Objective, Theta, v) -> np.ndarray:
    out = np.full(it.network.P, np.nan)
    it.curvature.product(Theta, v, out)
    return out


def close(found, wanted, tolerance):
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def away_from_kinks(network, rows) -> np.ndarray:
    """A Θ where no z of a hidden unit of relu is near 0."""
    for seed in range(60):
        Theta = theta_of(network, seed)
        W, b = network.views(Theta)
        a, nearest = array_of(rows), np.inf
        for l in range(1, network.L - 1):
            z = a @ W[l].T + b[l]
            nearest, a = min(nearest, np.abs(z).min()), activation.activation(network.activation).g(np, z, 0)
        if nearest > 1e-4:
            return Theta
    pytest.fail("no draw away from the kink")


@pytest.mark.parametrize("J", cost.names())
@pytest.mark.parametrize("g", activation.names())
def test_product_and_matrix_are_the_dense_one(g, J):
    network = gpubp.Network((4, 6, 3, 3), activation=g, cost=J)
    rows = rows_of(network)
    Theta, v = away_from_kinks(network, rows), direction(network)
    wanted = dense(network, rows, Theta, 0.7)
    at = where(network)
    with objective(network, rows, leaves=4, block_rows=3) as it:
        B = it.curvature.matrix(Theta)
        close(B, wanted, 1e-7)
        Bv = product(it, Theta, v)
    close(Bv[at], B @ v[at], 1e-13)
    assert np.count_nonzero(np.delete(Bv, at)) == 0  # gaps
    assert np.array_equal(B, B.T) or np.abs(B - B.T).max() <= 1e-15 * np.abs(B).max()
    assert np.linalg.eigvalsh(B).min() >= -1e-13 * np.abs(B).max()


@pytest.mark.parametrize("lambda_", [0.0, 3.0])
def test_where_j_is_quadratic_b_is_the_difference_of_gradients(lambda_):
    network = gpubp.Network((5, 4), cost="squares")
    rows = rows_of(network)
    Theta, v = theta_of(network), direction(network)
    with objective(network, rows, lambda_) as it:
        ends = [np.empty(network.P) for _ in range(2)]
        for end, at in zip(ends, (Theta, Theta + v), strict=True):
            it.value_and_gradient(at, end)
        close(product(it, Theta, v), ends[1] - ends[0], 1e-12)


def test_near_a_perfect_fit_b_is_the_hessian():
    network = gpubp.Network((3, 5, 2), activation="tanh", cost="squares")
    Theta, v = theta_of(network), direction(network)
    rows = rows_of(network, held=False)
    with objective(network, rows) as it:
        W, b = network.views(Theta)
        rows.labels = np.tanh(array_of(rows) @ W[1].T + b[1]) @ W[2].T + b[2]
    with objective(network, rows) as it:
        up, down = np.empty(network.P), np.empty(network.P)
        it.value_and_gradient(Theta + 1e-5 * v, up)
        it.value_and_gradient(Theta - 1e-5 * v, down)
        close(product(it, Theta, v), (up - down) / 2e-5, 1e-7)


@pytest.mark.parametrize("kind", ["none", "mean and scale", "far"])
def test_scaling_is_folded_or_not_and_gives_the_same(kind):
    network = gpubp.Network((4, 5, 3), activation="tanh", cost="softmax")
    mean, scale = np.array([1.0, -0.5, 0.2, 2]), np.array([2.0, 0.3, 1, 4])
    if kind == "far":
        mean = mean + 1e4 * scale  # not folded
    rows = rows_of(network, scaling=NONE if kind == "none" else Scaling("standard", mean, scale))
    if kind == "far":
        array_of(rows)[...] += 1e4 * scale
    Theta, v = theta_of(network), direction(network)
    with objective(network, rows) as it:
        assert it.curvature.feed.folds == (kind == "mean and scale")
        B, Bv = it.curvature.matrix(Theta), product(it, Theta, v)
    close(B, dense(network, rows, Theta, 0.7), 1e-6)
    close(Bv[where(network)], B @ v[where(network)], 1e-12)


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_the_same_bits_for_any_number_of_threads_and_rows_in_memory(precision):
    network = gpubp.Network((7, 9, 4, 3), activation="silu")
    found = []
    for threads, kept in ((1, None), (2, 0), (3, 1000), (3, None)):
        rows = rows_of(network, 4003, dtype=np.float32, kept=kept, weighted=False)
        with objective(network, rows, threads=threads, precision=precision, leaves=8, block_rows=100) as it:
            Theta, v = theta_of(network), direction(network)
            for _ in range(2):
                found.append(product(it, Theta, v).tobytes() + it.curvature.matrix(Theta).tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize("sizes", [(3, 8, 2), (8, 3, 2), (2, 5, 5, 1)])
def test_float32_passes_are_near_and_their_matrix_is_positive_semidefinite(sizes):
    network = gpubp.Network(sizes, activation="tanh", cost="logistic")
    rows = rows_of(gpubp.Network((sizes[0], 2), cost="squares"), 500, held=False)
    rows.labels = (np.random.default_rng(3).random((500, sizes[-1])) < 0.5) * 1.0
    Theta, v = theta_of(network), direction(network)
    exact = {}
    for precision in ("fp64", "fp32"):
        with objective(network, rows, 0.0, precision=precision) as it:
            exact[precision] = it.curvature.matrix(Theta), product(it, Theta, v)
    for one, other in zip(exact["fp32"], exact["fp64"], strict=True):
        close(one, other, 3e-6)
    eigenvalues = np.linalg.eigvalsh(exact["fp32"][0])
    assert eigenvalues[0] >= -1e-14 * eigenvalues[-1]


@pytest.mark.parametrize("missing", ["a V", "v_b", "Ra W", "slope", "decay", "curvature"])
def test_a_term_that_is_missing_is_noticed(missing, monkeypatch):
    """The test of the tests: what `dense` says differs from a product that lacks a term."""
    network = gpubp.Network((4, 6, 3, 3), activation="tanh")
    rows = rows_of(network)
    Theta, v = theta_of(network), direction(network)
    real = curvature.forward_along

    def broken(backend, network, Theta, V, block):
        if missing in ("a V", "v_b"):
            V = type(V)(V.W, list(V.b)) if missing == "v_b" else type(V)(list(V.W), V.b)
            part = V.b if missing == "v_b" else V.W
            part[2] = np.zeros_like(part[2])
        if missing == "Ra W":
            Theta = type(Theta)([None, Theta.W[1], np.zeros_like(Theta.W[2]), Theta.W[3]], Theta.b)
        real(backend, network, Theta, V, block)

    monkeypatch.setattr(curvature, "forward_along", broken)
    with objective(network, rows) as it:
        if missing == "slope":
            monkeypatch.setattr(backprop, "slope_at", lambda n, T, block, l: (block.ones * 0,))
        if missing == "decay":
            it.curvature.decay = 0.0
        if missing == "curvature":
            plain = replace(network.J, curvature=cost.cost("squares").curvature)
            monkeypatch.setitem(cost._COSTS, "softmax", plain)
        found = product(it, Theta, v)[where(network)]
    with monkeypatch.context() as undo:
        undo.undo()
        wanted = dense(network, rows, Theta, 0.7) @ v[where(network)]
    assert np.abs(found - wanted).max() > 1e-3 * np.abs(wanted).max()


def test_what_it_says_of_layers_and_costs():
    network = gpubp.Network((2, 20, 1), activation="tanh", cost="squares")
    with objective(network, rows_of(network, held=False, weighted=False), 0.5) as it:
        curved = it.curvature
        assert curved is it.curvature
        flat = np.arange(float(network.P))
        for l, one in enumerate(curved.layers, start=1):
            like = Layer(*one)
            views = network.views(flat)
            assert np.array_equal(flat[like.weights].reshape(like.outputs, like.inputs), views.W[l])
            assert np.array_equal(flat[like.biases], views.b[l][0])
        assert curved.decay == 0.5 / 29
        assert curved.product_passes == pytest.approx((5 * 60 - 2 * 40) / (3 * 60 - 40))
        # forward 120, errors 40, derivatives 81, products 81·82, of 280 for a pass
        assert curved.matrix_passes == pytest.approx((120 + 40 + 81 + 81 * 82) / 280)


def test_too_many_parameters_and_a_cost_that_does_not_tell_are_refused_in_words(monkeypatch):
    network = gpubp.Network((70, 70, 3))
    rows = rows_of(gpubp.Network((7, 3)))
    rows = Rows(ArrayRows(np.ones((29, 70))), np.ones((29, 70)), NONE, rows.labels)
    with objective(network, rows) as it, pytest.raises(UsageError, match=r"5,183 .*; wanted 4,096 .* klbfgs or gn"):
        it.curvature.matrix(theta_of(network))
    with objective(network, rows) as it, pytest.raises(UsageError, match=r"^lm for 5,183 parameters.*klbfgs or gn"):
        optimizers.make("lm").init(it, theta_of(network))
    monkeypatch.setitem(
        cost._COSTS,
        "plain",
        replace(cost.cost("squares"), name="plain", curvature=None, root=None),
    )
    network = gpubp.Network((3, 2), cost="plain")
    with objective(network, rows_of(gpubp.Network((3, 2), cost="squares"))) as it:
        for use in (
            lambda: it.curvature.matrix(theta_of(network)),
            lambda: product(it, theta_of(network), theta_of(network)),
        ):
            with pytest.raises(UsageError, match="the cost plain, which does not tell how it"):
                use()


def test_no_walk_begins_after_a_request_to_stop():
    network = gpubp.Network((3, 2), cost="squares")
    with objective(network, rows_of(network)) as it:
        stop = StopRequest()
        it.communicator.wish = lambda: stop.by or ""
        f = _Watched(it)
        out = np.empty(network.P)
        assert f.curvature is not None
        f.curvature.product(theta_of(network), direction(network), out)
        assert np.array_equal(out, product(it, theta_of(network), direction(network)))
        assert f.curvature.decay == it.curvature.decay and f.curvature.layers is it.curvature.layers
        stop.by = "SIGTERM"
        for use in (partial(f.curvature.product, out, out, out), partial(f.curvature.matrix, out)):
            with pytest.raises(_Stopped):
                use()


@pytest.mark.parametrize("scaled", [False, True])
def test_the_matrix_of_a_sample_is_that_of_its_rows(scaled):
    network = gpubp.Network((3, 4, 2), activation="tanh")
    scaling = Scaling("standard", np.array([1.0, 0.5, 2]), np.array([2.0, 0.5, 1])) if scaled else NONE
    rows = rows_of(network, 2000, scaling=scaling)
    Theta = theta_of(network)
    drawn = spread(2000, 32, 3, 0, 5)
    assert all(i * 62.5 - 1 < u and v - u == 3 and v <= (i + 1) * 62.5 for i, (u, v) in enumerate(drawn))
    assert drawn == spread(2000, 32, 3, 0, 5) != spread(2000, 32, 3, 0, 6)
    own = np.concatenate([np.arange(u, v) for u, v in drawn])
    array, labels, weights = rows.kept, rows.labels, rows.weights
    assert labels is not None and weights is not None
    few = Rows(ArrayRows(array[own]), array[own], scaling, labels[own], weights[own])
    found = []
    for threads, kept in ((1, None), (3, 700), (2, 0)):
        rows = Rows(ArrayRows(array), array[:kept], scaling, labels, weights)
        with objective(network, rows, threads=threads) as it:
            for _ in range(2):
                B, passes = it.curvature.sampled_matrix(Theta, 80, 5)
                assert passes == pytest.approx(it.curvature.matrix_passes * 96 / 2000)
                found.append(B)
            decay = it.curvature.decay
            whole, passes = it.curvature.sampled_matrix(Theta, 1999, 5)
            assert passes == it.curvature.matrix_passes and np.array_equal(whole, it.curvature.matrix(Theta))
    assert len({B.tobytes() for B in found}) == 1
    with objective(network, few, decay * few.weight_sum) as it:
        close(found[0], it.curvature.matrix(Theta), 1e-12)


def reached(name: str, it: Objective, passes: float, **options: Any) -> float:
    """J where a run has cost so many passes."""
    optimizer = optimizers.make(name, **options)
    f = _Watched(it)
    state = optimizer.init(f, it.network.initial_Theta(0))
    J = state.J
    while optimizer.step(f, state) is None and state.passes <= passes:
        J = state.J
    return J


def test_lm_with_a_sample_of_many_rows_leaves_lbfgs_far_behind_all_charged():
    network = gpubp.Network((2, 20, 1), activation="tanh", cost="squares")
    X = np.random.default_rng(5).uniform(-1, 1, (20_000, 2))
    y = np.sin(3 * X[:, :1]) * np.cos(4 * X[:, 1:]) + X[:, :1] ** 2
    with objective(network, Rows(ArrayRows(X), X, NONE, y), 0.0) as it:
        assert reached("lm", it, 50) < 0.01 * reached("lbfgs", it, 50)


def test_gn_goes_down_on_a_network():
    network = gpubp.Network((4, 8, 8, 3), activation="tanh")
    with objective(network, rows_of(network, 500), 0.1) as it:
        rows = array_of(it.rows)
        assert it.rows.labels is not None
        it.rows.labels[...] = (np.abs(rows[:, 0]) > 1) + (rows[:, 1] + rows[:, 2] > 2)
        gn, lbfgs = (reached(name, it, passes) for name, passes in (("gn", 200), ("lbfgs", 40)))
        assert gn <= lbfgs


def test_lm_and_the_matrix_it_asks_for_have_one_limit():
    """Neither may import the other's."""
    assert lm.MOST_PARAMETERS == curvature.MOST_PARAMETERS
