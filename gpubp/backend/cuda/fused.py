"""One kernel for a whole narrow network: cost sums and gradient sums, per leaf of the sum tree, in one read of X.

`plan` writes the kernel of a task. Nothing of a layer but the rows themselves crosses the device's memory: weights and
a tile's activations live in shared memory, gradient sums in registers. The device text is in `tensor.cuh` and
`fused.cuh`; how the work is cut is in `shape`. Here constants, formulas and the order of the steps are put together.

Parameters of the kernel, in order:
    x, labels           rows as stored, row `x_row` first; labels by absolute row
    numbers             (K,) int32, what label each output stands for; null where labels are y itself
    mean, scale         (s_1,) float64; null unless rows are standardised
    w, v                training and validation weights, float32, by absolute row; null where there are none
    Theta               (P,) float32
    partials, costs     (leaves, P) float32; (leaves, 2) float64: Σ w·cost and Σ v·cost
    m, leaves           rows in all; leaf i has rows ⌊i·m/leaves⌋ … ⌊(i+1)·m/leaves⌋
    first_leaf, last_leaf   the leaves of this launch, the last excluded; block b takes first_leaf + b, + gridDim.x, …
    x_row               the absolute row number of x[0]
    from, to            of each leaf, the rows of this launch, counted from the leaf's first; multiples of `part_rows`
    keep                1: add to what an earlier launch left; 0: set it, gaps of the flat vector too
    with_gradient       0: costs alone

A block owns whole leaves and sums in a fixed order, and sums are passed on every `part_rows` rows: results depend
neither on the grid nor on how a leaf is cut into launches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ... import formula
from ...activation import Activation
from ...cost import Cost
from ...errors import BackendError
from ...formula import Formula
from ...network import Network
from .. import kernels
from ..kernels import Kernel
from . import shape
from .shape import Shape

Precision = Literal["tf32", "tf32x3", "bf16"]

# Tensor cores round sums toward zero: every so many rows they become part of sums that round to nearest.
_PART_ROWS = {"tf32": 2048, "tf32x3": 256, "bf16": 2048}


@dataclass(frozen=True)
class Task:
    """Everything the kernel's text depends on.

    Attributes:
        sizes: s_1 … s_L.
        g, J: the activation of the hidden layers; the cost.
        stored: the type of X in memory.
        conversion: how rows become the pass's: "cast", or "standardise" by mean and scale.
        labels, one_hot: the labels' type; whether they are one class number a row, or y itself, (m, K).
        weighted, held: whether rows have training weights w, validation weights v.
        precision: of the products; everything around them is float32, the costs' sums float64.
        offsets: of W^(l) and b^(l) in the flat vector, for l = 1 … L − 1.
        P: the length of the flat vector.
    """

    sizes: tuple[int, ...]
    g: Activation
    J: Cost
    stored: np.dtype
    conversion: Literal["cast", "standardise"]
    labels: np.dtype
    one_hot: bool
    weighted: bool
    held: bool
    precision: Precision
    offsets: tuple[tuple[int, int], ...]
    P: int

    @classmethod
    def of(
        cls,
        network: Network,
        precision: Precision,
        *,
        stored: np.dtype,
        labels: np.dtype,
        one_hot: bool,
        conversion: Literal["cast", "standardise"] = "cast",
        weighted: bool = False,
        held: bool = False,
    ) -> Task:
        """The task of a network: its flat vector's layout is read off its views."""
        W, b = network.views(np.arange(network.P))
        offsets = tuple((int(W[l].flat[0]), int(b[l].flat[0])) for l in range(1, network.L))
        return cls(
            network.sizes, network.g, network.J, np.dtype(stored), conversion, np.dtype(labels), one_hot, weighted,
            held, precision, offsets, network.P,
        )  # fmt: skip

    @property
    def K(self) -> int:
        """The number of outputs."""
        return self.sizes[-1]

    @property
    def layout(self) -> shape.Layout:
        """What decides how the work is cut."""
        columns = 1 if self.one_hot else self.K
        return shape.Layout(
            self.sizes, 2 if self.precision == "bf16" else 1, self.precision == "tf32x3",
            self.sizes[0] * self.stored.itemsize, columns * self.labels.itemsize,
            (self.weighted or self.held) * 8, columns, not self.g.slope_from_a,
        )  # fmt: skip


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
    text = _constants(task, cut) + _formulas(task) + _read("tensor.cuh") + _read("fused.cuh")
    steps = _steps(task, cut, part_rows)
    name = "gpubp_fused_" + hashlib.blake2b((text + steps).encode(), digest_size=8).hexdigest()
    pointers = [
        f"const {_c_type(task.stored)}* x", f"const {_c_type(task.labels)}* labels", "const int* numbers",
        "const double* mean", "const double* scale", "const float* w", "const float* v", "const float* Theta",
        "float* partials", "double* costs",
    ]  # fmt: skip
    numbers = ["long long m", "int leaves", "int first_leaf", "int last_leaf", "long long x_row", "long long from",
               "long long to", "int keep", "int with_gradient"]  # fmt: skip
    signature = ", ".join([*(p.replace("* ", "* __restrict__ ") for p in pointers), *numbers])
    body = (
        f"\nnamespace {name}_ {{\n{text}}}\n"
        f'extern "C" __global__ void __launch_bounds__({32 * cut.warps}, {cut.blocks}) {name}(\n    {signature}) {{\n'
        f"  using namespace {name}_;\n{steps}}}\n"
    )
    types = tuple(parameter.rsplit(None, 1)[0] for parameter in pointers + numbers)
    kernel = Kernel(name, body, types, 32 * cut.warps, cut.shared)
    return Fused(kernel, cut.tile, part_rows, task.P, cut.blocks, cut)


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _c_type(dtype: np.dtype) -> str:
    found = kernels.c_type(dtype)
    if found is None:
        raise BackendError(f"numbers in {dtype.str}", wanted="a native number")
    return found


def _constants(task: Task, cut: Shape) -> str:
    integers = {
        "PRECISION": {"tf32": 1, "tf32x3": 3, "bf16": 2}[task.precision],
        "WARPS": cut.warps, "THREADS": 32 * cut.warps, "TILE": cut.tile, "BANDS": cut.bands, "GROUPS": cut.groups,
        "FEATURES": task.sizes[0], "OUTPUTS": task.K, "SCORES": shape.scores_stride(task.K),
        "SHARERS": 1 << max(0, (2 * cut.groups // cut.bands).bit_length() - 1), "LABELS": 1 if task.one_hot else task.K,
    }  # fmt: skip
    flags = {
        "KEEPS_Z": not task.g.slope_from_a, "ROWWISE": task.J.score.shape == "rowwise", "ONE_HOT": task.one_hot,
        "WEIGHTED": task.weighted, "HELD": task.held,
    }  # fmt: skip
    lines = [f"constexpr int {name} = {value};" for name, value in integers.items()]
    lines += [f"constexpr bool {name} = {str(value).lower()};" for name, value in flags.items()]
    types = {"T": "float", "Stored": _c_type(task.stored), "Label": _c_type(task.labels),
             "Target": "int" if task.one_hot else "float"}  # fmt: skip
    lines += [f"typedef {text} {name};" for name, text in types.items()]
    return "\n".join(lines) + "\n"


def _formulas(task: Task) -> str:
    """The formulas as functions, each in its own words; with stand-ins for those that this task does not use."""
    g, J = task.g, task.J
    x = "stored, mean[column], scale[column]" if task.conversion == "standardise" else "stored"
    lines = [
        _function("activated", g.g), _function("sloped", g.slope), _function("cell_cost", J.cell),
        _function("output_of", J.h), _function("output_error", J.delta),
        _function("convert_one", {"cast": formula.cast, "standardise": formula.standardise}[task.conversion], "Stored"),
        "__device__ __forceinline__ float converted(\n"
        f"    Stored stored, const double* mean, const double* scale, int column) {{ return convert_one({x}); }}\n",
    ]  # fmt: skip
    other = "float, float" if not g.slope_from_a else "float, float, float"
    lines.append(f"__device__ __forceinline__ float sloped({other}) {{ return 0; }}\n")
    if task.one_hot:
        lines.append(_function("target", formula.one_hot, "int"))
        lines.append("__device__ __forceinline__ int read_label(Label label) { return int(label); }\n")
    else:
        lines.append(_function("read_label", formula.cast, "Label"))
        lines.append("__device__ __forceinline__ float target(float y, int) { return y; }\n")
    if J.score.shape == "rowwise":
        lines.append("__device__ __forceinline__ float scored(float z, float) { return z; }\n")
        lines.append(_ROWWISE.replace("SCORE_TEXT", J.score.cuda))
    else:
        lines.append(_function("scored", J.score))
        lines.append("__device__ __forceinline__ void score_row(float*, const float*, int, int) {}\n")
    return "".join(lines)


def _function(name: str, f: Formula, S: str = "float") -> str:
    arguments = ", ".join(f"{S if a.type == 'S' else a.type} {a.name}" for a in f.inputs)
    out = f.output
    return (
        f"__device__ __forceinline__ {out.type} {name}({arguments}) "
        f"{{ {out.type} {out.name}; {{ {f.cuda}; }} return {out.name}; }}\n"
    )


# SHARERS neighbouring lanes take a row's columns in turns, and each ends with the same sum. Threads beyond the last row
# come along, for a shuffle is of the whole warp: their `outputs_` is 0.
_ROWWISE = """\
__device__ __forceinline__ void score_row(float* row_, const float* bias_, int sharer_, int outputs_) {
  const auto z = [&](int j) -> float { return row_[j]; };
  const auto b = [&](int j) -> float { return bias_[j]; };
  const auto s = [&](int j) -> float& { return row_[j]; };
  const auto each = [&](auto f_) { for (int j_ = sharer_; j_ < outputs_; j_ += SHARERS) f_(j_); };
  const auto row_max = [&](auto f_) {
    double top_ = __longlong_as_double(0xfff0000000000000ll);  // −∞
    each([&](int j_) { top_ = fmax(top_, f_(j_)); });
    for (int other_ = SHARERS / 2; other_ > 0; other_ >>= 1)
      top_ = fmax(top_, __shfl_xor_sync(0xffffffffu, top_, other_));
    return top_;
  };
  const auto row_sum = [&](auto f_) {
    double sum_ = 0;
    each([&](int j_) { sum_ += f_(j_); });
    for (int other_ = SHARERS / 2; other_ > 0; other_ >>= 1) sum_ += __shfl_xor_sync(0xffffffffu, sum_, other_);
    return sum_;
  };
  { SCORE_TEXT; }
}
"""


def _steps(task: Task, cut: Shape, part_rows: int) -> str:
    """The kernel's own text: the loop over tiles, layer by layer."""
    L, strip = len(task.sizes), 16 * cut.bands
    per_word = task.layout.per_word
    ld = [0] + [shape.stride(w, per_word) for w in cut.widths[1:]]
    at, w = cut.places, cut.widths
    lines: list[str] = []

    def add(text: str) -> None:
        lines.extend(text.splitlines())

    def steps(l: int) -> int:
        return w[l] // (8 * per_word)

    def operand(l: int) -> str:
        return "delta" if l == L else f"a{l}"

    def mine(name: str, row: int) -> str:
        return f"{name} + me.strip * {strip * row}"

    add("""\
#ifdef __CUDACC__
extern __shared__ __align__(16) unsigned char shared_[];
#endif
const Lane me(threadIdx.x);""")
    for l in range(1, L):
        add(f"Word* const a{l} = (Word*)(shared_ + {at[f'a{l}']});")
        add(
            f"Word* const W{l} = (Word*)(shared_ + {at[f'W{l}']}); float* const b{l} = (float*)(shared_ + {at[f'b{l}']});"
        )
        if l > 1:
            z = f"(float*)(shared_ + {at[f'z{l}']})" if f"z{l}" in at else "nullptr"
            add(f"float* const z{l} = {z};")
        r = cut.rectangles[l]
        assert r is not None
        half = "true" if w[l + 1] == 8 else "false"
        add(
            f"Rectangle<{r.down}, {r.across}, {-(-w[l + 1] // 16)}, {w[l] // 8}, {ld[l + 1]}, {ld[l]}, {half}> Delta{l};"
        )
    add(
        f"Word* const delta = (Word*)(shared_ + {at['delta']}); float* const scores = (float*)(shared_ + {at['scores']});"
    )
    add(
        f"Target* const y = (Target*)(shared_ + {at['y']}); int* const numbers_of_outputs = (int*)(shared_ + {at['numbers']});"
    )
    add(f"float* const w_tile = (float*)(shared_ + {at['w']}); float* const v_tile = (float*)(shared_ + {at['v']});")
    # what is fetched: its pointer, elements of a row, bytes of a row, and whether x_row comes off the row
    fetched = [
        ("x", "x", task.sizes[0], task.layout.stored, " - x_row"),
        ("label", "labels", 1 if task.one_hot else task.K, task.layout.label, ""),
    ]
    fetched += [("w", "w", 1, 4, "")] * task.weighted + [("v", "v", 1, 4, "")] * task.held
    for name, *_, row, _ in fetched:
        add(
            f"unsigned char* const staged_{name} = shared_ + {at[f'staged_{name}']} + me.strip * {shape.staged(strip, row)};"
        )
    add(f"""\
const auto open = [&](long long leaf) {{
  const long long first = leaf * m / leaves, end = (leaf + 1) * m / leaves, rows = end - first;
  return Cursor{{leaf, first, first + (from < rows ? from : rows), first + (to < rows ? to : rows)}};
}};
const auto live_rows = [&](const Cursor& at) {{  // of this thread's strip
  const long long rest = at.stop - at.row - me.strip * {strip};
  return rest < 0 ? 0 : rest < {strip} ? (int)rest : {strip};
}};
const auto fetch_rows = [&](const Cursor& at) {{
  const long long row = at.row + me.strip * {strip}, live = live_rows(at);""")
    for name, pointer, elements, size, off in fetched:
        add(f"  fetch(staged_{name}, {pointer} + (row{off}) * {elements}, live * {size});")
    add("""\
};
Cursor now = open((long long)first_leaf + blockIdx.x);
if (now.leaf < last_leaf) fetch_rows(now);""")
    for l in range(1, L):
        W, b = task.offsets[l - 1]
        add(
            f"load_weights<{task.sizes[l]}, {task.sizes[l - 1]}, {w[l + 1]}, {w[l]}, {ld[l]}>(Theta + {W}, W{l}, threadIdx.x);"
        )
        add(f"load_bias<{task.sizes[l]}, {w[l + 1]}>(Theta + {b}, b{l}, threadIdx.x);")
    add(f"for (int i = threadIdx.x; i < {cut.tile * ld[L]}; i += THREADS) delta[i] = 0;  // columns beyond K stay so")
    add("for (int i = threadIdx.x; i < OUTPUTS; i += THREADS) numbers_of_outputs[i] = ONE_HOT ? numbers[i] : 0;")
    add("""\
Costs sums;
bool adds = keep;
while (now.leaf < last_leaf) {
  Cursor next = now;
  next.row += TILE;
  const bool ends = next.row >= now.stop;
  if (ends) next = open(now.leaf + gridDim.x);
  const int live = live_rows(now);
  await_copies();
  __syncthreads();  // rows have come; nobody needs the last tile's any more""")
    add(f"""\
  {{
    const long long row = now.row + me.strip * {strip};
    const auto stored_x = (const Stored*)(staged_x + head(x + (row - x_row) * FEATURES));
    convert<{w[1]}, {ld[1]}>(stored_x, {mine("a1", ld[1])}, mean, scale, live);
    const auto stored_label = (const Label*)(staged_label + head(labels + row * LABELS));
    for (int i = me.member; i < live * LABELS; i += CREW) y[me.strip * {strip} * LABELS + i] = read_label(stored_label[i]);""")
    for name in ("w",) * task.weighted + ("v",) * task.held:
        add(f"    const auto stored_{name} = (const float*)(staged_{name} + head({name} + row));")
        add(f"    for (int i = me.member; i < live; i += CREW) {name}_tile[me.strip * {strip} + i] = stored_{name}[i];")
    add("  }\n  meet_crew(me);\n  if (next.leaf < last_leaf) fetch_rows(next);")
    for l in range(1, L - 1):
        add(f"  forward<{w[l + 1]}, {cut.columns[l + 1]}, {steps(l)}, {ld[l]}, {ld[l]}, {ld[l + 1]}>(")
        add(
            f"      {mine(f'a{l}', ld[l])}, W{l}, b{l}, {mine(f'a{l + 1}', ld[l + 1])}, {mine(f'z{l + 1}', w[l + 1] + 4)});"
        )
        add("  meet_crew(me);")
    add(f"  last_forward<{w[L]}, {cut.columns[L]}, {steps(L - 1)}, {ld[L - 1]}, {ld[L - 1]}>(")
    add(f"      {mine(f'a{L - 1}', ld[L - 1])}, W{L - 1}, {mine('scores', shape.scores_stride(task.K))});")
    add("  meet_crew(me);")
    add(
        f"  output<{ld[L]}>({mine('scores', shape.scores_stride(task.K))}, b{L - 1}, {mine('y', 1 if task.one_hot else task.K)},"
    )
    add(
        f"      numbers_of_outputs, {mine('w_tile', 1)}, {mine('v_tile', 1)}, {mine('delta', ld[L])}, with_gradient, live, sums);"
    )
    add("  if (with_gradient) {")
    for l in range(L - 1, 0, -1):
        add(f"    __syncthreads();  // δ^({l + 1}) is there")
        add(f"    Delta{l}.add({operand(l + 1)}, a{l});")
        if l > 1:
            add(f"    __syncthreads();  // nobody needs a^({l}) any more")
            add(f"    backward<{w[l]}, {cut.columns[l]}, {steps(l + 1)}, {ld[l + 1]}, {ld[l]}, {ld[l]}>(")
            add(
                f"        {mine(operand(l + 1), ld[l + 1])}, W{l}, b{l - 1}, {mine(f'a{l}', ld[l])}, {mine(f'z{l}', w[l] + 4)});"
            )
    add("  }")
    add(f"""\
  if (ends ? now.stop > now.first + from || !keep : (next.row - now.first) % {part_rows} == 0) {{
    if (with_gradient) {{
      float* const leaf_sums = partials + now.leaf * {task.P};""")
    for l in range(1, L):
        W, b = task.offsets[l - 1]
        add(
            f"      Delta{l}.template flush<{task.sizes[l]}, {task.sizes[l - 1]}>(leaf_sums + {W}, leaf_sums + {b}, adds);"
        )
    gaps = " ".join(f"if (i >= {u} && i < {v}) leaf_sums[i] = 0;" for u, v in _gaps(task))
    for u, v in _gaps(task):
        add(f"      if (!adds) for (int i = {u} + threadIdx.x; i < {v}; i += THREADS) leaf_sums[i] = 0;")
    add(
        """\
    }
    flush_costs(sums, (double*)(shared_ + COST_SUMS), costs + 2 * now.leaf, adds);
    adds = true;
  }
  if (ends) adds = keep;
  now = next;
}""".replace("COST_SUMS", str(at["cost_sums"]))
    )
    return "".join(f"  {line}\n" if not line.startswith("#") else line + "\n" for line in lines)


def _gaps(task: Task) -> list[tuple[int, int]]:
    """What of the flat vector belongs to no layer."""
    used = sorted(
        pair
        for (W, b), outputs, inputs in zip(task.offsets, task.sizes[1:], task.sizes, strict=False)
        for pair in ((W, W + outputs * inputs), (b, b + outputs))
    )
    edges = [0, *(edge for pair in used for edge in pair), task.P]
    return [(u, v) for u, v in zip(edges[::2], edges[1::2], strict=True) if u < v]
