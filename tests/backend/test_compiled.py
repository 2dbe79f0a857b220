"""Compiled passes are the passes of NumPy to rounding, and the same to the bit however they are shared out."""

from __future__ import annotations

from itertools import product

import numpy as np
import passes
import pytest
from passes import Pass, assert_close, evaluate, labels, numbers, rows_of

import gpubp
from gpubp import activation, cost
from gpubp.backend import choose
from gpubp.backend.numpy import NumpyBackend
from gpubp.data.scaling import Scaling

pytest.importorskip("numba")

TOLERANCES = {"fp64": 1e-12, "fp32": 5e-6}


def both(network, rows, **options) -> tuple[Pass, Pass]:
    """The compiled passes and NumPy's."""
    return evaluate(network, rows, **options), evaluate(network, rows, kernel="numpy", **options)


def test_the_backend_is_what_was_asked_for():
    backend, why = choose("cpu", kernel="compiled", blas="numpy", threads=3)
    assert type(backend).__name__ == "CompiledBackend" and why.startswith("CPU, as asked; compiled loop, ")
    assert backend.owners == 3 and backend.choice == {"kernel": "compiled", "blas": "numpy"}
    assert {"kernel", "blas", "numpy", "numba", "cpu"} <= set(backend.conditions())
    assert backend.conditions()["kernel"] == "compiled"
    with passes.objective(gpubp.Network((3, 2)), rows_of(numbers((9, 3)), np.zeros(9, np.uint32))) as it:
        assert it._pass._whole is not None  # rows in memory: no Python between leaves


@pytest.mark.parametrize("J", cost.names())
@pytest.mark.parametrize("g", activation.names())
def test_every_activation_and_cost_equals_numpys(g, J):
    """J, ∇J, J alone and the validation cost; one output and three; with and without weights; kept and read again."""
    m, worst = 700, {precision: 0 for precision in TOLERANCES}
    weights = np.arange(m) % 3.0
    held = {"weights": weights, "validation": np.where(weights == 0, 1.5, 0)}
    for precision, K, more, kept in product(TOLERANCES, (1, 3), ({}, held), (m, 100)):
        if J == "softmax" and K == 1:
            continue
        network = gpubp.Network((7, 5, 17, K), g, J)
        X, y = numbers((m, 7), np.float32), labels(network, m)
        options = {"precision": precision, "leaves": 4, "block_rows": 64}
        found, wanted = both(network, rows_of(X, y, kept=kept, **more), **options)
        assert_close(found, wanted, TOLERANCES[precision])
        worst[precision] = max(worst[precision], np.abs(found.gradient - wanted.gradient).max())
        assert (found.validation is not None) == bool(more)
        W, b = network.views(found.gradient)  # the gaps between layers are no parameters, and stay zero
        assert np.count_nonzero(found.gradient) <= sum(np.count_nonzero(part) for part in (*W[1:], *b[1:]))
    assert worst["fp32"] > 0, "the two are the very same program"


@pytest.mark.parametrize("stored", list("?BbHhIiLqefd"))
def test_rows_of_every_type_equal_numpys(stored):
    """As they are; with scaling that goes into Θ^(1); and with scaling that is done while they are loaded."""
    network = gpubp.Network((6, 4, 3), activation="softplus")
    y = labels(network, 300)
    plain = abs(numbers((300, 6), seed=2)) * 2
    far = 210 + 2 * numbers((300, 6), seed=3)
    if stored in "?b":  # which does not reach that far
        far = plain
    mean, narrow = far.mean(axis=0), far.mean(axis=0) / 120
    scalings = {
        "none": (plain, passes.NONE),
        "folded": (plain, Scaling("standard", np.full(6, 1.5), np.linspace(0.5, 2, 6))),
        "÷ 255": (plain, Scaling("255", None, np.full(6, 255.0))),
        "standardised": (far, Scaling("standard", mean, narrow)),
        "divided": (plain, Scaling("standard", None, np.full(6, 1e16))),
    }
    for (name, (values, scaling)), precision, kept in product(scalings.items(), TOLERANCES, (300, 40)):
        rows = rows_of(values.astype(stored), y, kept=kept, scaling=scaling)
        assert rows.folds() == (name in ("folded", "÷ 255"))
        found, wanted = both(network, rows, precision=precision, leaves=2, block_rows=40)
        # folding costs float32 some digits of its own, in another order here and there
        assert_close(found, wanted, TOLERANCES[precision] * (4 if name == "folded" else 1))
        if precision == "fp64":
            scaled = rows_of(scaling.apply(rows.source.array), y)
            assert_close(found, evaluate(network, scaled, kernel="numpy", precision="fp64"), 1e-11)


@pytest.mark.parametrize("J", cost.names())
@pytest.mark.parametrize(
    "sizes", [(1, 2), (5, 300), (300, 3), (1, 16, 2), (3, 25, 3), (16, 300, 25, 2), (25, 1, 16, 16, 3)]
)
def test_layers_of_every_width_equal_numpys(sizes, J):
    network = gpubp.Network(sizes, "tanh", J)
    X, y = numbers((97, sizes[0])), labels(network, 97)
    for precision, weights in product(TOLERANCES, (None, np.linspace(0, 3, 97))):
        rows = rows_of(X, y, weights=weights)
        assert_close(*both(network, rows, precision=precision, leaves=2, block_rows=20), TOLERANCES[precision])


@pytest.mark.parametrize("codes", list("BHIbhiq"))
def test_class_numbers_of_every_type(codes):
    for K in (1, 3):
        network = gpubp.Network((4, 5, K), cost="logistic")
        y = labels(network, 80)
        wanted = evaluate(network, rows_of(numbers((80, 4)), y), kernel="numpy", precision="fp64")
        found = evaluate(network, rows_of(numbers((80, 4)), y.astype(codes)), precision="fp64", block_rows=30)
        assert_close(found, wanted, 1e-12)


@pytest.mark.parametrize(("J", "kinds"), [("logistic", "?Bife"), ("sigmoid_squares", "fd"), ("squares", "hfd")])
def test_a_matrix_of_targets_of_every_type(J, kinds):
    """Several labels per row as 0/1 (or in between), real targets; a matrix that lies column by column as well."""
    network = gpubp.Network((4, 5, 3), cost=J)
    X = numbers((80, 4))
    for kind in kinds:
        y = (np.random.default_rng(1).random((80, 3)) * (1 if kind in "efd" else 2)).astype(kind)
        for matrix in (y, np.asfortranarray(y)):
            found, wanted = both(network, rows_of(X, matrix), precision="fp64", block_rows=30)
            assert_close(found, wanted, 1e-12)
        assert_close(found, evaluate(network, rows_of(X, y.astype(float)), kernel="numpy", precision="fp64"), 1e-12)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "gaps in rows": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "gaps between rows": lambda X: np.repeat(X, 3, axis=0)[::3],
    "backwards": lambda X: X[::-1].copy()[::-1],
    "a part of wider rows": lambda X: np.hstack([X, X])[:, : X.shape[1]],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("stored", ["u1", "f4", "f8"])
def test_rows_that_lie_otherwise_in_memory_give_the_same_bits(layout, stored):
    network = gpubp.Network((6, 9, 3), activation="tanh")
    X = (numbers((400, 6)) * 3 % 7).astype(stored)
    other, y = layout(X), labels(network, 400)
    assert not other.flags.c_contiguous and np.array_equal(X, other)
    for precision in TOLERANCES:
        options = {"precision": precision, "leaves": 4, "block_rows": 30}
        assert evaluate(network, rows_of(other, y), **options).bits == evaluate(network, rows_of(X, y), **options).bits


def test_few_rows_and_leaves_without_any():
    network = gpubp.Network((5, 8, 3), activation="silu")
    for m, leaves in ((1, 1), (1, 4), (3, 8), (5, 4)):
        rows = rows_of(numbers((m, 5)), labels(network, m))
        wanted = evaluate(network, rows, kernel="numpy", precision="fp64", leaves=1)
        assert_close(evaluate(network, rows, precision="fp64", leaves=leaves), wanted, 1e-12)


def test_a_theta_that_is_not_finite_is_seen_and_leaves_nothing_behind():
    network = gpubp.Network((5, 8, 3), activation="relu")
    rows = rows_of(numbers((200, 5)), labels(network, 200))
    with passes.objective(network, rows, precision="fp32", leaves=4, block_rows=20) as it:
        before = passes.at(it)
        for bad in (np.nan, np.inf, 1e300):
            Theta = network.initial_Theta(1)
            Theta[3] = bad
            assert not np.isfinite(passes.at(it, Theta).J)
            assert passes.at(it).bits == before.bits


def test_large_scores_keep_their_limits():
    """h is 0 or 1 to the last bit, and J what the formula's limit is."""
    for J, (precision, tolerance) in product(cost.names(), TOLERANCES.items()):
        network = gpubp.Network((1, 3), cost=J)
        Theta = network.pack([np.array([[0, 900.0], [0, -900.0], [1, 0.0]])])
        rows = rows_of(np.array([[1.0], [-1.0]]), np.array([[1.0, 0, 0], [0, 1, 0]]))
        results = []
        for kernel in ("compiled", "numpy"):
            with passes.objective(network, rows, kernel=kernel, precision=precision) as it:
                results.append(passes.at(it, Theta))
        assert np.isfinite(results[0].J)
        assert_close(*results, tolerance)


# The same bits.


def big(precision: str, g: str = "tanh"):
    network = gpubp.Network((50, 25, 18, 10), g)
    return (
        network,
        numbers((3001, 50), np.float32),
        labels(network, 3001),
        {"precision": precision, "leaves": 16, "block_rows": 100},
    )


@pytest.mark.parametrize("library", passes.blas_libraries())
@pytest.mark.parametrize("precision", TOLERANCES)
def test_threads_and_repetitions_change_no_bit(precision, library):
    network, X, y, options = big(precision)
    weights = np.arange(3001) % 3.0
    rows = rows_of(X, y, weights=weights, validation=np.where(weights == 0, 1.0, 0))
    results = []
    for threads in (1, 2, 3, 4, 7):
        with passes.objective(network, rows, threads=threads, library=library, **options) as it:
            results += [passes.at(it).bits for _ in range(6)]
    assert set(results) == {results[0]}
    # what is computed by other leaves is another sum: the comparison above can fail
    assert evaluate(network, rows, library=library, **(options | {"leaves": 8})).bits != results[0]


@pytest.mark.parametrize("library", passes.blas_libraries())
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("scaled", [False, True], ids=["as stored", "standardised"])
def test_how_many_rows_are_kept_changes_no_bit(precision, library, scaled):
    network, X, y, options = big(precision, "silu")
    scaling = Scaling("standard", np.full(50, 1.0), np.full(50, 0.002)) if scaled else passes.NONE
    results = {
        evaluate(network, rows_of(X, y, kept=kept, scaling=scaling), threads=threads, library=library, **options).bits
        for kept, threads in ((3001, 2), (3000, 1), (3000, 3), (1234, 2), (1, 2), (0, 4))
    }
    assert len(results) == 1


@pytest.mark.parametrize("library", passes.blas_libraries())
@pytest.mark.parametrize(("stored", "precision"), [("f4", "fp32"), ("f4", "fp64"), ("f8", "fp64"), ("u1", "fp32")])
def test_rows_may_begin_at_any_address(stored, precision, library):
    network, X, y, options = big(precision)
    X = (X * 10 % 200).astype(stored)
    raw = np.zeros(X.nbytes + 256, np.uint8)
    start = -raw.ctypes.data % 64
    results = set()
    for shift in range(0, 64, 4 * (1 if X.itemsize < 8 else 2)) if stored != "u1" else (0, 1, 2, 3, 5, 8, 31, 63):
        moved = raw[start + shift : start + shift + X.nbytes].view(stored).reshape(X.shape)
        moved[...] = X
        assert moved.ctypes.data % 64 == shift
        results.add(evaluate(network, rows_of(moved, y), library=library, **options).bits)
    assert len(results) == 1


def test_both_libraries_agree_to_rounding():
    libraries = passes.blas_libraries()
    if libraries[1].marks[0].args[0]:
        pytest.skip(libraries[1].marks[0].kwargs["reason"])
    network, X, y, _ = big("fp64")
    for precision, tolerance in TOLERANCES.items():
        found = evaluate(network, rows_of(X, y), library="mkl", precision=precision)
        assert_close(found, evaluate(network, rows_of(X, y), precision=precision), tolerance)


# How work is shared.


@pytest.mark.parametrize("kernel", ["numpy", "compiled"])
def test_leaves_and_blocks_follow_from_the_rows_and_the_network_alone(kernel):
    answers = []
    for threads in (1, 2, 64):
        backend, _ = choose("cpu", threads=threads, kernel=kernel, blas="auto" if kernel == "numpy" else "numpy")
        problems = product((1, 100, 5000, 10**5, 10**6, 10**9), ((1, 1), (784, 25, 10), (100, 8, 2), (4096, 4096, 10)))
        answers.append({problem: backend.leaves_and_block(*problem) for problem in problems})
    assert answers[0] == answers[1] == answers[2]
    for (m, sizes), (leaves, block_rows) in answers[0].items():
        assert leaves & (leaves - 1) == 0 and 1 <= leaves <= max(1, m)
        assert block_rows >= 64 and block_rows * max(sizes) * 8 <= 1 << 30
    assert answers[0][100, (784, 25, 10)][0] == 1
    assert 64 <= answers[0][10**6, (784, 25, 10)][0] <= 256  # for the cores of one machine
    assert answers[0][10**9, (784, 25, 10)][0] == answers[0][10**9, (4096, 4096, 10)][0] == 1 << 14  # of many
    assert isinstance(backend, NumpyBackend)


@pytest.mark.parametrize("kernel", ["numpy", "compiled"])
def test_small_problems_take_one_thread_and_large_ones_all(kernel):
    backend, _ = choose("cpu", threads=8, kernel=kernel, blas="auto" if kernel == "numpy" else "numpy")
    assert backend.owners_for(10, (4, 3)) == 1
    assert backend.owners_for(10**6, (784, 100, 10)) == 8
    counts = [backend.owners_for(m, (20, 30, 5)) for m in (1, 10, 10**2, 10**3, 10**4, 10**5, 10**6)]
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] == 8 and len(set(counts)) > 2
    single, _ = choose("cpu", threads=1, kernel=kernel, blas="auto" if kernel == "numpy" else "numpy")
    assert single.owners_for(10**6, (784, 100, 10)) == 1
