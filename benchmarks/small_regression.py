"""Levenberg–Marquardt on small regression networks, beside SciPy's L-BFGS-B.

    python3 benchmarks/small_regression.py [--seeds 5] [--rows 1000,20000] [--out FILE]

2-20-1 and 8-10-1 tanh networks on smooth functions without noise. Wanted after 50 passes: a mean squared error of at
most 1/100 of SciPy's after 50 evaluations. What is a pass? Of three answers each has a column: "charged", arithmetic
operations, of which JᵀJ takes p (p + 1) a row, 25 evaluations' worth; "looks", how often the rows are gone over, once
for the matrix and once for each trial; "seconds", SciPy's time for its 50 evaluations. All use the same J and ∇J, in
float64, by two threads.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NETWORKS = {"2-20-1": (2, 20, 1), "8-10-1": (8, 10, 1)}
BUDGET = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", default="1000,20000")
    parser.add_argument("--out", metavar="FILE", help="write everything that was measured there")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before NumPy comes
        os.environ[pool] = "1"
    from report import conditions, write

    found: dict[str, Any] = {"what": "lm on small regressions", **conditions(), "options": vars(options), "runs": []}
    print("SciPy's mean squared error ÷ lm's, by seed\n")
    print("| network | rows | charged | looks | seconds |\n|---|---|---|---|---|")
    for network in NETWORKS:
        for m in map(int, options.rows.split(",")):
            runs = [measured(network, m, seed) for seed in range(options.seeds)]
            found["runs"] += runs
            cells = [" / ".join(f"{run['scipy'] / run[what]:.3g}" for run in runs) for what in WAYS]
            print(f"| {network} | {m:,} | {' | '.join(cells)} |", flush=True)
    if options.out:
        write(options.out, found)
    return 0


WAYS = ("charged", "looks", "seconds")


def task(network: str, m: int) -> tuple[Any, Any]:
    """Rows and targets: a product of waves of two inputs, or Friedman's function of five of eight."""
    import numpy as np

    draw = np.random.default_rng(5)
    if network == "2-20-1":
        X = draw.uniform(-1, 1, (m, 2))
        return X, np.sin(3 * X[:, :1]) * np.cos(4 * X[:, 1:]) + X[:, :1] ** 2
    X = draw.uniform(-1, 1, (m, 8))
    U = (X + 1) / 2
    y = 10 * np.sin(np.pi * U[:, 0] * U[:, 1]) + 20 * (U[:, 2] - 0.5) ** 2 + 10 * U[:, 3] + 5 * U[:, 4]
    return X, ((y - y.mean()) / y.std())[:, None]


def measured(network: str, m: int, seed: int) -> dict[str, Any]:
    """One start: J of SciPy after its evaluations, and of lm within as much of each kind."""
    import numpy as np
    from scipy.optimize import minimize

    import gpubp
    from gpubp import optimizers
    from gpubp.backend import choose
    from gpubp.data.rows import Rows
    from gpubp.data.scaling import Scaling
    from gpubp.data.source import ArrayRows
    from gpubp.objective import Objective

    X, y = task(network, m)
    net = gpubp.Network(NETWORKS[network], "tanh", "squares")
    backend, _ = choose("cpu", threads=2)
    source = ArrayRows(X)
    f: Any = Objective(
        net, Rows(source, source.array, Scaling("none", None, None), y), backend=backend, precision="fp64"
    )
    f.noise = 1e-14
    gradient, costs = np.zeros(net.P), []

    def evaluate(Theta: Any) -> Any:
        costs.append(f.value_and_gradient(Theta, gradient))
        if len(costs) == BUDGET:
            raise StopIteration
        return costs[-1], gradient.copy()

    start = net.initial_Theta(seed)
    began = time.perf_counter()
    with suppress(StopIteration):
        minimize(evaluate, start, jac=True, method="L-BFGS-B", options={"maxfun": 10**6, "ftol": 0, "gtol": 0})
    limit = {"charged": BUDGET, "looks": BUDGET, "seconds": time.perf_counter() - began}
    result: dict[str, Any] = {"network": network, "rows": m, "seed": seed, "scipy": min(costs), **limit}
    for what in WAYS:
        # where only looks count, a matrix of all rows costs no more than one of a sample
        optimizer = optimizers.make("lm", tolerance=0, rows_per_parameter=0 if what == "looks" else 8)
        began = time.perf_counter()
        state = optimizer.init(f, start)
        best = state.J
        while optimizer.step(f, state) is None:
            used = {
                "charged": state.passes, "looks": state.evaluations + state.iteration,
                "seconds": time.perf_counter() - began,
            }  # fmt: skip
            if used[what] > limit[what]:
                break
            best = min(best, state.J)
        result[what] = best
    f.close()
    return result


if __name__ == "__main__":
    sys.exit(main())
