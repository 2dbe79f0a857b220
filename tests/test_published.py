"""Figures that others published, to the digits they printed."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp


def column_major(first: int, shape: tuple[int, int]) -> np.ndarray:
    """Octave's reshape(first:…, shape) / 10."""
    count = shape[0] * shape[1]
    return np.arange(first, first + count, dtype=float).reshape(shape[::-1]).T / 10


def course_case() -> tuple[gpubp.Network, np.ndarray, np.ndarray, list[int]]:
    """The test case that the course's community wrote for exercise 4 (nnCostFunction): a 2-2-4 network."""
    network = gpubp.Network((2, 2, 4), activation="sigmoid", cost="logistic")
    Theta = network.pack([column_major(1, (2, 3)), column_major(7, (4, 3))])
    return network, Theta, np.cos([[1, 2], [3, 4], [5, 6]]), [3, 1, 2]


@pytest.mark.parametrize(("lambda_", "J"), [(0.0, 7.406969856065753), (4.0, 19.473636522732416)])
def test_community_case_of_exercise_4(lambda_, J):
    network, Theta, X, y = course_case()
    assert gpubp.cost_and_gradient(network, Theta, X, y, lambda_=lambda_)[0] == pytest.approx(J, rel=1e-13)


def test_community_case_gradient():
    # printed to six digits for the same case, column-major, Theta1 then Theta2
    published = """0.766138 0.979897 -0.027540 -0.035844 -0.024929 -0.053862
        0.883417 0.568762 0.584668 0.598139 0.459314 0.344618 0.256313 0.311885 0.478337 0.368920 0.259771 0.322331"""
    network, Theta, X, y = course_case()
    _, gradient = gpubp.cost_and_gradient(network, Theta, X, y)
    columns = np.concatenate([D.ravel(order="F") for D in network.unpack(gradient)])
    np.testing.assert_allclose(columns, np.array(published.split(), float), rtol=0, atol=5e-7)


@pytest.mark.parametrize(("lambda_", "J"), [(0.0, 2.100950569902465), (3.0, 2.146359815024358)])
def test_gradient_check_network_of_exercise_4(lambda_, J):
    # checkNNGradients.m: 3-5-3, every matrix sin(1:n)/10 column-major; J by the published Octave code
    def sines(shape):
        return np.sin(np.arange(1, shape[0] * shape[1] + 1)).reshape(shape[::-1]).T / 10

    network = gpubp.Network((3, 5, 3), activation="sigmoid", cost="logistic")
    Theta = network.pack([sines((5, 4)), sines((3, 6))])
    y = np.mod(np.arange(1, 6), 3)
    cost, gradient = gpubp.cost_and_gradient(network, Theta, sines((5, 3)), y, lambda_=lambda_)
    assert cost == pytest.approx(J, rel=1e-13)
    if lambda_ == 0:
        first = network.unpack(gradient)[0][:4, 0]
        np.testing.assert_allclose(first, [-9.27825e-3, 8.89912e-3, -8.36011e-3, 7.62814e-3], rtol=0, atol=5e-9)


def test_mazur_step_by_step_example():
    # Matt Mazur, "A Step by Step Backpropagation Example" (2015): 2-2-2, ½ squared error, η = 0.5, biases held fixed
    network = gpubp.Network((2, 2, 2), activation="sigmoid", cost="sigmoid_squares")
    T1 = np.array([[0.35, 0.15, 0.20], [0.35, 0.25, 0.30]])
    T2 = np.array([[0.60, 0.40, 0.45], [0.60, 0.50, 0.55]])
    X, y = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])
    J, gradient = gpubp.cost_and_gradient(network, network.pack([T1, T2]), X, y)
    assert J == pytest.approx(0.298371109, abs=5e-10)
    D1, D2 = network.unpack(gradient)
    T1[:, 1:] -= 0.5 * D1[:, 1:]
    T2[:, 1:] -= 0.5 * D2[:, 1:]
    assert T2[0, 1] == pytest.approx(0.35891648, abs=5e-9)  # w5
    assert T1[0, 1] == pytest.approx(0.14978072, abs=5e-9)  # w1
    J, _ = gpubp.cost_and_gradient(network, network.pack([T1, T2]), X, y)
    assert J == pytest.approx(0.291027774, abs=5e-10)
