"""Where arrays live and who multiplies them: `choose("auto" | "cpu" | "gpu")` gives a `Backend`.

A backend is asked for once and handed down; nobody asks an array which library it belongs to. Adding one is adding a
file with a class that has the members of `protocol.Backend`; formulas run as their references until it has kernels.
"""

from __future__ import annotations

from ..errors import BackendError, UsageError
from .protocol import Backend, LeafLoop

__all__ = ["KERNELS", "Backend", "LeafLoop", "choose", "for_forward", "gpu_status"]

KERNELS = ("auto", "fused", "layered", "compiled", "numpy")


def gpu_status(device: int = 0) -> tuple[bool, str]:
    """Whether the GPU can be used, and one line that says what it is or why not. Never raises."""
    from .cupy import probe

    return probe(device)


def choose(
    name: str = "auto", *, device: int = 0, threads: int | None = None, kernel: str = "auto", blas: str = "auto"
) -> tuple[Backend, str]:
    """The backend of that name, and one line that says what was taken and why.

    Args:
        name: "cpu", "gpu", or "auto": the GPU where one works.
        device: which GPU, as CUDA numbers them.
        threads: how many threads the CPU backend uses; by default all cores it may.
        kernel: how passes are computed. On the CPU "compiled" (needs numba) or "numpy", on the GPU "fused" (the whole
            network in one kernel) or "layered"; "auto": the first where that can be.
        blas: whose matrix products compiled leaves take: "mkl", "numpy" (NumPy's own), or "auto": MKL where installed.

    Raises:
        UsageError: another name; fewer than one thread; a kernel or BLAS of the other device.
        BackendError: what was asked for does not work here; the message says why.
    """
    if name not in ("auto", "cpu", "gpu"):
        raise UsageError(f"backend '{name}'", wanted="auto, cpu or gpu")
    if kernel not in KERNELS:
        raise UsageError(f"kernel '{kernel}'", wanted=f"one of {', '.join(KERNELS)}")
    if blas not in ("auto", "mkl", "numpy"):
        raise UsageError(f"blas '{blas}'", wanted="auto, mkl or numpy")
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads", wanted="1 or more")
    of_gpu = kernel if kernel in ("fused", "layered") else ""
    of_cpu = kernel if kernel in ("compiled", "numpy") else blas if blas != "auto" else ""
    if of_gpu and (name == "cpu" or of_cpu):
        raise UsageError(f"'{of_gpu}' for the CPU", wanted="auto, compiled or numpy", do="it is a kernel of the GPU's")
    if name == "gpu" and of_cpu:
        raise UsageError(f"'{of_cpu}' for the GPU", wanted="auto", do="it is a choice of the CPU's: take --backend cpu")
    why = "CPU, as asked"
    if name != "cpu":
        works, about = gpu_status(device)
        if works and not of_cpu:
            from .cupy import CupyBackend

            return CupyBackend(device, kernel), about
        if name == "gpu" or of_gpu:
            raise BackendError(f"no GPU to use: {about}", do="take --backend cpu to train on the CPU")
        why = f"CPU, as '{of_cpu}' asks" if works else f"CPU, because {about}"
    backend, how = _cpu(threads, kernel, blas)
    return backend, f"{why}; {how}"


def for_forward(name: str = "auto", *, device: int = 0, threads: int | None = None) -> Backend:
    """The backend of that name for forward passes alone, which need no compiled leaves.

    Raises:
        UsageError, BackendError: as `choose`.
    """
    if name != "cpu" and gpu_status(device)[0]:
        return choose(name, device=device, threads=threads)[0]
    return choose(name, device=device, threads=threads, kernel="auto" if name == "gpu" else "numpy")[0]


def _cpu(threads: int | None, kernel: str, library_name: str) -> tuple[Backend, str]:
    from .blas import describe, find
    from .compiled import CompiledBackend, missing
    from .numpy import NumpyBackend

    why = "as asked"
    if kernel != "numpy":
        why = missing()
        if not why:
            try:
                library = find(library_name)
                return CompiledBackend(threads, library), f"compiled loop, {library.describe()}"
            except BackendError as error:
                if kernel == "compiled" or library_name != "auto":
                    raise
                why = str(error)
        if kernel == "compiled":
            raise BackendError(f"no compiled loop: {why}", do="take --kernel numpy")
    if library_name == "mkl":
        raise UsageError("MKL for the kernel 'numpy'", wanted="NumPy's own BLAS", do="MKL needs --kernel compiled")
    return NumpyBackend(threads), f"NumPy with {describe()}, {why if why == 'as asked' else f'because {why}'}"
