"""The elementwise steps of a pass layer by layer, fused: what lies between two matrix products is one kernel.

`end`        z^(L) → its cost in float64 and δ^(L), in place
`error`      δ = e · g′ in place or as bfloat16, and with it the bias's gradient Σ_rows δ
`leaf_sums`  the sums that both left, for each leaf: the gradients of the biases and the costs

Both are made from the formulas' own texts. A thread block takes `CHUNK_ROWS` rows and leaves one partial sum for them;
a leaf's chunks are numbered through, so `leaf_sums` adds them in an order that depends on nothing but the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...formula import Formula
from ..kernels import THREADS, Kernel, Type, c_type

CHUNK_ROWS = 128
_LANES = 32  # of `leaf_sums` for each of its 8 columns
_BATCH = 4  # rows whose loads a thread of `error` has in flight


def chunks(rows: int) -> int:
    """The number of chunks of so many rows."""
    return -(-rows // CHUNK_ROWS)


# A group of lanes, `group` of them, has the columns of a row in turns, and each ends with the same number.
_ALONG_ROWS = """\
    const auto row_max = [&](auto f_) {
      double top_ = __longlong_as_double(0xfff0000000000000ll);  // −∞
#pragma unroll 1
      for (int j_ = lane_; j_ < COLUMNS; j_ += GROUP) top_ = fmax(top_, f_(j_));
      for (int other_ = GROUP / 2; other_ > 0; other_ >>= 1) top_ = fmax(top_, __shfl_xor_sync(mask_, top_, other_));
      return top_;
    };
    const auto row_sum = [&](auto f_) {
      double total_ = 0;
#pragma unroll 1
      for (int j_ = lane_; j_ < COLUMNS; j_ += GROUP) total_ += f_(j_);
      for (int other_ = GROUP / 2; other_ > 0; other_ >>= 1) total_ += __shfl_xor_sync(mask_, total_, other_);
      return total_;
    };
"""


def end(
    J: Any, targets: Formula, K: int, stride: int, T: np.dtype, labels: Type, *,
    one_hot: bool, weighted: bool, held: bool,
) -> Kernel:  # fmt: skip
    """``(z, b, labels, numbers, w, v, costs, rows, first_chunk, with_gradient)``; a block for each chunk of rows.

    J: a `gpubp.cost.Cost`. z: (rows, stride), the first K columns replaced by δ^(L)
    and the others by 0; labels: (rows, 1) codes with `numbers` (K,), or (rows, K); w, v: (rows,), not read
    unless `weighted`, `held`; costs: (chunks, 2) float64, Σ w·cost and Σ v·cost of each chunk.

    A group of lanes takes a row, so that the rowwise formulas of a cost find its largest and its sum by shuffles.
    """
    group = min(32, 1 << (K - 1).bit_length())
    real, stored = c_type(T), c_type(labels)
    score, rowwise = J.score.cuda, ""
    if J.score.shape == "elementwise":
        score = f"each([&](int j_) {{ const T z = z_(j_), b = b_p[j_]; T s; {{ {score}; }} s_(j_) = s; }})"
    else:
        rowwise = _ALONG_ROWS.replace("COLUMNS", str(K)).replace("GROUP", str(group))
        score = f"const auto b = [&](int j_) -> T {{ return b_p[j_]; }}; const auto z = z_; const auto s = s_; {score}"
    target = f"const {stored} {targets.inputs[0].name} = labels_p["
    target += "from_]; const int k = numbers_p[j_];" if one_hot else f"from_ * {K} + j_];"

    def cost_of(weight: str, total: str) -> str:
        return f"{{ const T w = {weight}; double cell; {{ {J.cell.cuda}; }} if (valid_) {total} += cell; }}"

    weight = "w_p[from_]" if weighted else "T(1)"
    flags = "_hot" * one_hot + "_w" * weighted + "_v" * held
    name = f"gpubp_end_{J.name}_{K}_{stride}_{real}_{stored.replace(' ', '_')}{flags}"
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) {name}(
    {real}* z_p, const {real}* b_p, const {stored}* labels_p, const int* numbers_p, const {real}* w_p,
    const {real}* v_p, double* costs_p, long long rows_, long long first_chunk_, int with_gradient_) {{
  typedef {real} T;
  const int lane_ = threadIdx.x % {group};
  const unsigned mask_ = {"0xffffffffu" if group == 32 else f"{(1 << group) - 1}u << (threadIdx.x % 32 - lane_)"};
  double sum_ = 0, held_ = 0;
  T nothing_ = 0;
  for (int r_ = threadIdx.x / {group}; r_ < {CHUNK_ROWS}; r_ += {THREADS // group}) {{
    const long long row_ = (long long)blockIdx.x * {CHUNK_ROWS} + r_;
    const bool valid_ = row_ < rows_;  // for shuffles all lanes go through all rows; those beyond leave nothing
    const long long from_ = valid_ ? row_ : rows_ - 1;
{rowwise}    const auto each = [&](auto f_) {{
#pragma unroll 1
      for (int j_ = lane_; j_ < {K}; j_ += {group}) f_(j_);  // not unrolled: registers are scarcer than instructions
    }};
    const auto z_ = [&](int j_) -> T {{ return valid_ ? z_p[from_ * {stride} + j_] : T(0); }};
    const auto s_ = [&](int j_) -> T& {{ return valid_ ? z_p[from_ * {stride} + j_] : nothing_; }};
    {{ {score}; }}
    each([&](int j_) {{
      const T s = z_(j_);
      T y;
      {{ {target} {targets.cuda.replace(f"{targets.output.name} =", "y =")}; }}
      {cost_of(weight, "sum_")}
      {cost_of("v_p[from_]", "held_") if held else ""}
      if (with_gradient_) {{
        const T w = {weight};
        T h;
        {{ {J.h.cuda}; }}
        T d;
        {{ {J.delta.cuda}; }}
        s_(j_) = d;
      }}
    }});
    if (with_gradient_ && valid_)
      for (int j_ = {K} + lane_; j_ < {stride}; j_ += {group}) z_p[from_ * {stride} + j_] = 0;
  }}
  sum_ = block_sum_(sum_);
  if (threadIdx.x == 0) costs_p[2 * (first_chunk_ + blockIdx.x)] = sum_;
  __syncthreads();
  held_ = {"block_sum_(held_)" if held else "0"};
  if (threadIdx.x == 0) costs_p[2 * (first_chunk_ + blockIdx.x) + 1] = held_;
}}
"""
    types = f"{real}*", f"const {real}*", f"const {stored}*", "const int*", f"const {real}*", f"const {real}*"
    return Kernel(name, body, (*types, "double*", "long long", "long long", "int"))


def error(slope: Formula | None, T: np.dtype, stored: Type) -> Kernel:
    """``(e, at…, out, partials, rows, columns, first_chunk, width, offset)``; `error_blocks` blocks.

    out ← e · g′, and partials[first_chunk + chunk, offset + column] ← Σ of the chunk's rows. e: (rows, columns) in T;
    `at` are the slope's other arguments: a, or z and b (1, columns); none without a slope, where out ← e. a and out are
    of the type `stored`, in which a pass multiplies; out may be e itself where that is T. partials: (chunks, width) T.
    """
    real, kept = c_type(T), c_type(stored)
    inputs = [argument.name for argument in slope.inputs if argument.name != "e"] if slope else []
    types = {"a": kept, "z": real, "b": real}
    read = "".join(f"{types[n]} {n}_v[{_BATCH}]; " for n in inputs if n != "b")
    load = "".join(f"{n}_v[u_] = {n}_p[at_]; " for n in inputs if n != "b")
    value = "".join(f"const T {n} = {n}_v[u_]; " for n in inputs if n != "b")
    value += "const T b = b_p[column_]; " if "b" in inputs else ""
    name = f"gpubp_error_{slope.name if slope else 'plain'}_{real}_{kept}"
    pointers = [f"const {real}* e_p", *(f"const {types[n]}* {n}_p" for n in inputs), f"{kept}* out_p"]
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) {name}(
    {", ".join(pointers)}, {real}* partials_p, long long rows_, int columns_, long long first_chunk_, int width_,
    int offset_) {{
  typedef {real} T;
  __shared__ T sums_[{THREADS}];
  // a block is a tile of columns times lanes of rows: neighbours in a warp read neighbours in memory
  const int wide_ = columns_ < 64 ? columns_ : 64, tiles_ = (columns_ + wide_ - 1) / wide_;
  int lanes_ = 1;
  while (2 * lanes_ * wide_ <= {THREADS}) lanes_ *= 2;
  const long long chunk_ = blockIdx.x / tiles_;
  const int column_ = (int)(blockIdx.x - chunk_ * tiles_) * wide_ + (int)threadIdx.x % wide_;
  const int lane_ = (int)threadIdx.x / wide_;
  T sum_ = 0;
  if (lane_ < lanes_ && column_ < columns_) {{
    const long long first_ = chunk_ * {CHUNK_ROWS};
    const int rest_ = rows_ - first_ < {CHUNK_ROWS} ? (int)(rows_ - first_) : {CHUNK_ROWS};
    for (int r_ = lane_; r_ < rest_; r_ += {_BATCH} * lanes_) {{
      T e_v[{_BATCH}]; {read}
#pragma unroll
      for (int u_ = 0; u_ < {_BATCH}; ++u_) if (r_ + u_ * lanes_ < rest_) {{
        const long long at_ = (first_ + r_ + u_ * lanes_) * columns_ + column_;
        e_v[u_] = e_p[at_]; {load}
      }}
#pragma unroll
      for (int u_ = 0; u_ < {_BATCH}; ++u_) if (r_ + u_ * lanes_ < rest_) {{
        const T e = e_v[u_]; {value}
        T d;
        {{ {slope.cuda if slope else "d = e"}; }}
        out_p[(first_ + r_ + u_ * lanes_) * columns_ + column_] = d;
        sum_ += d;
      }}
    }}
  }}
  sums_[threadIdx.x] = sum_;
  for (int half_ = lanes_ / 2; half_ > 0; half_ /= 2) {{
    __syncthreads();
    if (lane_ < half_) sums_[threadIdx.x] += sums_[threadIdx.x + half_ * wide_];
  }}
  if (lane_ == 0 && column_ < columns_)
    partials_p[(first_chunk_ + chunk_) * width_ + offset_ + column_] = sums_[threadIdx.x];
}}
"""
    parameters = [*(p.rsplit(None, 1)[0] for p in pointers), f"{real}*", "long long", "int", "long long", "int", "int"]
    return Kernel(name, body, tuple(parameters))


def error_blocks(rows: int, columns: int) -> int:
    """How many blocks `error` takes."""
    return chunks(rows) * -(-columns // min(columns, 64))


def leaf_sums(T: np.dtype) -> Kernel:
    """``(partials, where, costs, flat, cost, chunks, width)``; `leaf_sums_blocks(width)` blocks.

    flat[where[j]] ← Σ_chunks partials[chunk, j] for each j of `width`, added in float64; cost[0:2] ← Σ_chunks costs.
    With a width of 0 the costs alone.
    """
    real = c_type(T)
    columns = THREADS // _LANES
    name = f"gpubp_leaf_sums_{real}"
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) {name}(
    const {real}* partials, const int* where, const double* costs, {real}* flat, double* cost, long long chunks,
    int width) {{
  __shared__ double sums[{THREADS}];
  const int tiles = (width + {columns - 1}) / {columns};
  const bool of_costs = (int)blockIdx.x == tiles;  // the last block
  const int lane = threadIdx.x / {columns}, column = threadIdx.x % {columns} + (of_costs ? 0 : blockIdx.x * {columns});
  double sum = 0;
  if (of_costs) {{
    if (column < 2) for (long long q = lane; q < chunks; q += {_LANES}) sum += costs[2 * q + column];
  }} else if (column < width) {{
    for (long long q = lane; q < chunks; q += {_LANES}) sum += partials[q * width + column];
  }}
  sums[threadIdx.x] = sum;
  for (int half = {_LANES // 2}; half > 0; half >>= 1) {{
    __syncthreads();
    if (lane < half) sums[threadIdx.x] += sums[threadIdx.x + half * {columns}];
  }}
  if (lane == 0) {{
    if (of_costs) {{
      if (column < 2) cost[column] = sums[threadIdx.x];
    }} else if (column < width) {{
      flat[where[column]] = ({real})sums[threadIdx.x];
    }}
  }}
}}
"""
    pointers = f"const {real}*", "const int*", "const double*", f"{real}*", "double*"
    return Kernel(name, body, (*pointers, "long long", "int"))


def leaf_sums_blocks(width: int) -> int:
    """How many blocks `leaf_sums` takes."""
    return -(-width // (THREADS // _LANES)) + 1
