"""How fast a run was, and what this machine's matrix products alone would have taken.

The speed is that of the iterations after the first one, which begins with compiling and the first reading. The limit
is `gpubp.bench.products`: the products of a pass on whole layers by the fastest BLAS there is, timed here and now, and
only where this is such a machine as the run's: the same CPU, BLAS and instructions. It is no wall, see `gpubp.bench`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import blas
from ..backend.cores import available_cores
from ..bench.meter import NOISE, busy_seconds
from ..bench.products import Products, flops, layer_bytes
from ..data.memory import available_memory
from ..errors import BackendError
from ..network import Network
from ..precision import precision as precision_of
from .runs import Run

_SECONDS = 0.7  # for the limit, all ways together
_MOST_ROWS = 16_384


@dataclass(frozen=True)
class Throughput:
    """How fast a run was.

    Attributes:
        rows: of a pass, those for validation counted; None where it is not known.
        passes, seconds: of the iterations after the first one.
        rows_per_s, gflops: of the matrix products; None where they are not known.
        limit: what the products alone take: ``by``, ``gflops``, ``rows``, ``threads``, and ``others``, how many cores
            were busy with other work meanwhile; None where it was not measured.
        why_not: why there is no limit, or no speed.
    """

    rows: int | None
    passes: float
    seconds: float
    rows_per_s: float | None
    gflops: float | None
    limit: dict[str, Any] | None
    why_not: str

    @property
    def notes(self) -> list[str]:
        """What is to be known of the limit."""
        if not self.limit:
            return []
        found = ["The limit was timed for less than a second; gpubp bench takes the time to do it well."]
        if self.limit["others"] > NOISE:
            found.append(
                f"Other work took {self.limit['others']:.1f} cores meanwhile, so the limit may be higher than it seems."
            )
        if (self.of_limit or 0) > 1:
            found.append(
                "More than all of it is no mistake: a pass works in blocks that stay in the cache, which on narrow "
                "networks saves more than all that is not a product costs."
            )
        return found

    @property
    def of_limit(self) -> float | None:
        """The fraction of the limit that was reached."""
        return self.gflops / self.limit["gflops"] if self.limit and self.gflops is not None else None


def throughput(run: Run, rows: int | None, why_no_rows: str = "", *, limit: bool = True) -> Throughput:
    """The speed of a run whose passes go over so many rows."""
    passes, seconds = steady(run.history)
    sizes = run.model.network.sizes
    if rows is None or not passes or not seconds > 0:
        why = why_no_rows if rows is None else "there are no two iterations to take a time between"
        return Throughput(rows, passes, seconds, None, None, None, why)
    rate = rows * passes / seconds
    found, why = _limit(run, rows) if limit else (None, "it was not asked for (--no-limit)")
    return Throughput(rows, passes, seconds, rate, rate * flops(sizes) / 1e9, found, why)


def steady(history: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Passes and seconds from the end of the first iteration to that of the last."""
    known = [row for row in history if math.isfinite(row["seconds"]) and math.isfinite(row["passes"])]
    if len(known) < 2:
        return 0.0, 0.0
    return known[-1]["passes"] - known[0]["passes"], known[-1]["seconds"] - known[0]["seconds"]


def _limit(run: Run, rows: int) -> tuple[dict[str, Any] | None, str]:
    """What the products take here, or why that says nothing of the run."""
    conditions, network = run.conditions, run.model.network
    if conditions.get("backend", "cpu") != "cpu":
        return None, f"the run was on {conditions.get('device', 'a GPU')}, whose limit is not measured here"
    names = {str(row["precision"]) for row in run.history[1:]}
    if len(names) != 1 or not names <= {"fp32", "fp64"}:
        return None, f"the run had passes of several precisions: {', '.join(sorted(names))}"
    here = {**blas.conditions(), "cpu": _cpu()}
    for name, title in (("cpu", "CPU"), ("simd", "instructions"), ("lapack", "BLAS")):
        there = conditions.get(name)
        if (there is None and name != "cpu") or (there is not None and here[name] and there != here[name]):
            return None, f"the run's {title} was {there or 'not noted'}, and here it is {here[name]}"
    threads = min(run.job.threads or available_cores(), available_cores())
    dtype = precision_of(names.pop()).dtype
    n = min(rows, _MOST_ROWS)
    while n > 256 and (layer_bytes(network, n, dtype) > available_memory() // 4 or n * flops(network.sizes) > 2e9):
        n //= 2
    if n * flops(network.sizes) > 2e10:
        return None, "its products take too long to be timed in a moment; gpubp bench does"
    return products_alone(network, n, dtype, threads, list(blas.available())), ""


def products_alone(
    network: Network, n: int, dtype: np.dtype, threads: int, libraries: list[str], seconds: float = _SECONDS
) -> dict[str, Any]:
    """The products of a pass over n rows by the way that is the fastest, and of its calls the fastest one: a moment is
    too short to wait until nobody else works."""
    X = np.random.default_rng(1).standard_normal((n, network.sizes[0]), np.float32).astype(dtype)
    products = Products(network, X, threads)
    took: dict[str, float] = {}
    busy, cpu, since = busy_seconds(), time.process_time(), time.perf_counter()
    try:
        ways = list(products.ways(libraries))
        for way in ways:
            with way.context():
                way.call()
                times, began = [], time.perf_counter()
                while not times or time.perf_counter() - began < seconds / len(ways):
                    at = time.perf_counter()
                    way.call()
                    times.append(time.perf_counter() - at)
                took[way.title] = min(times)
    finally:
        products.close()
    spent = time.perf_counter() - since
    others = max(0.0, busy_seconds() - busy - (time.process_time() - cpu)) / spent
    by = min(took, key=took.__getitem__)
    speed = n * flops(network.sizes) / took[by] / 1e9
    return {"by": by, "gflops": speed, "rows": n, "threads": threads, "others": others}


def _cpu() -> str:
    """The processor as numba names it in a run's conditions; "" without numba, which such a run had."""
    try:
        from importlib import import_module

        return import_module("llvmlite.binding").get_host_cpu_name()
    except (ImportError, BackendError):
        return ""
