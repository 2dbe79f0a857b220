"""How fast is this machine, how fast could it be, and what would make it faster?

What is timed is one cost and gradient over all rows. Its limit is the time of its matrix products alone, on whole
layers, by the fastest BLAS there is (`products`). That is no wall: a pass works in blocks that stay in the cache, which
saves more memory traffic on narrow networks than the rest of a pass costs.

A wrong answer is never timed: J and ∇J must agree with plain NumPy's in fp64 on the first rows, and all passes must
give the same bits, on one thread and on many (`passes`).
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import ExitStack, nullcontext
from typing import Any

from ..backend import Backend, choose
from ..backend.cores import available_cores
from ..data.memory import available_memory
from ..errors import UsageError
from ..network import Network
from ..precision import precision as precision_of
from .advice import Facts, advise
from .meter import Meter, Timing, quick
from .passes import Pass, first_rows, random_rows, row_bytes
from .products import Products, Way, flops, layer_bytes

__all__ = ["bench"]

PASS = 0.25  # seconds that a pass takes at most, where the number of rows is ours
MOST_BYTES = 1 << 30  # of rows, where their number is ours
FEW_ROWS = 16_384  # for the limit, where whole layers of all rows do not fit into memory
MOST_CHECKED = 1000  # rows whose answer is compared with NumPy's

_log = logging.getLogger("gpubp")


def bench(
    network: Network,
    *,
    rows: int | None = None,
    precision: str = "fp32",
    seconds: float = 2.0,
    backend: str = "auto",
    device: int = 0,
    threads: int | None = None,
    kernel: str = "auto",
    blas: str = "auto",
) -> dict[str, Any]:
    """Time one cost and gradient of this network on random rows of float32.

    Args:
        network: layers, activation and cost; Θ is the initial one.
        rows: how many; by default 1, 2 or 5 times a power of ten, so that a pass takes 0.1 to 0.25 s.
        precision: see `gpubp.precision`.
        seconds: how long each measurement takes, roughly. There are up to five.
        backend, device, threads, kernel, blas: see `gpubp.backend.choose`.

    Returns:
        A JSON-able record. `pass_s` is a median, `spread` the distance between the quartiles over it, `of_products`
        the pass's seconds over the limit's; `limit` and `one_thread` are None on a GPU.

    Raises:
        UsageError: what cannot be meant, or rows that do not fit into memory.
        BackendError: a backend that does not work here, or whose answer is wrong.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"{seconds:g} seconds", wanted="more than 0")
    if rows is not None and rows < 1:
        raise UsageError(f"{rows} rows", wanted="1 or more")
    precision_of(precision)  # an unknown one is refused before any work
    _refuse_too_large(network, rows or 1)
    began = time.perf_counter()
    engine, how = choose(backend, device=device, threads=threads, kernel=kernel, blas=blas)
    few = _checked_rows(network, rows)
    with Pass(network, random_rows(network, few), precision, engine) as first:
        first()
        first_s = time.perf_counter() - began
        errors = first.compare()
        m = rows or _rows_for(first)
    name = "-".join(map(str, network.sizes))
    _log.info(
        f"{name}: J and ∇J are right on {few:,} rows; timing passes over {m:,} rows for {5 * seconds:g} s or more"
    )
    measured, others, products = _measure(network, m, precision, engine, seconds)
    return {
        "network": name,
        "parameters": network.parameters,
        "activation": network.activation,
        "cost": network.cost,
        "rows": m,
        "precision": precision,
        "engine": how,
        **engine.choice,
        "cores": available_cores(),
        "checked": {"rows": few, **errors},
        "first_pass_s": first_s,
        **measured,
        "others": others,
        "advice": advise(Facts(engine, how, kernel, device, precision, others, products)),
    }


def _measure(
    network: Network, m: int, precision: str, engine: Backend, seconds: float
) -> tuple[dict[str, Any], float, dict[str, float]]:
    """The pass on all threads, on one, and its products in every way there is, turn by turn.

    Returns:
        What was measured; the cores that were busy with other work; the seconds of the products by each BLAS.
    """
    meter, dtype = Meter(seconds), precision_of(precision).dtype
    with ExitStack() as opened:
        full = opened.enter_context(Pass(network, random_rows(network, m), precision, engine))
        calls: dict[str, Any] = {"pass": (full, nullcontext)}
        compared, few, n, ways = [full], m, m, list[Way]()
        if engine.kind == "cpu":
            threads = min(engine.owners, available_cores())  # more than there are make no product faster
            if full.threads > 1:
                few = m if threads <= 4 else max(1, 4 * m // threads)  # one core of many must not take minutes
                same: dict[str, Any] = dict(engine.choice)
                one = choose("cpu", threads=1, **same)[0]
                alone = opened.enter_context(Pass(network, first_rows(full.rows, few), precision, one))
                calls["one"] = alone, nullcontext
                compared += [alone] if few == m else []
            n = m if layer_bytes(network, m, dtype) < available_memory() // 2 else min(m, FEW_ROWS)
            products = Products(network, full.rows.kept[:n].astype(dtype, copy=False), threads)
            opened.callback(products.close)
            ways = list(products.ways(_libraries(engine)))
            calls |= {way.title: (way.call, way.context) for way in ways}
        meter.run(calls)
        full.refuse_others(*compared)
    found = meter.timings
    took, row = found["pass"].median, flops(network.sizes)
    multiplied = {way.title: found[way.title].median * m / n for way in ways}
    limit = None
    if multiplied:
        by = min(multiplied, key=multiplied.__getitem__)
        speed = row * m / multiplied[by] / 1e9
        limit = {"by": by, "s": multiplied[by], "gflops": speed, "rows": n, "all_s": multiplied}
    measured = {
        "threads": full.threads,
        "most_threads": engine.owners,
        "passes": len(found["pass"].seconds),
        "pass_s": took,
        "spread": found["pass"].spread,
        "rows_per_s": m / took,
        "gflops": row * m / took / 1e9,
        "limit": limit,
        "of_products": took / limit["s"] if limit else None,
        "one_thread": _one_thread(found["one"], few, m / took) if "one" in found else None,
    }
    return measured, meter.others, {way.library: multiplied[way.title] for way in ways if way.library}


def _one_thread(timing: Timing, m: int, rows_per_s: float) -> dict[str, Any]:
    rate = m / timing.median
    return {"rows": m, "pass_s": timing.median, "rows_per_s": rate, "speedup": rows_per_s / rate}


def _libraries(engine: Backend) -> list[str]:
    """The BLAS to try from threads of ours: all that compiled passes may take; plain NumPy has only its own."""
    from ..backend import blas

    return list(blas.available()) if engine.choice.get("kernel") == "compiled" else ["numpy"]


def _refuse_too_large(network: Network, m: int) -> None:
    # beside the rows: Θ, ∇J, buffers of some leaves, the matrices of the limit
    needed, free = m * row_bytes(network) + 64 * network.P, available_memory()
    if needed > free // 2:
        raise UsageError(
            f"{m:,} rows and {network.parameters:,} parameters take {needed / 1e9:,.1f} GB",
            wanted=f"{free / 2e9:,.1f} GB or less, half of what is free",
            do="take fewer rows or smaller layers",
        )


def _checked_rows(network: Network, rows: int | None) -> int:
    """How many rows have their answer compared: few of large networks, as plain NumPy in fp64 takes its time."""
    affordable = min(2 * 10**10 // flops(network.sizes), (1 << 28) // row_bytes(network))
    return min(max(16, min(MOST_CHECKED, affordable)), rows or MOST_CHECKED)


def _rows_for(first: Pass) -> int:
    """As many rows as a pass takes `PASS` seconds for, or as fit; 1, 2 or 5 times a power of ten."""
    network, m = first.network, first.rows.m
    most = max(m, min(MOST_BYTES, available_memory() // 8) // row_bytes(network))
    took = quick(first)
    while took < PASS / 8 and m < most:  # too short to be taken times a thousand
        m = min(most, 8 * m)
        with Pass(network, random_rows(network, m), first.precision, first.engine) as longer:
            longer()
            took = quick(longer)
    fitting = max(1, min(most, int(m * PASS / took)))
    power = 10 ** (len(str(fitting)) - 1)
    return max(n * power for n in (1, 2, 5) if n * power <= fitting)
