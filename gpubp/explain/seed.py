"""The network of the course's "Backpropagation Intuition": two inputs, two hidden layers of two units, one output."""

from __future__ import annotations

import numpy as np

from ..network import Network
from .record import Explanation, Names, Sign, explain

NETWORK = Network((2, 2, 2, 1), activation="sigmoid", cost="logistic")
# Made up, short enough to follow with a pocket calculator; the course's picture has no numbers. Bias in column 0.
THETA = (
    np.array([[0.1, 0.8, -0.4], [-0.3, 0.5, 0.9]]),
    np.array([[0.2, -0.7, 0.6], [-0.1, 0.4, 1.2]]),
    np.array([[0.3, 1.1, -0.9]]),
)
X, Y = np.array([1.0, 0.5]), np.array([1.0])


def seed_example(sign: Sign = "loss") -> Explanation:
    """One example through that network, with the numbers that the documentation uses."""
    names = Names(example="x = (1, 0.5), y = 1", network="the example of the course, with made-up Θ")
    return explain(NETWORK, NETWORK.pack(THETA), X, Y, sign=sign, names=names)
