"""Models to export, and what plain NumPy makes of them, without a line of gpubp's forward pass."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gpubp import activation, cost
from gpubp.data.scaling import Scaling
from gpubp.data.targets import TargetSpec
from gpubp.inference import Model
from gpubp.network import Network

RNG = np.random.default_rng(9)
S = 6  # features
TARGETS = {
    "logistic": TargetSpec("binary", ("no", "yes"), 1),
    "softmax": TargetSpec("classes", ("cat", "dog", "ä fox"), 3),
    "squares": TargetSpec("real", None, 2),
    "sigmoid_squares": TargetSpec("multilabel", None, 3),
}
# What each is in plain NumPy: an entry of its own for each activation (G) and cost (H, and TARGETS above).
G = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.where(z > 0, z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, z / 100),
    "softplus": lambda z: np.logaddexp(0, z),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "gelu": lambda z: z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
    "identity": lambda z: z,
}


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


H = {"logistic": G["sigmoid"], "softmax": softmax, "squares": G["identity"], "sigmoid_squares": G["sigmoid"]}

PAIRS = [(a, c) for a in activation.names() if a in G for c in cost.names() if c in H.keys() & TARGETS.keys()]
STANDARD = Scaling("standard", RNG.normal(size=S) * [1, 10, 1e3, 1, 1, 1e5], 10.0 ** np.arange(-2, 4))
BYTES = Scaling("255", None, np.full(S, 255.0))
NONE = Scaling("none", None, None)
FILL = (
    (np.asarray(STANDARD.mean) + np.asarray(STANDARD.scale) / 2).astype("f4").astype("f8")
)  # rounded to the type of the rows


def model_of(
    activation: str = "tanh",
    cost: str = "softmax",
    *,
    targets: TargetSpec | None = None,
    hidden: tuple[int, ...] = (5, 4),
    scaling: Scaling = STANDARD,
    missing: str = "mean",
    select: tuple[str, ...] = (),
    fill: np.ndarray | None = FILL,
) -> Model:
    """A model with random weights, of such a size that all of a unit's activation is met."""
    targets = targets or TARGETS[cost]
    network = Network((S, *hidden, targets.outputs), activation, cost)
    Theta = [RNG.normal(size=(n, k + 1)) / np.sqrt(k) for k, n in pairwise(network.sizes)]
    job: dict[str, Any] = {"missing": missing, "select": select}
    z = forward(RNG.normal(size=(100, S)), [(T[:, 1:], T[:, 0]) for T in Theta], activation, "squares")
    Theta[-1][:, 0] -= z.mean(axis=0)  # so that no class is rare
    fill = fill if missing != "error" else None
    return Model(network, network.pack(Theta), scaling, targets, 0.5, job=job, fill=fill)


def forward(
    X: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]], activation: str, cost: str,
    mean: Any = None, scale: Any = None, fill: Any = None,
) -> np.ndarray:  # fmt: skip
    """h (rows, K) by W and b of each layer, in float64."""
    a = X.astype(np.float64)
    a = a if fill is None else np.where(np.isnan(a), fill, a)
    a = (a - (0 if mean is None else mean)) / (1 if scale is None else scale)
    for l, (W, b) in enumerate(layers, start=1):
        z = a @ np.asarray(W, np.float64).T + np.asarray(b, np.float64)
        a = G[activation](z) if l < len(layers) else H[cost](z)
    return a


def h_of(model: Model, X: np.ndarray) -> np.ndarray:
    """`forward` of a model."""
    layers = [(Theta[:, 1:], Theta[:, 0]) for Theta in model.matrices]
    network, scaling = model.network, model.scaling
    fill = None if model.drops else model.fill
    return forward(X, layers, network.activation, network.cost, scaling.mean, scaling.scale, fill)


def decided(model: Model, h: np.ndarray) -> np.ndarray:
    """The predictions."""
    classes = model.targets.classes
    if model.targets.kind == "classes":
        return np.array(classes)[h.argmax(axis=1)]
    if model.targets.kind == "binary":
        return np.array(classes)[(h[:, 0] >= 0.5).astype(int)]
    return (h >= 0.5).astype(int) if model.targets.kind == "multilabel" else h
