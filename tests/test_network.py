"""The layout of Θ: Ng's matrices outside, aligned weights and biases inside."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.errors import UsageError
from gpubp.network import Network


def test_pack_and_unpack_are_inverse_and_keep_the_bias_in_column_0():
    network = Network((3, 5, 2), cost="softmax")
    matrices = [np.arange(20.0).reshape(5, 4), -np.arange(12.0).reshape(2, 6)]
    flat = network.pack(matrices)
    assert flat.shape == (network.P,) and flat.dtype == np.float64
    for given, back in zip(matrices, network.unpack(flat), strict=True):
        np.testing.assert_array_equal(given, back)
    W, b = network.views(flat)
    np.testing.assert_array_equal(b[1][0], matrices[0][:, 0])
    np.testing.assert_array_equal(W[2], matrices[1][:, 1:])
    assert np.shares_memory(W[1], flat)


def test_every_part_starts_at_64_bytes_in_float32_and_gaps_stay_zero():
    network = Network((3, 5, 7, 2), cost="softmax")
    flat = np.zeros(network.P, np.float32)
    W, b = network.views(flat)
    base = flat.ctypes.data
    assert all((part.ctypes.data - base) % 64 == 0 for part in [*W[1:], *b[1:]])
    assert network.parameters == 5 * 4 + 7 * 6 + 2 * 8
    assert np.count_nonzero(network.initial_Theta(1)) <= network.parameters


@pytest.mark.parametrize(
    ("sizes", "cost", "words"),
    [((3,), "softmax", "at least an input and an output"), ((3, 0, 2), "softmax", "1 or more units"),
     ((3, 1), "softmax", "2 or more outputs"), ((3, 2), "hinge", "one of logistic")],
)  # fmt: skip
def test_a_network_that_cannot_be_is_refused_in_one_line(sizes, cost, words):
    with pytest.raises(UsageError, match=words):
        Network(sizes, cost=cost)


def test_matrices_of_a_wrong_shape_name_the_layer():
    network = Network((3, 5, 2))
    with pytest.raises(UsageError, match=r"Theta\^\(2\) of shape \(2, 5\); wanted \(2, 6\)"):
        network.pack([np.zeros((5, 4)), np.zeros((2, 5))])


def test_initial_weights_follow_from_the_seed_and_stay_within_epsilon():
    network = Network((10, 20, 3), activation="relu")
    Theta = network.initial_Theta(7)
    np.testing.assert_array_equal(Theta, network.initial_Theta(7))
    assert not np.array_equal(Theta, network.initial_Theta(8))
    T1, T2 = network.unpack(Theta)
    assert not T1[:, 0].any() and not T2[:, 0].any()
    assert 0.8 < np.abs(T1).max() / (2**0.5 * (6 / 30) ** 0.5) <= 1
    assert 0.8 < np.abs(T2).max() / (6 / 23) ** 0.5 <= 1
