"""Matrix products of a pass in each precision.

"tf32x3" makes float32 out of three products of TF32 numbers: with x = hi + lo, both rounded to 11 bits,

    a·b ≈ lo_a·hi_b + hi_a·lo_b + hi_a·hi_b

where the product of the two low parts, 2⁻²² of the whole, is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import THREADS, Kernel
from .device import Device

Multiply = Callable[..., None]  # (a, b, out, *, transpose, beta=0)


def make(device: Device, kind: str, T: np.dtype, rows: int, network: Any) -> Multiply:
    """The products of a pass in which blocks have at most so many rows."""
    if kind == "tf32x3":
        widest = max(network.sizes)
        factor = max(rows * widest, max(W.size for W in network.views(np.empty(network.P, np.uint8)).W[1:]))
        return _InThree(device, factor)
    name = {"exact": T.name}.get(kind, kind)

    def multiply(a: Any, b: Any, out: Any, *, transpose: str, beta: int = 0) -> None:
        device.multiply(a, b, out, name, transpose=transpose, beta=beta)

    return multiply


class _InThree:
    """Factors of at most `size` elements."""

    def __init__(self, device: Device, size: int) -> None:
        self._device = device
        self._parts = [[device.empty((size,), np.dtype(np.float32)) for _ in range(2)] for _ in range(2)]
        self._split = split()

    def __call__(self, a: Any, b: Any, out: Any, *, transpose: str, beta: int = 0) -> None:
        (a_hi, a_lo), (b_hi, b_lo) = (self._halves(x, parts) for x, parts in zip((a, b), self._parts, strict=True))
        multiply = self._device.multiply
        # the small terms first
        multiply(a_lo, b_hi, out, "tf32", transpose=transpose, beta=beta)
        multiply(a_hi, b_lo, out, "tf32", transpose=transpose, beta=1)
        multiply(a_hi, b_hi, out, "tf32", transpose=transpose, beta=1)

    def _halves(self, x: Any, parts: list[Any]) -> list[Any]:
        size = x.shape[0] * x.shape[1]
        hi, lo = (part[:size].reshape(x.shape) for part in parts)
        if size:
            self._device.launch(self._split, -(-size // THREADS), (x, hi, lo, size))
        return [hi, lo]


def split() -> Kernel:
    """``(x, hi, lo, size)``: both parts rounded to TF32's 11 bits, ties away from zero."""
    body = f"""
__device__ inline float tf32_(float value) {{
  word_ word;
  word.value = value;
  word.bits = (word.bits + 0x1000u) & 0xffffe000u;
  return word.value;
}}
extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_split(
    const float* x, float* hi, float* lo, long long size) {{
  const long long i = (long long)blockIdx.x * {THREADS} + threadIdx.x;
  if (i < size) {{
    hi[i] = tf32_(x[i]);
    lo[i] = tf32_(x[i] - hi[i]);
  }}
}}
"""
    return Kernel("gpubp_split", body, ("const float*", "float*", "float*", "long long"))
