"""Does a sweep choose well, and what does it cost? gpubp sweep beside cold starts on a fine grid.

    python3 benchmarks/choosing.py [--seeds 3] [--cost softmax] [--fine 25] [--out benchmarks/results/choosing.json]

The digits that come with the package, 784-25-10: 5,000 rows, a fifth of them held out, and 5,000 for testing, which no
sweep sees. Three sweeps end each training by the same rule: eight λ's warm-started, the same cold, and a fine grid
cold. Wanted of the warm one: at most 0.40 of the passes of the cold one, and a λ whose test accuracy is within 0.003 of
the best on the fine grid. The accuracy at the chosen λ is that of its model in the cold sweep and in the warm one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
COARSE = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HIDDEN = 25


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cost", default="softmax", choices=("softmax", "logistic"))
    parser.add_argument("--fine", type=int, default=25, help="λ's of the fine grid, 0 and from 0.01 to 30")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--decrease", type=float, default=1e-3)
    parser.add_argument("--optimizer", default="klbfgs")
    parser.add_argument("--out", metavar="FILE", help="write everything that was measured there")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from report import conditions, write

    fine = (0.0, *np.geomspace(0.01, 30, options.fine - 1).round(5).tolist())
    found: dict[str, Any] = {"what": "sweeps over λ", **conditions(), "options": vars(options), "seeds": []}
    print("| seed | passes warm / cold | | λ chosen | test, cold model (warm) | best of the fine grid | passes fine |")
    print("|---|---|---|---|---|---|---|")
    for seed in range(options.seeds):
        one = measured(seed, fine, options)
        found["seeds"].append(one)
        print(
            f"| {seed} | {one['warm']:.0f} / {one['cold']:.0f} | {one['warm'] / one['cold']:.3f} | {one['chosen']:g} "
            f"| {one['test_cold']:.4f} ({one['test_warm']:.4f}) | {one['best_test']:.4f} at {one['best']:g} "
            f"| {one['fine']:.0f} |",
            flush=True,
        )
    if options.out:
        write(options.out, found)
    return 0


def measured(seed: int, fine: tuple[float, ...], options: argparse.Namespace) -> dict[str, Any]:
    """One seed: passes of the three sweeps, and accuracies on the rows for testing."""
    import h5py

    import gpubp
    from gpubp.data.demo import demo_file
    from gpubp.job import Job
    from gpubp.prepare import array_dataset, prepare

    with h5py.File(demo_file()) as file:
        tables: Any = file
        X, y, X_test, y_test = (tables[name][()] for name in ("train/X", "train/y", "test/X", "test/y"))
    job = Job(hidden=(HIDDEN,), cost=options.cost, seed=seed, validation=0.2, backend="cpu")
    ready = prepare(job, array_dataset(X, y))

    def sweep(lambdas: tuple[float, ...], warm: bool) -> tuple[Any, dict[float, float]]:
        with tempfile.TemporaryDirectory() as folder:
            done = gpubp.sweep(
                X, y, lambdas=lambdas, hidden=(HIDDEN,), cost=options.cost, seed=seed, warm=warm, out=folder,
                backend="cpu", iterations=options.iterations, decrease=options.decrease, optimizer=options.optimizer,
            )  # fmt: skip
            accuracy = {}
            for path in Path(folder).glob("point-*.npz"):
                with np.load(path) as point:
                    right = ready.model(point["Theta"]).predict(X_test, backend="cpu") == y_test
                lambda_ = float(path.stem.rsplit("_", 1)[1])
                accuracy[lambda_] = float(np.mean(right))
        return done, accuracy

    warm, of_warm = sweep(COARSE, True)
    cold, of_cold = sweep(COARSE, False)
    finest, of_fine = sweep(fine, False)
    ready.close()
    best = max(of_fine, key=of_fine.__getitem__)
    chosen = warm.best.lambda_
    return {
        "seed": seed, "warm": warm.passes, "cold": cold.passes, "fine": finest.passes, "chosen": chosen,
        "test_warm": of_warm[chosen], "test_cold": of_cold[chosen], "best": best, "best_test": of_fine[best],
        "accuracies": {"warm": of_warm, "cold": of_cold, "fine": of_fine},
        "seconds": {"warm": sum(c.seconds for c in warm.candidates), "cold": sum(c.seconds for c in cold.candidates)},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
