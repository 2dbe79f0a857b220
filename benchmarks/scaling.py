"""Ten times the rows: ten times the time, and no more memory.

    python3 benchmarks/scaling.py [--json FILE]

Shape D with 200,000 and with 2,000,000 rows, each engine of gpubp, each in a process of its own, turn and turn about.
Prints the ratio of the times (wanted: 9 to 11) and how far the memory above the data is apart (wanted: less than
10 MB).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--m", type=int, default=200_000, help="rows of the smaller one")
    parser.add_argument("--times", type=int, default=10, help="how many times as many the larger one has")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each")
    parser.add_argument("--threads", type=int, help="all cores there are, unless said otherwise")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured there")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from contenders import CONTENDERS
    from problems import SHAPES
    from report import conditions, noise, table, write
    from runner import Dropped

    from gpubp.backend.cores import available_cores

    threads = options.threads or available_cores()
    shapes = [SHAPES["D"].with_rows(m) for m in (options.m, options.times * options.m)]
    engines = [name for name, contender in CONTENDERS.items() if contender.kind == "gpubp"]
    found: list[dict[str, Any]] = []
    remarks: list[str] = [""]
    runs: list[Any] = []
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        truths = [_reference(shape, os.path.join(folder, f"{shape.m}.npy")) for shape in shapes]
        for engine in engines:
            try:
                results = _measure(engine, shapes, truths, threads, options.rounds)
            except Dropped as reason:
                failed |= not reason.skipped
                remarks.append(f"- {engine}: {'skipped' if reason.skipped else '**failed**'}, {reason}")
            else:
                runs += results
                found.append(_compared(engine, *results))
    head = ("", *(f"ms at {s.m:,}" for s in shapes), "ratio", *(f"MB at {s.m:,}" for s in shapes), "difference")
    rows = [
        [each["engine"], *(f"{1e3 * s:.2f}" for s in each["seconds"]), f"{each['ratio']:.2f}",
         *(f"{mb:.1f}" for mb in each["memory_mb"]), f"{each['memory_difference_mb']:+.1f}"]
        for each in found
    ]  # fmt: skip
    print("\n".join([*table(head, rows), *remarks, *noise(runs)]))
    write(options.json, {"what": "ten times the rows", **conditions(), "threads": threads, "engines": found})
    return int(failed)


def _reference(shape: Any, path: str) -> tuple[float, str]:
    """J, and the file in which ∇J was put."""
    import numpy as np
    from problems import make, reference

    J, gradient = reference(make(shape))
    np.save(path, gradient)
    return J, path


def _measure(engine: str, shapes: list[Any], truths: list[Any], threads: int, rounds: int) -> list[Any]:
    """The results of one engine on all shapes, timed in turn.

    Raises:
        Dropped: it cannot run here, or not rightly.
    """
    from race import refuse_wrong
    from runner import Pace, Runner

    with ExitStack() as processes:
        runners: list[Runner] = []
        for shape, truth in zip(shapes, truths, strict=True):
            runners.append(Runner(engine, shape, threads))
            processes.callback(runners[-1].close)
            runners[-1].begin()
            runners[-1].check(*truth)
            refuse_wrong(runners[-1].result)
        for turn in range(rounds):
            for runner in runners if turn % 2 == 0 else runners[::-1]:
                runner.turn(Pace())
        return [runner.result for runner in runners]


def _compared(engine: str, small: Any, large: Any) -> dict[str, Any]:
    return {
        "engine": engine,
        "seconds": [small.seconds, large.seconds],
        "ratio": large.seconds / small.seconds,
        "memory_mb": [small.memory_mb, large.memory_mb],
        "memory_difference_mb": large.memory_mb - small.memory_mb,
        "results": [vars(small), vars(large)],
    }


if __name__ == "__main__":
    sys.exit(main())
