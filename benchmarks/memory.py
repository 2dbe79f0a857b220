"""Memory of a whole training run on a file larger than its budget, and whether the bits are those of a run that keeps
all.

    python3 benchmarks/memory.py [--gigabytes 2] [--budget 256MB]

Makes a file of random float32 rows in a temporary folder, trains on it twice, each time in a process of its own (once
with the budget, once with everything kept), and prints the peak resident memory of both as JSON.
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


def train(path: Path, out: Path, memory: str) -> dict[str, float]:
    """Peak resident megabytes and seconds of one run."""
    began = time.perf_counter()
    options = ["--hidden", "32", "--iterations", "3", "--memory", memory]
    command = [sys.executable, "-c", CHILD, str(ROOT), "--quiet", "train", str(path), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = int(done.stdout.split()[-1]) * 1024
    return {"peak_mb": peak / 1e6, "seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--budget", default="256MB")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    import gpubp

    with tempfile.TemporaryDirectory() as folder:
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
