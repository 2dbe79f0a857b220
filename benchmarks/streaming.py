"""Training from a file beside training from memory, and beside the storage itself.

    python3 benchmarks/streaming.py [--part warm|cold|scan] [--json FILE]

**warm.** Shape D from a file that the system has in memory: passes over rows that are all kept and passes with a memory
budget, in turn in one process, for each kernel and BLAS there is. Wanted: 90 % of the speed or more, the same bits.

**cold.** The file is taken out of the system's memory before each turn. A small network on wide rows waits for the
storage alone: a pass beside two threads that only read, in turn. Wanted: 85 % of their rate or more. Shape D beside it.

**scan.** The first look at a file, warm and cold, by one thread and by all.

A turn begins when the cores are idle; ratios are of medians, and of the fastest turns.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
from problems import SHAPES, Shape, make
from report import conditions, table, write
from runner import ROOT, Pace

PIECE = 4 << 20  # bytes that the reading threads read at a time
WIDE = Shape((784, 1), "sigmoid", "logistic", 95_000, "784-1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("warm", "cold", "scan"), help="one of the three alone")
    parser.add_argument("--m", type=int, default=2_000_000, help="rows of shape D; the other file is as large")
    parser.add_argument("--budget", default="64MB", help="warm, cold: memory for rows")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each")
    parser.add_argument("--folder", help="where the files are made; by default the system's temporary folder")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured there")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from gpubp.data.memory import parse_size

    found: dict[str, Any] = {"what": "training from a file", **conditions(), "budget": options.budget}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        D = SHAPES["D"].with_rows(options.m)
        wide = WIDE.with_rows(options.m * D.layers[0] // WIDE.layers[0])
        files = {shape.name: make_file(shape, Path(folder, f"{shape.name}.h5")) for shape in (D, wide)}
        budget, rounds = parse_size(options.budget), options.rounds
        if options.part in (None, "warm"):
            found["warm"] = warm(D, files[D.name], budget, rounds)
        if options.part in (None, "cold"):
            found["cold"] = [cold(shape, files[shape.name], budget, rounds) for shape in (wide, D)]
        if options.part in (None, "scan"):
            found["scan"] = [scans(shape, files[shape.name], rounds) for shape in (wide, D)]
    write(options.json, found)
    return 0


def make_file(shape: Shape, path: Path) -> Path:
    """The rows and labels of a shape."""
    with h5py.File(path, "w") as file:
        problem = make(shape)
        file["X"], file["y"] = problem.X, problem.codes
    return path


def evict(path: Path) -> None:
    """Have the system forget what it knows of the file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one turn, begun when the cores are idle."""
    Pace().rest()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(
    contenders: dict[str, Callable[[], Any]], rounds: int, before: Callable[[], None]
) -> dict[str, list[float]]:
    """The seconds of each, turn by turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            before()
            seconds[name].append(timed(contenders[name]))
    return seconds


def objective(shape: Shape, path: Path, budget: int, kernel: str, blas: str) -> Any:
    """Passes over a file with that much memory for its rows."""
    from gpubp.backend import choose
    from gpubp.data.dataset import open_dataset
    from gpubp.data.rows import Rows
    from gpubp.data.scaling import Scaling
    from gpubp.network import Network
    from gpubp.objective import Objective

    data = open_dataset(path)
    source, target = data.source, data.target
    kept = np.empty((min(source.m, budget // (source.features * 4)), source.features), np.float32)
    source.read(0, len(kept), kept)
    assert target is not None
    rows = Rows(source, kept, Scaling("none", None, None), target.astype(np.uint8))
    backend, _ = choose("cpu", kernel=kernel, blas=blas)
    network = Network(shape.layers, shape.activation, shape.cost)
    return Objective(network, rows, shape.lambda_, backend=backend)


def a_pass(it: Any) -> Callable[[], bytes]:
    """One pass at a random Θ; its bits."""
    Theta, gradient = it.network.initial_Theta(0), np.zeros(it.network.P)
    return lambda: np.float64(it.value_and_gradient(Theta, gradient)).tobytes() + gradient.tobytes()


def kernels() -> list[tuple[str, str]]:
    """Each kernel of the CPU with each BLAS that there is for it."""
    from gpubp.backend import blas
    from gpubp.backend.compiled import missing

    return [("numpy", "auto")] + ([] if missing() else [("compiled", name) for name in blas.available()])


def warm(shape: Shape, path: Path, budget: int, rounds: int) -> list[dict[str, Any]]:
    """Kept and streamed in turn."""
    found = []
    for kernel, blas in kernels():
        both = {
            "kept": objective(shape, path, 1 << 60, kernel, blas),
            "budget": objective(shape, path, budget, kernel, blas),
        }
        same = len({a_pass(it)() for it in both.values()}) == 1
        seconds = in_turn({name: a_pass(it) for name, it in both.items()}, rounds, lambda: None)
        found.append(
            {
                "kernel": kernel, "blas": both["kept"].conditions()["blas"], "threads": both["kept"].threads,
                "kept_rows": both["budget"].resident_rows, "same_bits": same, "seconds": seconds,
                **ratios(seconds, "kept", "budget"),
            }
        )  # fmt: skip
        for it in both.values():
            it.close()
    print(f"### {shape}, {path.stat().st_size / 1e6:.0f} MB in the system's memory\n")
    rows = [
        [f"{one['kernel']}, {one['blas']}", *(f"{1e3 * median(s):.0f}" for s in one["seconds"].values()),
         f"{100 * one['ratio']:.0f} %", f"{100 * one['ratio_of_best']:.0f} %", "yes" if one["same_bits"] else "**no**"]
        for one in found
    ]  # fmt: skip
    print("\n".join(table(("ms", "kept", "budget", "speed", "of fastest", "same bits"), rows)), end="\n\n", flush=True)
    return found


def ratios(seconds: dict[str, list[float]], reference: str, other: str) -> dict[str, float]:
    """The speed of one as a share of the reference's."""
    a, b = seconds[reference], seconds[other]
    return {"ratio": median(a) / median(b), "ratio_of_best": min(a) / min(b)}


def only_read(path: Path, threads: int) -> Callable[[], None]:
    """What the storage gives to so many threads that take alternate pieces."""
    size = path.stat().st_size

    def work(fd: int, first: int) -> None:
        buffer = memoryview(bytearray(PIECE))
        for at in range(first * PIECE, size, threads * PIECE):
            os.preadv(fd, [buffer[: size - at]], at)

    def read() -> None:
        with path.open("rb") as file:
            crew = [threading.Thread(target=work, args=(file.fileno(), i)) for i in range(threads)]
            for thread in crew:
                thread.start()
            for thread in crew:
                thread.join()

    return read


def cold(shape: Shape, path: Path, budget: int, rounds: int) -> dict[str, Any]:
    """Passes that keep no rows, and the storage alone, in turn; the file is cold each time."""
    kernel, blas = kernels()[-1]
    it = objective(shape, path, 0, kernel, blas)
    a_pass(it)()
    contenders = {"storage": only_read(path, 2), "pass": a_pass(it)}
    seconds = in_turn(contenders, rounds, lambda: evict(path))
    size, warm_pass = path.stat().st_size, min(timed(a_pass(it)) for _ in range(3))
    it.close()
    found = {"shape": str(shape), "kernel": kernel, "bytes": size, "seconds": seconds, "pass_when_warm": warm_pass}
    found |= ratios(seconds, "storage", "pass")
    rates = {name: f"{size / median(s) / 1e9:.2f} GB/s" for name, s in seconds.items()}
    print(f"### {shape}, {size / 1e6:.0f} MB cold, {kernel} kernel\n")
    print(f"storage {rates['storage']}, a pass {rates['pass']}: {100 * found['ratio']:.0f} % (fastest turns "
          f"{100 * found['ratio_of_best']:.0f} %); warm {size / warm_pass / 1e9:.2f} GB/s\n", flush=True)  # fmt: skip
    return found


def scans(shape: Shape, path: Path, rounds: int) -> dict[str, Any]:
    """The first look at a file."""
    from gpubp.data.dataset import open_dataset
    from gpubp.data.scan import scan

    def look(threads: int | None) -> Callable[[], None]:
        def work() -> None:
            with open_dataset(path) as data:
                scan(data.source, budget=0, threads=threads, compiled=compiled)

        return work

    compiled = kernels()[-1][0] == "compiled"
    contenders = {"one thread": look(1), "all threads": look(None)}
    look(None)()
    found: dict[str, Any] = {"shape": str(shape), "warm": in_turn(contenders, rounds, lambda: None)}
    found["cold"] = in_turn(contenders, rounds, lambda: evict(path))
    size = path.stat().st_size / 1e9
    print(f"### The first look at {shape}\n")
    rows = [[name, *(f"{size / median(found[state][name]):.2f}" for state in ("warm", "cold"))] for name in contenders]
    print("\n".join(table(("GB/s", "warm", "cold"), rows)), end="\n\n", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
