"""A network with data, its cost and gradient sums in float64, and the same from the fused kernel run on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from host_program import HostPrograms

from gpubp import backprop
from gpubp.backend.cuda.fused import Fused, Precision, Task
from gpubp.backend.numpy import NumpyBackend
from gpubp.backprop import Workspace
from gpubp.network import Network
from gpubp.tree import leaf_rows


def aligned(array: np.ndarray, offset: int = 0) -> np.ndarray:
    """A copy that starts `offset` bytes after a multiple of 256, with NaN or 0xFF bytes around it."""
    memory = np.full(array.nbytes + 1024, 0xFF, np.uint8)
    start = -memory.ctypes.data % 256 + 256 + offset
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@dataclass(frozen=True)
class Case:
    """A network and rows drawn for it.

    Args:
        sizes, activation, cost: the network.
        precision: of the products.
        stored, labels: types of X and of targets; `labels` is None for class numbers.
        standardised, weighted, held: with mean and scale, training weights (zeros among them), validation weights.
        m, leaves: rows and leaves.
    """

    sizes: tuple[int, ...]
    activation: str = "tanh"
    cost: str = "logistic"
    precision: Precision = "tf32"
    stored: str = "f4"
    labels: str | None = None
    standardised: bool = False
    weighted: bool = False
    held: bool = False
    m: int = 150
    leaves: int = 2
    seed: int = 0

    @property
    def network(self) -> Network:
        """The network."""
        return Network(self.sizes, self.activation, self.cost)

    @property
    def task(self) -> Task:
        """What the kernel is made for."""
        conversion: Literal["cast", "standardise"] = "standardise" if self.standardised else "cast"
        return Task.of(
            self.network, self.precision, stored=np.dtype(self.stored), labels=np.dtype(self.labels or "i4"),
            one_hot=self.labels is None, conversion=conversion, weighted=self.weighted, held=self.held,
        )  # fmt: skip

    def draw(self) -> dict[str, Any]:
        """The kernel's arrays by the names of its parameters; None where there is none."""
        rng = np.random.default_rng(self.seed)
        m, K, dtype = self.m, self.sizes[-1], np.dtype(self.stored)
        shape = (m, self.sizes[0])
        x = rng.integers(0, 7, shape) if dtype.kind in "iub" else rng.normal(size=shape)
        if self.standardised:
            x = x * 3 + (1000 if dtype.itemsize > 2 else 5)
        x = x.astype(dtype)
        # targets follow the rows: sums of unrelated ones would cancel and show rounding alone
        follows = (x - x.mean(axis=0)).astype(np.float64) @ rng.normal(size=(shape[1], K)) / np.sqrt(shape[1])
        numbers = None
        if self.labels is None:
            numbers = rng.permutation(K).astype(np.int32) * 3 if K > 1 else np.ones(1, np.int32)
            labels = numbers[follows.argmax(axis=1)] if K > 1 else (follows[:, 0] > 0).astype(np.int32)
        elif self.cost == "softmax":
            labels = np.exp(follows) / np.exp(follows).sum(axis=1, keepdims=True)
            labels = labels.astype(self.labels)
        else:
            labels = (follows > 0).astype(self.labels)
        weights = rng.integers(0, 3, m).astype(np.float32) / 2
        Theta = self.network.initial_Theta(self.seed)
        _, b = self.network.views(Theta)
        for bias in b[1:]:
            bias[...] = rng.normal(0, 0.3, bias.shape)
        if not self.standardised and dtype.kind in "iu":
            self.network.views(Theta)[0][1][...] /= 4  # such rows are large
        arrays = {
            "x": aligned(x), "labels": aligned(labels), "numbers": numbers,
            "mean": x.astype(np.float64).mean(axis=0) if self.standardised else None,
            "scale": x.astype(np.float64).std(axis=0) + 0.1 if self.standardised else None,
            "w": aligned(weights) if self.weighted else None,
            "v": aligned(1 - weights) if self.held else None,
            "Theta": Theta.astype(np.float32),
        }  # fmt: skip
        return arrays

    def wanted(self, arrays: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Gradient sums (leaves, P) and cost sums (leaves, 2) in float64, by the plain composition."""
        network, backend = self.network, NumpyBackend(threads=1)
        x = arrays["x"].astype(np.float64)
        if self.standardised:
            x = (x - arrays["mean"]) / arrays["scale"]
        y = arrays["labels"].astype(np.float64)
        if self.labels is None:
            y = (arrays["labels"][:, None] == arrays["numbers"]).astype(np.float64)
        ones = np.ones((self.m, 1))
        w, v = (ones if arrays[name] is None else arrays[name].astype(np.float64)[:, None] for name in "wv")
        gradients, costs = np.zeros((self.leaves, network.P)), np.zeros((self.leaves, 2))
        Theta = network.views(arrays["Theta"].astype(np.float64))
        for leaf in range(self.leaves):
            start, stop = leaf_rows(leaf, self.leaves, self.m)
            if start == stop:
                continue
            block = Workspace(backend, network, np.dtype(np.float64), stop - start).block(stop - start)
            block.x, block.y[...], block.w = x[start:stop], y[start:stop], w[start:stop]
            with np.errstate(all="ignore"):
                backprop.forward(backend, network, Theta, block)
                backprop.add_cost(backend, network, block, block.w, costs[leaf, :1])
                if self.held:
                    backprop.add_cost(backend, network, block, v[start:stop], costs[leaf, 1:])
                backprop.output(backend, network, block)
                backprop.backward(backend, network, Theta, block, network.views(gradients[leaf]), beta=0)
        return gradients, costs


class Launcher:
    """Launches a fused kernel on the CPU, as the engine launches it on a GPU."""

    def __init__(self, programs: HostPrograms, case: Case, fused: Fused) -> None:
        self._programs, self._case, self._fused = programs, case, fused
        self.partials = aligned(np.full((case.leaves, fused.P), np.nan, np.float32))
        self.costs = np.full((case.leaves, 2), np.nan)

    def run(self, arrays: dict[str, Any], blocks: int = 1, *, with_gradient: bool = True, **changed: Any) -> None:
        """One launch; all leaves and rows unless `changed` says otherwise."""
        case = self._case
        numbers = {"m": case.m, "leaves": case.leaves, "first_leaf": 0, "last_leaf": case.leaves, "base": 0,
                   "x_row": 0, "from": 0, "to": case.m, "keep": 0, "with_gradient": int(with_gradient)}  # fmt: skip
        values = {**arrays, "partials": self.partials, "costs": self.costs, **numbers, **changed}
        names = ["x", "labels", "numbers", "mean", "scale", "w", "v", "Theta", "partials", "costs", *numbers]
        self._programs.launch(self._fused.kernel, blocks, [values[name] for name in names])


def errors(launcher: Launcher, wanted: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """The largest error of a leaf's gradient and costs, relative to the leaf's gradient and cost."""
    gradients, costs = wanted
    off = np.linalg.norm(launcher.partials - gradients, axis=1) / np.linalg.norm(gradients, axis=1).clip(1e-30)
    off_costs = np.abs(launcher.costs - costs).max(axis=1) / np.abs(costs).max(axis=1).clip(1e-30)
    return float(off.max()), float(off_costs.max())
