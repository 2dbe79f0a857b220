"""What a backend must do. The plain composition of these is the definition of a pass."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import numpy as np

from ..formula import Formula


class Backend(Protocol):
    """Arrays of one device and the few operations a pass consists of.

    Arrays are the device's own, row-major (C order). Work may be queued: only `to_host` promises that it is done.
    Operations on the arrays of one owner (thread) are in order.
    """

    @property
    def kind(self) -> Literal["cpu", "gpu"]:
        """What kind of device: results on different kinds differ in their last bits."""
        ...

    @property
    def owners(self) -> int:
        """How many threads may run a pass together."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A new array, its start aligned to 64 bytes or more, its content undefined."""
        ...

    def zero(self, array: Any) -> None:
        """array ← 0."""
        ...

    def gemm(self, a: Any, b: Any, out: Any, *, transpose: str = "nn", beta: int = 0) -> None:
        """out ← op(a)·op(b) + beta·out for matrices of one dtype; `transpose` is two letters of n and t."""
        ...

    def apply(self, formula: Formula, *inputs: Any, out: Any) -> None:
        """out ← formula(inputs), elementwise or rowwise; `out` may be one of the inputs."""
        ...

    def total(self, formula: Formula, *inputs: Any, out: Any) -> None:
        """out[0] ← out[0] + Σ formula(inputs); `out` is a float64 array of one element."""
        ...

    def upload(self, host: np.ndarray) -> Any:
        """The host's array on the device; on the CPU the array itself. The host's array may be reused on return."""
        ...

    def resident(self, host: np.ndarray) -> Any:
        """As many first rows of the host's array as the device can keep for a whole run."""
        ...

    def to_host(self, array: Any) -> np.ndarray:
        """A device array on the host, after all work queued before it; on the CPU the array itself."""
        ...

    def leaves_and_block(self, m: int, sizes: tuple[int, ...]) -> tuple[int, int]:
        """The number of leaves (a power of two) and the most rows of a block for m rows and these layers."""
        ...

    def guard(self) -> AbstractContextManager[Any]:
        """Entered around work whose bits must not depend on the surroundings (one BLAS thread; the right device)."""
        ...

    def conditions(self) -> dict[str, str]:
        """What the bits of a result depend on: device, libraries, kernels."""
        ...
