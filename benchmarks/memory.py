"""Memory of a whole training run on a file larger than its budget, and whether the bits are those of a run that keeps
all.

    python3 benchmarks/memory.py [--gigabytes 2] [--budget 256MB]
    python3 benchmarks/memory.py --flat [--small 1] [--large 10] [--budget 256MB]

Makes a file of random float32 rows in a temporary folder, trains on it twice, each time in a process of its own (once
with the budget, once with everything kept), and prints the peak resident memory of both as JSON.

**--flat** trains on a small and on a large file with the same budget. Wanted: peaks that differ by 10 MB at most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).parent.parent
FEATURES = 100
CHILD = """
import re, sys
sys.path.insert(0, sys.argv.pop(1))
from gpubp.cli import main
try:
    main(sys.argv[1:])
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def make(path: Path, gigabytes: float) -> int:
    """A file of that size; the number of rows."""
    m, step = int(gigabytes * 1e9) // (4 * FEATURES), 100_000
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        X = file.create_dataset("X", (m, FEATURES), np.float32)
        for start in range(0, m, step):
            X[start : start + step] = rng.random((min(step, m - start), FEATURES), dtype=np.float32)
        file["y"] = rng.integers(0, 2, m, dtype=np.uint8)
    return m


def train(path: Path, out: Path, memory: str, *more: str) -> dict[str, float]:
    """Peak resident megabytes and seconds of one run."""
    began = time.perf_counter()
    options = ["--hidden", "32", "--iterations", "3", "--memory", memory, *more]
    command = [sys.executable, "-c", CHILD, str(ROOT), "--quiet", "train", str(path), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = int(done.stdout.split()[-1]) * 1024
    return {"peak_mb": peak / 1e6, "seconds": time.perf_counter() - began}


def flat(sizes: tuple[float, float], budget: str, folder: str, more: list[str]) -> dict[str, object]:
    """The peaks of a small and a large file, one file after the other, and how far they are apart."""
    peaks = []
    for gigabytes in sizes:
        path = Path(folder, "rows.h5")
        m = make(path, gigabytes)
        found = [train(path, Path(folder, f"run-{gigabytes}-{turn}"), budget, *more) for turn in range(2)]
        least = min(found, key=lambda one: one["peak_mb"])
        peaks.append({"gigabytes": gigabytes, "rows": m, **least})
        path.unlink()
    apart = peaks[1]["peak_mb"] - peaks[0]["peak_mb"]
    return {"budget": budget, "options": more, "runs": peaks, "difference_mb": apart, "flat": abs(apart) <= 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--flat", action="store_true", help="the same budget on two files")
    parser.add_argument("--small", type=float, default=1, help="--flat: gigabytes")
    parser.add_argument("--large", type=float, default=10, help="--flat: gigabytes")
    parser.add_argument("--folder", help="where the files are made; by default the system's temporary folder")
    parser.add_argument("--train", nargs="*", default=[], metavar="OPTION", help="--flat: more options, without dashes")
    parser.add_argument("--budget", default="256MB")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    import gpubp

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.flat:
            more = [f"--{option}" for option in options.train]
            print(json.dumps(flat((options.small, options.large), options.budget, folder, more), indent=1))
            return
        path = Path(folder, "big.h5")
        m = make(path, options.gigabytes)
        streamed = train(path, Path(folder, "streamed"), options.budget)
        kept = train(path, Path(folder, "kept"), f"{options.gigabytes * 2:g}GB")
        same = gpubp.load(Path(folder, "streamed")).Theta.tobytes() == gpubp.load(Path(folder, "kept")).Theta.tobytes()
        size = path.stat().st_size / 1e6
    print(json.dumps({"rows": m, "file_mb": size, "budget": options.budget, "streamed": streamed, "kept": kept,
                      "same_bits": same}, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
