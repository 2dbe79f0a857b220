"""Where arrays live and who multiplies them: `choose("auto" | "cpu" | "gpu")` gives a `Backend`.

A backend is asked for once and handed down; nobody asks an array which library it belongs to. Adding one is adding a
file with a class that has the members of `protocol.Backend`; formulas run as their references until it has kernels.
"""

from __future__ import annotations

from ..errors import BackendError, UsageError
from .protocol import Backend

__all__ = ["Backend", "choose", "gpu_status"]


def gpu_status(device: int = 0) -> tuple[bool, str]:
    """Whether the GPU can be used, and one line that says what it is or why not. Never raises."""
    from .cupy import probe

    return probe(device)


def choose(name: str = "auto", *, device: int = 0, threads: int | None = None) -> tuple[Backend, str]:
    """The backend of that name, and one line that says what was taken and why.

    Args:
        name: "cpu", "gpu", or "auto": the GPU where one works.
        device: which GPU, as CUDA numbers them.
        threads: how many threads the CPU backend uses; by default all cores it may.

    Raises:
        UsageError: another name.
        BackendError: "gpu" was asked for and none works; the message says why.
    """
    from .numpy import NumpyBackend

    if name == "cpu":
        return NumpyBackend(threads), "CPU, as asked"
    if name not in ("auto", "gpu"):
        raise UsageError(f"backend '{name}'", wanted="auto, cpu or gpu")
    works, why = gpu_status(device)
    if works:
        from .cupy import CupyBackend

        return CupyBackend(device), why
    if name == "gpu":
        raise BackendError(f"no GPU to use: {why}", do="take --backend cpu to train on the CPU")
    return NumpyBackend(threads), f"CPU, because {why}"
