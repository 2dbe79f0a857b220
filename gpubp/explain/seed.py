"""The network of the course's "Backpropagation Intuition": two inputs, two hidden layers of two units, one output."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..network import Network
from .record import Explanation, Sign
from .rows import bare

NETWORK = Network((2, 2, 2, 1), activation="sigmoid", cost="logistic")
# Made up, short enough to follow with a pocket calculator; the course's picture has no numbers. Bias in column 0.
THETA = (
    np.array([[0.1, 0.8, -0.4], [-0.3, 0.5, 0.9]]),
    np.array([[0.2, -0.7, 0.6], [-0.1, 0.4, 1.2]]),
    np.array([[0.3, 1.1, -0.9]]),
)
X, Y = np.array([1.0, 0.5]), np.array([1.0])


def seed_example(sign: Sign = "loss", x: np.ndarray = X, y: np.ndarray = Y) -> Explanation:
    """One example through that network; by default with the numbers that the documentation uses.

    Args:
        x: (2,) numbers.
        y: (1,), from 0 to 1.

    Raises:
        DataError: others.
    """
    found = bare(NETWORK, NETWORK.pack(THETA), x, y, sign=sign, name="the example of the course, with made-up Θ")
    said = f"x = ({x[0]:g}, {x[1]:g}), y = {y[0]:g}"
    return replace(found, names=replace(found.names, example=said))
