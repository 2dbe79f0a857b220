"""gpubp, through the one file here that knows how it is called.

What is taken for granted:

- `choose("gpu", kernel="fused" | "layered")` gives (backend, why), or raises a `GpubpError`;
- `Objective(network, Rows(source, kept, scaling, labels), λ, backend=…, precision=…)` takes CuPy arrays for `kept` and
  `labels`; then `source` is only asked for m, features and dtype. It raises a `GpubpError` at what it lacks;
- inside `objective.guard()`, `objective.vectors.zeros(P)` makes a vector on the device, `.put(host, vector)` fills it,
  `.to_host(vector)` brings it back; `.waits` counts the waits so far;
- `objective.value_and_gradient(Theta, out)` with such vectors queues one evaluation on `backend.stream` and returns a
  number; `float` of it waits. A thousand may be queued and none of the numbers asked for;
- `objective.kernel` says which kernel it is. With NumPy arrays it waits and returns a float: so on the CPU, whose only
  precisions are fp64 and fp32: in a smoke test fp32 stands in for the others.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import numpy as np

from .card import Card
from .inputs import Data
from .measure import Absent, Pace, Ready, summary, turns
from .plan import FUSED, LAYERED, Task

KERNELS = {FUSED: "fused", LAYERED: "layered", "50 iterations": "auto", "streaming": "auto"}


class OnCard:
    """A source of rows that are all kept already."""

    def __init__(self, X: Any) -> None:
        self.m, self.features = X.shape
        self.dtype = np.dtype(X.dtype.name)

    def read(self, start: int, stop: int, out: Any) -> None:
        raise AssertionError(f"rows {start} to {stop} are on the card and were asked of the source")

    def extent(self) -> None:
        return None

    def check(self) -> None:
        pass

    def where(self, row: int) -> str:
        return f"row {row} on the card"

    def describe(self) -> str:
        return f"{self.m} × {self.features} {self.dtype} on the card"

    def close(self) -> None:
        pass


def build(task: Task, data: Data, card: Card, *, resident: float = 1.0) -> Ready:
    """One cost and gradient by gpubp, ready.

    Args:
        resident: the part of the rows that is kept on the card; the rest is on the host and streamed in each pass.

    Raises:
        Absent: it has no such kernel or precision here.
    """
    objective, network = _objective(task, data, card, resident)
    wanted, kernel = KERNELS[task.what], getattr(objective, "kernel", "")
    if not card.smoke and kernel and wanted not in ("auto", kernel):
        raise Absent(f"asked for the {wanted} kernel, gpubp took the {kernel} one")
    Theta, out, vectors = _vectors(objective, network, data.Theta, card)

    def gradient() -> Any:
        with objective.guard():
            host = vectors.to_host(out) if vectors else out
        return np.concatenate([matrix.ravel() for matrix in network.unpack(host)])

    guard = objective.guard()
    guard.__enter__()  # as a whole training run is inside it
    stream = getattr(objective.backend, "stream", None)

    def spoil() -> None:
        with stream if stream is not None else nullcontext():  # where the evaluation comes next
            out.fill(np.nan)

    def close() -> None:
        guard.__exit__(None, None, None)
        objective.close()

    return Ready(
        evaluate=lambda: objective.value_and_gradient(Theta, out),
        J=float,
        gradient=gradient,
        clock=card.clock(stream),
        spoil=spoil,
        waits=(lambda: int(vectors.waits)) if vectors else None,
        close=close,
        notes={**objective.conditions(), "kernel": kernel},
    )


def iterate(task: Task, data: Data, card: Card, iterations: int = 50) -> dict[str, Any]:
    """So many iterations of L-BFGS: how long, how many evaluations, how often the host waited."""
    from gpubp.optimizers import make
    from gpubp.training import fit

    objective, network = _objective(task, data, card, 1.0)
    vectors = getattr(objective, "vectors", None)
    fit(objective, make("lbfgs", tolerance=0.0), network.pack(data.Theta), iterations=2)  # builds what is to be built
    before, began = getattr(vectors, "waits", None), time.perf_counter()
    ending, state = fit(objective, make("lbfgs", tolerance=0.0), network.pack(data.Theta), iterations=iterations)
    seconds = time.perf_counter() - began
    assert state is not None
    found = {
        "seconds": seconds,
        "iterations": int(state.iteration),
        "evaluations": int(state.evaluations),
        "per_evaluation_s": seconds / int(state.evaluations),
        "J": float(state.J),
        "ending": ending.reason,
    }
    after = getattr(vectors, "waits", None)
    if before is not None and after is not None:
        found |= {"waits": after - before, "waits_per_evaluation": (after - before) / int(state.evaluations)}
    return found


def stream(task: Task, data: Data, card: Card, pace: Pace) -> dict[str, Any]:
    """A third of the rows on the card, the rest streamed in every pass, beside all of them on the card."""
    found = {}
    for name, part in (("all", 1.0), ("third", 1 / 3)):
        ready = build(task, data, card, resident=part)
        J = ready.J(ready.evaluate())
        found[name] = summary(turns(ready, 1, pace)) | {"J": J, "gradient": ready.gradient().tobytes()}
        ready.close()
        del ready
        card.forget()
    same = found["all"].pop("gradient") == found["third"].pop("gradient") and found["all"]["J"] == found["third"]["J"]
    return {**found, "same_bits": same, "speed": found["all"]["median_s"] / found["third"]["median_s"]}


def _objective(task: Task, data: Data, card: Card, resident: float) -> tuple[Any, Any]:
    from gpubp.backend import choose
    from gpubp.data.rows import Rows
    from gpubp.data.scaling import Scaling
    from gpubp.data.source import ArrayRows
    from gpubp.errors import GpubpError, OutOfMemory
    from gpubp.network import Network
    from gpubp.objective import Objective

    shape, X = data.shape, data.X
    network = Network(shape.layers, shape.activation, shape.cost)
    source: Any = OnCard(X)
    if resident < 1:
        host = X if card.smoke else X.get()
        source, X = ArrayRows(host), host[: int(resident * shape.m)]
        data.X = data.X if card.smoke else None  # the card is not to hold them twice, nor this benchmark
        card.forget()
    labels = data.codes if data.codes.dtype == "uint8" else data.codes.view("uint32")
    try:
        if card.smoke:
            backend, _ = choose("cpu", kernel="numpy", threads=1)
        else:
            backend, _ = choose("gpu", kernel=KERNELS[task.what])
        rows = Rows(source, X, Scaling("none", None, None), labels)
        precision = "fp32" if card.smoke and task.precision != "fp64" else task.precision
        return Objective(network, rows, shape.lambda_, backend=backend, precision=precision), network
    except OutOfMemory:
        raise
    except GpubpError as error:
        raise Absent(str(error)) from None


def _vectors(objective: Any, network: Any, matrices: Any, card: Card) -> tuple[Any, Any, Any]:
    """Θ and a place for ∇J where the objective wants them, and who brings vectors back."""
    Theta, vectors = network.pack(matrices), getattr(objective, "vectors", None)
    if card.smoke or vectors is None:
        return Theta, np.zeros(network.P), None
    with objective.guard():
        there, out = vectors.zeros(network.P), vectors.zeros(network.P)
        vectors.put(Theta, there)
    return there, out, vectors
