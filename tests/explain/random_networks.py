"""Networks and examples at random, of every activation and cost."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from gpubp import activation, cost
from gpubp.explain import Explanation, explain
from gpubp.network import Network

KINDS = list(itertools.product(activation.names(), cost.names()))
# every activation, and every cost, with some partner
EACH = list(zip(activation.names(), itertools.cycle(cost.names()), strict=False))


def wanted(kind: str, K: int, rng: np.random.Generator) -> np.ndarray:
    """A y that the cost can be given."""
    takes = cost.cost(kind).takes
    if takes == "numbers":
        return rng.normal(size=K)
    return np.eye(K)[rng.integers(K)] if takes == "distribution" else rng.integers(0, 2, K).astype(float)


def random_example(
    rng: np.random.Generator,
    g: str = "sigmoid",
    J: str = "logistic",
    *,
    size: float = 1.5,
    sizes: tuple[int, ...] = (),
    **options: Any,
) -> Explanation:
    """Weights of about size/√inputs, so that z is about `size`."""
    if not sizes:
        sizes = tuple(int(s) for s in rng.integers(1, 9, rng.integers(2, 6)))
        sizes = (*sizes[:-1], max(2, sizes[-1])) if J == "softmax" else sizes
    network = Network(sizes, g, J)
    Theta = [rng.normal(size=(b, a + 1)) * size / np.sqrt(a + 1) for a, b in itertools.pairwise(sizes)]
    return explain(network, network.pack(Theta), rng.normal(size=sizes[0]), wanted(J, network.K, rng), **options)
