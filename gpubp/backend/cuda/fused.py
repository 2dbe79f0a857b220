"""One kernel for a whole narrow network: cost sums and gradient sums, per leaf of the sum tree, in one read of X.

`plan` writes the kernel of a task. Only the rows themselves cross the device's memory: weights and a tile's activations
live in shared memory, gradient sums in registers. The device text is in `tensor.cuh` (instructions),
`products.cuh` and `fused.cuh` (a tile's steps); `text` puts constants and formulas before it and the steps in order;
`shape` says how the work is cut.

Parameters of the kernel, in order:
    x, labels           rows as stored, row `x_row` first; labels by absolute row
    numbers             (K,) int32, what label each output stands for; null where labels are y itself
    mean, scale         (s_1,) float64; null unless rows are standardised
    w, v                training and validation weights, float32, by absolute row; null where there are none
    Theta               (P,) float32
    partials, costs     (leaves, P) float32; (leaves, 2) float64: Σ w·cost and Σ v·cost; those of leaf `base` come first
    m, leaves           rows in all; leaf i has rows ⌊i·m/leaves⌋ … ⌊(i+1)·m/leaves⌋
    first_leaf, last_leaf   the leaves of this launch, the last excluded; block b takes first_leaf + b, + gridDim.x, …
    x_row               the absolute row number of x[0]
    from, to            of each leaf, the rows of this launch, counted from the leaf's first; multiples of `part_rows`
    keep                1: add to what an earlier launch left; 0: set it, gaps of the flat vector too
    with_gradient       0: costs alone

A block owns whole leaves and sums in a fixed order, and sums are passed on every `part_rows` rows: results depend
neither on the grid nor on how a leaf is cut into launches. They depend on the cut, so on `shared_limit`.

What is planned for sm_90 with float32 rows (registers from the compiler; words are warp-wide 32-bit accesses of shared
memory, of which a multiprocessor makes one a clock; clocks are `Shape.clocks_per_row`, an estimate that no GPU has
confirmed and that leaves out the activation's instructions, for tanh about as many clocks again as bf16's words):

    network        precision  tile  warps  registers  blocks  products  words  words/product  clocks per 64 rows
    28-64-64-1     tf32         64      4        166       2      1152   3360            2.9                3660
    28-64-64-1     tf32x3       64      4        145       2      3456   4736            1.4                5830
    28-64-64-1     bf16        128      4        221       2      1216   3168            2.6                1734
    28-128-128-1   tf32         64      8        198       1      3840   9280            2.4                9880
    28-128-128-1   tf32x3       64      8        178       1     11520  14080            1.2               19032
    28-128-128-1   bf16        128      8        244       1      3968   8640            2.2                4620
    400-25-10      tf32         32      8        140       1       848   3056            3.6                7072
    400-25-10      tf32x3       16      4        199       2      1272   1664            1.3                9101
    400-25-10      bf16         32      4        187       2       424   1248            2.9                2976

On 132 multiprocessors at 1.75 GHz, 20 million rows of 28-64-64-1 are 2,367 times 64 rows on each: 4.9 ms in tf32.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ...errors import BackendError
from ..kernels import Kernel
from . import shape
from .shape import Shape
from .task import Precision, Task, c_type
from .text import constants, formulas, steps

__all__ = ["Fused", "Precision", "Task", "plan"]

# Tensor cores round sums toward zero: every so many rows they become part of sums that round to nearest.
_PART_ROWS: dict[Precision, int] = {"tf32": 2048, "tf32x3": 128, "bf16": 2048}


@dataclass(frozen=True)
class Fused:
    """A kernel and what its launches must know.

    Attributes:
        kernel: text, parameters, threads and shared memory.
        tile_rows: rows a block computes at a time.
        part_rows: rows after which sums are passed on; cuts of a leaf are multiples of it.
        P: the length of Θ and of a leaf's partial sums.
        blocks: how many blocks a multiprocessor holds, as planned.
        shape: how the work is cut.
    """

    kernel: Kernel
    tile_rows: int
    part_rows: int
    P: int
    blocks: int
    shape: Shape


def plan(task: Task, shared_limit: int = 227 * 1024, **only: int) -> Fused:
    """The kernel of a task; `only` fixes its `tile`, `bands` or `warps` (for tests).

    Args:
        shared_limit: bytes of shared memory that a block may have: 227 KiB on sm_90, 163 KiB on sm_80.

    Raises:
        BackendError: the network does not fit, or a type that cannot be read.
    """
    if task.one_hot and task.labels.kind not in "iu":
        raise BackendError(f"class numbers in {task.labels}", wanted="integers")
    cut = shape.best(task.layout, shared_limit, **only)
    part_rows = _PART_ROWS[task.precision]
    text = constants(task, cut) + formulas(task) + "".join(map(_read, ("tensor.cuh", "products.cuh", "fused.cuh")))
    kernel_text = steps(task, cut, part_rows)
    name = "gpubp_fused_" + hashlib.blake2b((text + kernel_text).encode(), digest_size=8).hexdigest()
    pointers = [
        f"const {c_type(task.stored)}* x", f"const {c_type(task.labels)}* labels", "const int* numbers",
        "const double* mean", "const double* scale", "const float* w", "const float* v", "const float* Theta",
        "float* partials", "double* costs",
    ]  # fmt: skip
    numbers = ["long long m", "int leaves", "int first_leaf", "int last_leaf", "int base", "long long x_row",
               "long long from", "long long to", "int keep", "int with_gradient"]  # fmt: skip
    signature = ", ".join([*(p.replace("* ", "* __restrict__ ") for p in pointers), *numbers])
    body = (
        f"\nnamespace {name}_ {{\n{text}}}\n"
        f'extern "C" __global__ void __launch_bounds__({32 * cut.warps}, {cut.blocks}) {name}(\n    {signature}) {{\n'
        f"  using namespace {name}_;\n{kernel_text}}}\n"
    )
    types = tuple(parameter.rsplit(None, 1)[0] for parameter in pointers + numbers)
    kernel = Kernel(name, body, types, 32 * cut.warps, cut.shared)
    return Fused(kernel, cut.tile, part_rows, task.P, cut.blocks, cut)


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
