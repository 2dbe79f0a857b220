"""What checkpoints cost a training: a network of 4.8 million parameters with L-BFGS's memory, one every 60 s.

    python3 benchmarks/checkpoints.py [--minutes 8] [--optimizer lbfgs] [--rows 20000] [--every 60] [--out FILE]

Each iteration is timed, and so is the writer. What an iteration took beyond the median, where a checkpoint was written
in it, is what that checkpoint cost: waiting, copying, the writer's share of cores and memory. Time is taken per
evaluation, since a line search may need more than one. Checkpoints before the history is full count like all others.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SIZES = (784, 2048, 1536, 10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--optimizer", default="lbfgs")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--every", default="60")
    parser.add_argument("--folder", help="where the run's folder is made")
    parser.add_argument("--out", metavar="FILE", help="write everything that was measured there")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before NumPy comes
        os.environ[pool] = "1"
    from report import conditions, write

    asked = {k: v for k, v in vars(options).items() if k not in ("out", "folder")}
    found: dict[str, Any] = {"what": "the cost of checkpoints", **conditions(), "options": asked, "runs": []}
    print("| optimizer | size | checkpoints | an evaluation | the writer takes | a checkpoint costs | of the time |")
    print("|---|---|---|---|---|---|---|")
    for name in options.optimizer.split(","):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            run = measured(name, options.rows, options.minutes * 60, options.every, Path(folder) / "run")
        found["runs"].append(run)
        costs = run["costs_s"]
        print(
            f"| {name} | {run['bytes'] / 1e9:.2f} GB | {len(costs)} | {run['evaluation_s']:.2f} s "
            f"| {statistics.median(run['written_s']):.2f} s | {statistics.mean(costs):.2f} s "
            f"| {100 * run['share']:.2f} % |",
            flush=True,
        )
    if options.out:
        write(options.out, found)
    return 0


def measured(name: str, m: int, seconds: float, every: str, out: Path) -> dict[str, Any]:
    """Train for so long and take the time of everything."""
    import numpy as np

    import gpubp
    from gpubp import recording

    writes: list[list[float]] = []

    class Timed(recording.Background):
        def begin(self, work: Any) -> None:
            def timed(go_on: Any) -> None:
                writes.append([time.perf_counter(), time.perf_counter()])
                work(go_on)
                writes[-1][1] = time.perf_counter()

            super().begin(timed)

    recording.Background = Timed  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
    ends: list[tuple[float, int]] = []

    def note(progress: Any, state: Any) -> None:
        ends.append((time.perf_counter(), progress.evaluations))

    draw = np.random.default_rng(1)
    X = draw.random((m, SIZES[0]), dtype=np.float32)
    y = np.argmax(X @ draw.normal(size=(SIZES[0], SIZES[-1])).astype(np.float32), axis=1)
    gpubp.train(
        X, y, out=out, hidden=SIZES[1:-1], optimizer=name, cost="softmax", precision="fp32", lambda_=1.0,
        iterations=1_000_000, seconds=seconds, checkpoint_every=every, keep=1, callbacks=[note],
    )  # fmt: skip
    size = max(path.stat().st_size for path in out.glob("checkpoint-*.h5"))
    # the first is waited for before training begins; one that outlasts the last iteration was not paid for in full
    writes = [w for w in writes[1:] if w[1] < ends[-1][0]]
    spans = [(a[0], b[0], (b[0] - a[0]) / (b[1] - a[1]), b[1] - a[1]) for a, b in pairwise(ends)]
    touched = [[i for i, (begin, end, *_) in enumerate(spans) if begin < w[1] and w[0] < end] for w in writes]
    quiet = [span[2] for i, span in enumerate(spans) if not any(i in one for one in touched)]
    usual = statistics.median(quiet)
    costs = [sum((spans[i][2] - usual) * spans[i][3] for i in one) for one in touched]
    begun = [w[0] for w in writes]
    return {
        "optimizer": name,
        "apart_s": [b - a for a, b in pairwise([ends[0][0], *begun])],
        "rows": m,
        "sizes": SIZES,
        "bytes": size,
        "iterations": len(ends),
        "evaluation_s": usual,
        "evaluations_s": [span[2] for span in spans],
        "touched": touched,
        "written_s": [w[1] - w[0] for w in writes],
        "costs_s": costs,
        "share": sum(costs) / (ends[-1][0] - ends[0][0]),
    }


if __name__ == "__main__":
    sys.exit(main())
