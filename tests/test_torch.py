"""PyTorch's autograd in float64 as an oracle; skipped where PyTorch is not installed (it is in no extra)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import gpubp

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch to compare with its autograd")
F = torch.nn.functional

NETWORKS = [
    ((9, 7, 5, 4), "tanh", "softmax"),
    ((6, 8, 3), "gelu", "logistic"),
    ((5, 10, 6, 2), "silu", "squares"),
    ((5, 4, 3), "softplus", "sigmoid_squares"),
]
ACTIVATIONS = {
    "tanh": torch.tanh,
    "silu": F.silu,
    "softplus": F.softplus,
    "gelu": lambda z: F.gelu(z, approximate="tanh"),
}


@pytest.mark.parametrize(("sizes", "g", "J"), NETWORKS)
def test_autograd_agrees(sizes, g, J):
    rng = np.random.default_rng(4)
    m, lambda_ = 50, 0.3
    network = gpubp.Network(sizes, activation=g, cost=J)
    matrices = [rng.normal(size=(o, i + 1)) for i, o in pairwise(sizes)]
    X = rng.normal(size=(m, sizes[0]))
    y = rng.integers(0, sizes[-1], m) if J == "softmax" else (rng.random((m, sizes[-1])) < 0.5).astype(float)
    cost, gradient = gpubp.cost_and_gradient(network, network.pack(matrices), X, y, lambda_=lambda_)

    Theta = [torch.tensor(T, requires_grad=True) for T in matrices]
    a = torch.tensor(X)
    for l, T in enumerate(Theta):
        z = a @ T[:, 1:].T + T[:, 0]
        a = ACTIVATIONS[g](z) if l < len(Theta) - 1 else z
    target = torch.tensor(y)
    total = {
        "softmax": lambda: F.cross_entropy(a, target, reduction="sum"),
        "logistic": lambda: F.binary_cross_entropy_with_logits(a, target, reduction="sum"),
        "squares": lambda: 0.5 * ((a - target) ** 2).sum(),
        "sigmoid_squares": lambda: 0.5 * ((torch.sigmoid(a) - target) ** 2).sum(),
    }[J]() / m + lambda_ / (2 * m) * sum((T[:, 1:] ** 2).sum() for T in Theta)
    total.backward()
    assert cost == pytest.approx(total.item(), rel=1e-12)
    for ours, theirs in zip(network.unpack(gradient), Theta, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=0, atol=1e-12 * np.abs(theirs.grad.numpy()).max())
