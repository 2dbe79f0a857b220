"""The sum tree over leaves on the device: siblings are added pairwise, many levels in one launch.

A thread adds the values of `width` neighbouring leaves for one element, in exactly the order of the tree (the first
with the second, the third with the fourth, then the two sums), so how many levels a launch takes makes no difference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import THREADS, Kernel, c_type

MOST = 128  # values a thread reads, as many in flight as its registers hold


def combine(T: np.dtype, width: int) -> Kernel:
    """``(sums, costs, out, cost_out, P, groups)``; `combine_blocks(P, groups)` blocks.

    sums: (groups·width, P), costs: (groups·width, 2) float64; out: (groups, P), cost_out: (groups, 2). P may be 0.
    """
    real = c_type(T)
    name = f"gpubp_combine_{real}_{width}"
    tree = f"Tree_{real}_{width}_"  # kernels go into one program
    body = f"""
template <int n, class N> struct {tree} {{
  static __device__ N sum(const N* p, long long step) {{
    return {tree}<n / 2, N>::sum(p, step) + {tree}<n / 2, N>::sum(p + n / 2 * step, step);
  }}
}};
template <class N> struct {tree}<1, N> {{
  static __device__ N sum(const N* p, long long) {{ return *p; }}
}};
extern "C" __global__ void __launch_bounds__({THREADS}) {name}(
    const {real}* sums, const double* costs, {real}* out, double* cost_out, long long P, long long groups) {{
  const long long i = (long long)blockIdx.x * {THREADS} + threadIdx.x;
  if (i < groups * P) {{
    const long long group = i / P;
    out[i] = {tree}<{width}, {real}>::sum(sums + group * {width} * P + (i - group * P), P);
  }} else if (i < groups * (P + 2)) {{
    const long long j = i - groups * P, group = j / 2;
    cost_out[j] = {tree}<{width}, double>::sum(costs + group * {2 * width} + j % 2, 2);
  }}
}}
"""
    types = (f"const {real}*", "const double*", f"{real}*", "double*", "long long", "long long")
    return Kernel(name, body, types)


def combine_blocks(P: int, groups: int) -> int:
    """How many blocks `combine` takes."""
    return -(-groups * (P + 2) // THREADS)


def widths(leaves: int) -> list[int]:
    """How many values each launch adds, leaves being a power of two: few launches of nearly equal width."""
    levels = leaves.bit_length() - 1
    most = MOST.bit_length() - 1
    launches = max(1, -(-levels // most))  # one leaf is copied
    return [1 << (levels * (i + 1) // launches - levels * i // launches) for i in range(launches)]


class Tree:
    """Adds the sums of `leaves` leaves that lie one after the other; the root is where `root` and `cost` say.

    Args:
        sums, costs: (leaves, P) and (leaves, 2) float64 on the device; `sums` is overwritten where there are more than
            two launches.
    """

    def __init__(self, device: Any, sums: Any, costs: Any, root: Any, cost: Any) -> None:
        leaves, P = sums.shape
        self._device, self._steps = device, []
        source = (sums, costs)
        groups = leaves
        for width in widths(leaves):
            groups //= width
            last = groups == 1
            out = root if last else device.empty((groups, P), sums.dtype)
            cost_out = cost if last else device.empty((groups, 2), np.dtype(np.float64))
            self._steps.append((combine(sums.dtype, width), groups, *source, out, cost_out))
            source = (out, cost_out)

    def add(self, P: int) -> None:
        """Queue it; for a pass without a gradient P is 0 and only costs are added."""
        for kernel, groups, sums, costs, out, cost_out in self._steps:
            blocks = combine_blocks(P, groups)
            self._device.launch(kernel, blocks, (sums, costs, out, cost_out, P, groups))
