"""What would make a pass faster here: each line follows from something measured or looked up."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..backend import Backend, blas, compiled, gpu_status
from ..backend.cores import available_cores
from .meter import NOISE

CLEAR = 0.95  # of the time: what another BLAS must take to be named
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Facts:
    """What advice follows from.

    Attributes:
        engine, how: what `choose` gave.
        kernel, device, precision: what was asked for.
        others: cores busy with other work.
        products: seconds of the matrix products on threads of ours, by the BLAS's name.
    """

    engine: Backend
    how: str
    kernel: str = "auto"
    device: int = 0
    precision: str = "fp32"
    others: float = 0.0
    products: Mapping[str, float] = field(default_factory=dict)


def advise(facts: Facts) -> list[str]:
    """A line for each thing that would help; empty where nothing is known."""
    found = []
    if facts.engine.kind == "cpu":
        found = [*_gpu(facts), *_kernel(facts), *_threads(facts)]
    if facts.precision == "fp64":
        found.append("fp64 takes about twice as long as fp32: --precision fp32 where its digits are enough")
    if facts.others > NOISE and facts.others + facts.engine.owners > _cores():
        found.append(
            f"other processes, or the machine's host, kept {facts.others:.1f} cores busy meanwhile: "
            "run it again when they are done"
        )
    return found


def _gpu(facts: Facts) -> Iterator[str]:
    works, about = gpu_status(facts.device)
    if works:
        yield f"a GPU is here and was not asked for: --backend gpu takes it ({about})"
    elif DRIVER.exists():
        yield f"NVIDIA's driver is here, but no GPU can be used: {about}"


def _kernel(facts: Facts) -> Iterator[str]:
    choice, missing = facts.engine.choice, compiled.missing()
    if choice.get("kernel") == "compiled":
        yield from _blas(choice["blas"], facts.products)
    elif missing:
        yield f"passes are not compiled: {missing}"
    elif facts.kernel == "numpy":
        yield "--kernel numpy was asked for, and numba is installed: without it passes are compiled"
    else:
        yield f"passes are not compiled: {facts.how.rpartition(', because ')[2]}"


def _blas(ours: str, products: Mapping[str, float]) -> Iterator[str]:
    own = blas.of_numpy()
    here = "mkl" in blas.available() or (own is not None and own.title == "MKL")
    if not here and (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        yield "Intel's MKL is not installed (pip install 'gpubp[mkl]'): it multiplies faster on most x86 machines"
    for other, seconds in products.items():
        if ours in products and seconds < CLEAR * products[ours]:
            part = seconds / products[ours]
            yield f"--blas {other}: its matrix products took {part:.2f} of the time of {ours}'s here"


def _threads(facts: Facts) -> Iterator[str]:
    threads, cores = facts.engine.owners, available_cores()
    if threads != cores:
        why = "all work" if threads < cores else "none waits for another"
        yield f"--threads {threads} was asked for and there are {cores} cores: without it {why}"


def _cores() -> int:
    """The cores at which others were seen, which a quota does not cut."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else available_cores()
