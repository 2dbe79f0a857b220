"""What the card can do at all: copies, launches, matrix products. Floors are made of these figures.

Products are PyTorch's (cuBLAS), on random numbers: on zeros a card is faster.
"""

from __future__ import annotations

import importlib
from itertools import pairwise
from typing import Any

import numpy as np

from .card import Card, Clock
from .measure import Absent, Pace, summary
from .plan import Task, flops, shapes

CHUNK = 131_072  # rows of the products of a large shape


def measured(task: Task, card: Card, pace: Pace) -> dict[str, Any]:
    """One figure: seconds, and the rate that follows.

    Raises:
        Absent: products, without PyTorch.
    """
    if task.what == "product":
        n = 64 if card.smoke else 8192
        product = _Products(task.precision, card)
        seconds = product.seconds([(n, n, n, "nt")], pace)
        return summary(seconds) | {"flops_per_s": 2.0 * n**3 / float(np.median(seconds)), "n": n}
    if task.what == "products of":
        shape = shapes(card.smoke)[task.shape]
        rows = min(CHUNK, shape.m)
        seconds = [s * shape.m / rows for s in _Products(task.precision, card).seconds(_own(shape.layers, rows), pace)]
        return summary(seconds) | {"flops_per_s": flops(shape) / float(np.median(seconds)), "chunk": rows}
    return {"copy": _copy, "host to device": _to_device, "launch": _launch}[task.what](card, pace)


def _own(layers: tuple[int, ...], rows: int) -> list[tuple[int, int, int, str]]:
    """The products of a pass: (m, n, k, which are transposed)."""
    found = []
    for l, (inputs, outputs) in enumerate(pairwise(layers)):
        found += [(rows, outputs, inputs, "nt"), (outputs, inputs, rows, "tn")]
        if l:
            found.append((rows, inputs, outputs, "nn"))
    return found


class _Products:
    def __init__(self, precision: str, card: Card) -> None:
        try:
            self.torch: Any = importlib.import_module("torch")
        except ModuleNotFoundError as error:
            raise Absent(f"{error.name} is not installed") from None
        torch = self.torch
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        self.dtype = {"fp64": torch.float64, "bf16": torch.bfloat16}.get(precision, torch.float32)
        self.device = "cpu" if card.smoke else "cuda"
        self.clock = card.clock()

    def seconds(self, products: list[tuple[int, int, int, str]], pace: Pace) -> list[float]:
        """Seconds of all of them, in each turn."""
        torch, total = self.torch, np.zeros(0)
        for m, n, k, flipped in products:
            a = self._random(*((k, m) if flipped[0] == "t" else (m, k)))
            b = self._random(*((n, k) if flipped[1] == "t" else (k, n)))
            left, right = (a.t() if flipped[0] == "t" else a), (b.t() if flipped[1] == "t" else b)
            out = torch.empty(m, n, dtype=self.dtype, device=self.device)
            taken = _turns(self.clock, lambda left=left, right=right, out=out: torch.mm(left, right, out=out), pace)
            total = np.array(taken) + (total if len(total) else 0)
        return total.tolist()

    def _random(self, rows: int, columns: int) -> Any:
        torch = self.torch
        generator = torch.Generator(self.device).manual_seed(rows * 31 + columns)
        return torch.randn(rows, columns, device=self.device, generator=generator).to(self.dtype)


def _copy(card: Card, pace: Pace) -> dict[str, Any]:
    """On the card, bytes read and bytes written counted."""
    n = 1 << (20 if card.smoke else 32)
    a, b = card.xp.ones(n, "uint8"), card.xp.zeros(n, "uint8")
    seconds = _turns(card.clock(), lambda: card.xp.copyto(b, a), pace)
    return summary(seconds) | {"bytes_per_s": 2.0 * n / float(np.median(seconds))}


def _to_device(card: Card, pace: Pace) -> dict[str, Any]:
    """From pinned memory of the host."""
    n = 1 << (20 if card.smoke else 30)
    if card.smoke:
        host, there = np.ones(n, np.uint8), np.zeros(n, np.uint8)
        seconds = _turns(card.clock(), lambda: np.copyto(there, host), pace)
    else:
        memory = card.xp.cuda.alloc_pinned_memory(n)
        host, there = np.frombuffer(memory, np.uint8, n), card.xp.zeros(n, "uint8")
        host[:] = 1
        null = card.xp.cuda.Stream.null
        seconds = _turns(card.clock(), lambda: there.data.copy_from_host_async(host.ctypes.data, n, null), pace)
    return summary(seconds) | {"bytes_per_s": n / float(np.median(seconds))}


def _launch(card: Card, pace: Pace) -> dict[str, Any]:
    """One kernel that does nothing worth mentioning, queued from Python again and again."""
    one = card.xp.zeros(1, "float32")
    return summary(_turns(card.clock(), lambda: one.fill(1), pace, n=2 if card.smoke else 1000))


def _turns(clock: Clock, work: Any, pace: Pace, n: int = 0) -> list[float]:
    """Seconds of one piece of work, in 7 turns after 2 that are not recorded."""
    if not n:
        start = clock.mark()
        work()
        first = clock.seconds(start, clock.mark())
        n = max(1, min(20, int(2 * pace.batch / max(first, 1e-9))))
    taken = []
    for _ in range(9):
        start = clock.mark()
        for _ in range(n):
            work()
        taken.append(clock.seconds(start, clock.mark()) / n)
    return taken[2:]
