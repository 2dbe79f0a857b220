"""One rank of PyTorch: the lines that an expert would write, full batch, `all_reduce` of the flat gradient by gloo.

Gradients are views of one flat vector, so that nothing is gathered or copied; J travels in its last place. Rows may be
taken in chunks, whose gradients add up: the best size is looked for.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def evaluation(torch: Any, problem: Any, begin: int, until: int, rows: int) -> tuple[Callable[[], Any], Any, list[Any]]:
    """J and ∇J over all ranks' rows, the flat vector that ∇J is in, and its views (W and b of each layer)."""
    F, distributed = importlib.import_module("torch.nn.functional"), importlib.import_module("torch.distributed")
    shape = problem.shape
    m, softmax = shape.m, shape.cost == "softmax"
    g = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}[shape.activation]
    X = torch.from_numpy(problem.X[begin:until].copy())
    y = torch.from_numpy(problem.codes[begin:until].astype(np.int64) if softmax else problem.Y[begin:until].copy())
    parts = [part for matrix in problem.Theta for part in (matrix[:, 1:].copy(), matrix[:, 0].copy())]
    Theta = [torch.from_numpy(part).requires_grad_() for part in parts]
    flat = torch.zeros(sum(one.numel() for one in Theta) + 1)
    at = 0
    for one in Theta:
        one.grad = flat[at : at + one.numel()].view_as(one)
        at += one.numel()

    def evaluate() -> float:
        flat.zero_()
        for i in range(0, until - begin, rows):
            a = X[i : i + rows]
            for l in range(0, len(Theta) - 2, 2):
                a = g(F.linear(a, Theta[l], Theta[l + 1]))
            z = F.linear(a, Theta[-2], Theta[-1])
            pair = F.cross_entropy if softmax else F.binary_cross_entropy_with_logits
            J = pair(z, y[i : i + rows], reduction="sum") / m
            J.backward()
            flat[-1] += J.detach()
        if distributed.is_initialized():
            distributed.all_reduce(flat)
        with torch.no_grad():
            for W in Theta[::2]:
                W.grad.add_(W, alpha=shape.lambda_ / m)
                flat[-1] += shape.lambda_ / (2 * m) * (W * W).sum()
        return float(flat[-1])

    return evaluate, flat, Theta


def serve() -> None:
    """Be a rank, told by RANK and WORLD_SIZE; each of them reads the same lines."""
    torch: Any = importlib.import_module("torch")
    from problems import Shape, flat, make

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size > 1:
        torch.distributed.init_process_group("gloo")
    evaluate: Callable[[], Any] = lambda: 0.0  # noqa: E731
    Theta: list[Any] = []
    for line in sys.stdin:
        words = json.loads(line)
        do = words.pop("do")
        answer: dict[str, Any] = {}
        if do == "build":
            torch.set_num_threads(words["threads"])
            shape = Shape(**{**words["shape"], "layers": tuple(words["shape"]["layers"])})
            begin, until = rank * shape.m // size, (rank + 1) * shape.m // size
            evaluate, _, Theta = evaluation(torch, make(shape), begin, until, words["rows"] or shape.m)
            answer = {"torch": torch.__version__, "rows": until - begin}
        elif do == "check":
            J, expected = evaluate(), np.load(words["gradient"])
            matrices = [np.hstack([b.grad.numpy()[:, None], W.grad.numpy()]) for W, b in zip(Theta[::2], Theta[1::2])]  # noqa: B905
            error = float(np.linalg.norm(flat(matrices) - expected) / np.linalg.norm(expected))
            answer = {"torch": {"J_error": abs(J / words["J"] - 1), "gradient_error": error, "bits": ""}}
        elif do == "turn":
            answer = {"torch": _turn(torch, evaluate, words["least"], size)}
        if rank == 0:
            print(json.dumps(answer), flush=True)


def _turn(torch: Any, evaluate: Callable[[], Any], least: float, size: int) -> dict[str, Any]:
    evaluate()
    start = time.perf_counter()
    evaluate()
    count = torch.tensor([max(3, int(least / (time.perf_counter() - start)))])
    if size > 1:
        torch.distributed.broadcast(count, 0)
    seconds, busy = [], time.process_time()
    for _ in range(int(count)):
        start = time.perf_counter()
        evaluate()
        seconds.append(time.perf_counter() - start)
    cpu = torch.tensor([time.process_time() - busy], dtype=torch.float64)
    if size > 1:
        torch.distributed.all_reduce(cpu)
    return {"seconds": float(np.median(seconds)), "evaluations": int(count), "cpu_s": float(cpu) / int(count)}
