"""PyTorch as an expert of it writes this: autograd or the gradient by hand, whole or in chunks, graphed, compiled.

A contender's name says what it is made of: "by hand" (else autograd), "chunks" (gradients of chunks of rows add up),
"graph" (all launches recorded once in a CUDA graph and replayed), "compiled" (torch.compile, its default mode),
"autotuned" (mode max-autotune-no-cudagraphs), "reduce-overhead" (that mode: compiled, with PyTorch's own graphs).
"eager" is none of them. λ's terms are part of the work, as is Σ cost; J stays on the device.

Precisions: "tf32" is `set_float32_matmul_precision("high")`. "bf16" keeps X in bfloat16 and the parameters in float32;
autograd goes through autocast, by hand the weights are cast in each evaluation and gradients summed in float32.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .card import Card
from .inputs import Data
from .measure import Absent, Ready
from .plan import Task

MODES = {"compiled": None, "autotuned": "max-autotune-no-cudagraphs", "reduce-overhead": "reduce-overhead"}


def build(task: Task, data: Data, card: Card) -> Ready:
    """The contender of that name.

    Raises:
        Absent: no PyTorch, or nothing here that could run it.
    """
    peer = _Peer(task, data, card)
    step: Callable[[], Any] = peer.by_hand if peer.hand else peer.autograd
    if "graph" in task.what.split():
        step = peer.graphed(step)
    elif "reduce-overhead" in task.what:
        step = peer.marked(step)
    torch, last = peer.torch, {}

    def evaluate() -> Any:
        last["J"], last["gradient"] = step()
        return last["J"]

    def gradient() -> Any:
        W, b = ([array.detach().double().cpu().numpy() for array in last["gradient"][i]] for i in range(2))
        return np.concatenate([np.hstack([b[l][:, None], W[l]]).ravel() for l in range(len(W))])

    def spoil() -> None:
        for array in [part for both in last["gradient"] for part in both]:
            array.detach().fill_(float("nan"))

    stream = None
    if not card.smoke:
        pointer = torch.cuda.current_stream().cuda_stream
        stream = card.xp.cuda.ExternalStream(pointer) if pointer else card.xp.cuda.Stream.null
    notes = {"torch": torch.__version__, "float32 products": torch.get_float32_matmul_precision()}
    return Ready(evaluate, float, gradient, card.clock(stream), spoil, notes=notes)


def forget() -> None:
    """Give PyTorch's spare memory back to the device, and its compiler's results."""
    torch: Any = importlib.import_module("torch")
    if "torch._dynamo" in sys.modules:  # else there is nothing to forget, and to ask would load it
        torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Peer:
    """The problem as PyTorch's tensors, and its cost and gradient in several ways."""

    def __init__(self, task: Task, data: Data, card: Card) -> None:
        try:
            torch: Any = importlib.import_module("torch")
        except ModuleNotFoundError as error:
            raise Absent(f"{error.name} is not installed") from None
        words = task.what.split()
        if "graph" in words and card.smoke:
            raise Absent("CUDA graphs need a GPU")
        self.torch, self.F = torch, importlib.import_module("torch.nn.functional")
        self.shape, self.m, self.hand = data.shape, data.shape.m, "hand" in words
        self.rows = task.rows or self.m
        self.bf16 = task.precision == "bf16"
        self.softmax = data.shape.cost == "softmax"
        torch.set_float32_matmul_precision("high" if task.precision == "tf32" else "highest")
        device = "cpu" if card.smoke else "cuda"
        self.autocast = lambda: torch.autocast(device, torch.bfloat16, enabled=self.bf16, cache_enabled=False)
        self.real = torch.float64 if task.precision == "fp64" else torch.float32
        self.fast = torch.bfloat16 if self.bf16 else self.real  # of the products
        X, codes = torch.from_dlpack(data.X), torch.from_dlpack(data.codes)
        self.X = X if data.stored == "uint8" else X.to(self.fast)
        self.y = codes if data.stored == "uint8" else self._targets(codes)
        self.W, self.b = (
            [torch.tensor(part, dtype=self.real, device=device).requires_grad_(not self.hand) for part in parts]
            for parts in ([M[:, 1:] for M in data.Theta], [M[:, 0] for M in data.Theta])
        )
        aten = torch.ops.aten
        self.g, self.slope = {
            "sigmoid": (torch.sigmoid, aten.sigmoid_backward),
            "tanh": (torch.tanh, aten.tanh_backward),
            "relu": (torch.relu, lambda e, a: aten.threshold_backward(e, a, 0)),
        }[data.shape.activation]
        mode = next((word for word in words if word in MODES), None)
        self.compiled = mode is not None
        self.epilogue = data.shape.activation == "relu" and not self.compiled and hasattr(torch, "_addmm_activation")
        self.widens = not self.compiled and self.bf16 and not card.smoke and _widens(torch)

        def compiled(f: Any) -> Any:
            # dynamic=False: a shorter last chunk is compiled for itself instead of slowing down all others
            return torch.compile(f, mode=MODES[mode], dynamic=False, fullgraph=True) if mode else f

        self.cost, self.sums = compiled(self._cost), compiled(self._sums)

    def autograd(self) -> Any:
        """J and ∇J by autograd."""
        torch, parameters = self.torch, self.W + self.b
        J, total = None, None
        for start in range(0, self.m, self.rows):
            part = self.cost(self.X[start : start + self.rows], self.y[start : start + self.rows], self.W, self.b)
            gradients = torch.autograd.grad(part, parameters)
            J = part.detach() if J is None else J + part.detach()
            if total is None:
                total = list(gradients)
            else:
                torch._foreach_add_(total, gradients)
        assert total is not None
        return self._regularised(J, total[: len(self.W)], total[len(self.W) :])

    def by_hand(self) -> Any:
        """J and ∇J, backpropagation written out."""
        torch = self.torch
        J, total = None, None
        with torch.no_grad():
            for start in range(0, self.m, self.rows):
                part, W, b = self.sums(
                    self.X[start : start + self.rows], self.y[start : start + self.rows], self.W, self.b
                )
                J = part if J is None else J + part
                if total is None:
                    total = W + b
                else:
                    torch._foreach_add_(total, W + b)
            assert J is not None and total is not None
            torch._foreach_mul_(total, 1 / self.m)
            return self._regularised(J / self.m, total[: len(self.W)], total[len(self.W) :])

    def graphed(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """All launches of a step recorded once and replayed: the same memory in and out."""
        torch = self.torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = step()

        def replay() -> Any:
            graph.replay()
            return value

        return replay

    def marked(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """PyTorch's own graphs want to know where an iteration begins: its results may then be overwritten."""
        torch = self.torch

        def evaluate() -> Any:
            torch.compiler.cudagraph_mark_step_begin()
            return step()

        return evaluate

    def _targets(self, codes: Any) -> Any:
        K = self.shape.layers[-1]
        if self.softmax and not self.hand:
            return codes.long()
        return (codes[:, None] if K == 1 else self.F.one_hot(codes.long(), K)).to(self.real)

    def _cost(self, X: Any, y: Any, W: list[Any], b: list[Any]) -> Any:
        """Σ cost / m of these rows."""
        F = self.F
        if X.dtype == self.torch.uint8:
            X, y = X.to(self.fast), self._targets(y)
        with self.autocast():
            a = X
            for w, bias in zip(W[:-1], b[:-1], strict=True):
                a = self.g(F.linear(a, w, bias))
            z = F.linear(a, W[-1], b[-1]).to(self.real)
            pair = F.cross_entropy if self.softmax else F.binary_cross_entropy_with_logits
            return pair(z, y, reduction="sum") / self.m

    def _sums(self, X: Any, y: Any, W: list[Any], b: list[Any]) -> Any:
        """Σ cost, ΔW and Δb of these rows."""
        torch, F = self.torch, self.F
        if X.dtype == torch.uint8:
            X, y = X.to(self.fast), self._targets(y)
        if self.bf16:
            W, b = [w.to(self.fast) for w in W], [bias.to(self.fast) for bias in b]
        a = [X]
        for w, bias in zip(W[:-1], b[:-1], strict=True):
            a.append(self._layer(a[-1], w, bias))
        z = torch.addmm(b[-1], a[-1], W[-1].t()).to(self.real)
        if self.softmax:
            log_h = F.log_softmax(z, 1)
            cost, delta = -(y * log_h).sum(), log_h.exp() - y
        else:
            cost, delta = F.binary_cross_entropy_with_logits(z, y, reduction="sum"), torch.sigmoid(z) - y
        dW, db = [], []
        for l in range(len(W) - 1, -1, -1):
            db.insert(0, delta.sum(0, dtype=self.real))
            delta = delta.to(self.fast)
            dW.insert(0, self._product(delta.t(), a[l]))
            if l:
                delta = self.slope(torch.mm(delta, W[l]), a[l])
        return cost, dW, db

    def _layer(self, a: Any, w: Any, bias: Any) -> Any:
        if self.epilogue:  # bias and relu done by the product itself
            return self.torch._addmm_activation(bias, a, w.t())
        return self.g(self.torch.addmm(bias, a, w.t()))

    def _product(self, a: Any, b: Any) -> Any:
        if self.widens:
            return self.torch.mm(a, b, out_dtype=self.real)
        return self.torch.mm(a, b).to(self.real)

    def _regularised(self, J: Any, W: list[Any], b: list[Any]) -> Any:
        """λ's terms, added to sums that are divided by m already."""
        torch, share = self.torch, self.shape.lambda_ / self.m
        with torch.no_grad():
            torch._foreach_add_(W, [w.detach() for w in self.W], alpha=share)
            norms = torch.stack(torch._foreach_norm([w.detach() for w in self.W]))
            return J + share / 2 * (norms * norms).sum(), (W, b)


def _widens(torch: Any) -> bool:
    """Whether a product of bfloat16 matrices can be had in float32 here."""
    try:
        one = torch.ones(16, 16, dtype=torch.bfloat16, device="cuda")
        return torch.mm(one, one, out_dtype=torch.float32).dtype == torch.float32
    except (RuntimeError, NotImplementedError, TypeError):
        return False
