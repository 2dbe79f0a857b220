"""A network as PyTorch has it: an nn.Sequential of Linear layers with the activation between them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..inference import Model

# What has no entry here is exported but for `torch`, and safetensors says no line about its use.
MODULES = {
    "sigmoid": "Sigmoid()", "tanh": "Tanh()", "relu": "ReLU()", "leaky_relu": "LeakyReLU(0.01)",
    "softplus": "Softplus()", "silu": "SiLU()", "gelu": "GELU(approximate='tanh')", "identity": "Identity()",
}  # fmt: skip
OUTPUTS = {
    "logistic": "torch.sigmoid(z)", "softmax": "torch.softmax(z, dim=1)", "squares": "z",
    "sigmoid_squares": "torch.sigmoid(z)",
}  # fmt: skip


def state(model: Model, dtype: np.dtype[Any]) -> dict[str, np.ndarray]:
    """The weights and biases under the names of a state_dict: 0.weight, 0.bias, 2.weight, …"""
    W, b = model.network.views(model.Theta)
    found: dict[str, np.ndarray] = {}
    for l in range(1, model.network.L):
        found[f"{2 * (l - 1)}.weight"] = np.ascontiguousarray(W[l], dtype)
        found[f"{2 * (l - 1)}.bias"] = np.ascontiguousarray(b[l][0], dtype)
    return found


def modules(model: Model) -> list[str] | None:
    """What the nn.Sequential consists of, as one would write it after ``nn.``; None where PyTorch has none."""
    network = model.network
    if network.activation not in MODULES or network.cost not in OUTPUTS:
        return None
    found: list[str] = []
    for l in range(1, network.L):
        found += [MODULES[network.activation]] * (l > 1) + [f"Linear({network.sizes[l - 1]}, {network.sizes[l]})"]
    return found


def note(model: Model) -> str:
    """How to use the weights; "" where PyTorch has no such module: weights alone need none."""
    if (found := modules(model)) is None:
        return ""
    made = ", ".join(f"nn.{module}" for module in found)
    return f"z = nn.Sequential({made})(scaled x); h = {OUTPUTS[model.network.cost]}"
