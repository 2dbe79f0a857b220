"""The kernels of `vectors`, as CUDA text.

A sum over P elements is one over chunks of `CHUNK`: a warp sums a chunk, each lane its own elements in order, then the
lanes in a fixed tree, with fused multiplications that are written out; the sums of the chunks are added by one block in
a fixed tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from ..kernels import THREADS, Kernel

OF_LANE = 16  # elements: what a thread can have in flight
CHUNK = 32 * OF_LANE  # elements of one partial sum
MOST_MEASURES, MOST_VECTORS, MOST_PRODUCTS = 8, 2, 1024  # of one launch
WARPS = THREADS // 32
DOT, MAX_ABS, SUM_ABS = range(3)


def _kernel(name: str, parameters: str, text: str) -> Kernel:
    listed = [parameter.strip() for parameter in parameters.split(",")]
    head = f'extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_{name}({", ".join(listed)})'
    return Kernel(f"gpubp_{name}", f"\n{head} {{\n{text}}}\n", tuple(p.rsplit(None, 1)[0] for p in listed))


def _elementwise(name: str, parameters: str, text: str) -> Kernel:
    return _kernel(
        name,
        f"{parameters}",
        f"""\
  for (long long i = (long long)blockIdx.x * {THREADS} + threadIdx.x; i < P; i += (long long)gridDim.x * {THREADS}) {{
    {text}
  }}
""",
    )


MOVE = _elementwise(
    "move",
    "const double* a, const double* d, double* out, long long P, double alpha",
    "out[i] = fma(alpha, d[i], a[i]);",
)
SUBTRACT = _elementwise(
    "subtract", "const double* a, const double* b, double* out, long long P", "out[i] = a[i] - b[i];"
)
# terms: the coefficients of m rows of M and n rows of N, then the numbers of these rows as 64-bit integers
COMBINE = _elementwise(
    "combine",
    "const double* a, const double* terms, const double* M, const double* N, double* out, long long P, int m, int n, "
    "double sign, double factor",
    """const long long* rows = (const long long*)(terms + m + n);
    double sum = factor * a[i];
#pragma unroll 8
    for (int k = 0; k < m; ++k) sum = fma(terms[k], M[rows[k] * P + i], sum);
#pragma unroll 8
    for (int k = m; k < m + n; ++k) sum = fma(terms[k], N[rows[k] * P + i], sum);
    out[i] = sign * sum;""",
)


@cache
def applied(name: str, reads: Sequence[str], numbers: Sequence[str], writes: Sequence[str], cuda: str) -> Kernel:
    """The kernel of an `optimizers.elementwise` formula: pointers in the order of `reads` and `writes`, P, the numbers.

    All elements are read before any is written, so a vector may be read and written.
    """
    pointers = [f"const double* {v}_" for v in reads] + [f"double* {v}_" for v in writes]
    parameters = [*pointers, "long long P", *(f"double {x}" for x in numbers)]
    loads = " ".join(f"const double {v} = {v}_[i];" for v in reads)
    stores = " ".join(f"{v}_[i] = {v};" for v in writes)
    return _elementwise(
        f"each_{name}", ", ".join(parameters), f"{loads}\n    double {', '.join(writes)};\n    {cuda}\n    {stores}"
    )


# What all sums share: `all` with one more number; a number of all lanes.
_TAKE = f"""
#ifndef GPUBP_TAKE_
#define GPUBP_TAKE_
__device__ inline double take_(int kind, double all, double x) {{
  if (kind != {MAX_ABS}) return all + x;
  return x > all || x != x ? x : all;  // a NaN stays: nothing is larger
}}
__device__ inline double of_lanes_(int kind, double all) {{
  for (int other = 16; other > 0; other >>= 1) all = take_(kind, all, __shfl_xor_sync(0xffffffffu, all, other));
  return all;
}}
#endif
"""

# A warp takes one chunk of one measure.
MEASURES = _kernel(
    "measures",
    "".join(f"const double* a{j}, const double* b{j}, " for j in range(MOST_MEASURES))
    + "double* partials, int* kinds, long long P, int count, int kind, long long first, long long begin",
    f"""\
  const long long chunks = (P + {CHUNK - 1}) / {CHUNK};
  const int lane = threadIdx.x % 32;
  for (long long task = (long long)blockIdx.x * {WARPS} + threadIdx.x / 32; task < count * chunks;
       task += (long long)gridDim.x * {WARPS}) {{
    const int j = (int)(task / chunks);
    const long long chunk = task - j * chunks;
    const double *a = a0, *b = b0;
    {" ".join(f"if (j == {j}) a = a{j}, b = b{j};" for j in range(1, MOST_MEASURES))}
    double x[{OF_LANE}], y[{OF_LANE}], all = 0;
#pragma unroll
    for (int u = 0; u < {OF_LANE}; ++u) {{
      const long long i = chunk * {CHUNK} + u * 32 + lane;
      x[u] = i < P ? a[i] : 0;
      y[u] = i < P && kind == {DOT} ? b[i] : 0;
    }}
#pragma unroll
    for (int u = 0; u < {OF_LANE}; ++u) all = kind == {DOT} ? fma(x[u], y[u], all) : take_(kind, all, fabs(x[u]));
    all = of_lanes_(kind, all);
    if (lane == 0) partials[begin + task] = all;
    if (lane == 0 && chunk == 0) kinds[first + j] = kind;
  }}
""",
)
MEASURES = MEASURES._replace(body=_TAKE + MEASURES.body)


def _products(vectors: int) -> Kernel:
    """A warp takes one chunk of `together` rows: of the vectors once, then row after row. Rows of M, then of N."""
    v = range(vectors)
    kernel = _kernel(
        f"products_{vectors}",
        "const double* M, const double* N, "
        + "".join(f"const double* v{j}, " for j in v)
        + "double* partials, int* kinds, long long P, int ring, int start, int rows, int count, int together, "
        "long long first, long long begin",
        f"""\
  const long long chunks = (P + {CHUNK - 1}) / {CHUNK}, tasks = chunks * ((count + together - 1) / together);
  const int lane = threadIdx.x % 32;
  for (long long task = (long long)blockIdx.x * {WARPS} + threadIdx.x / 32; task < tasks;
       task += (long long)gridDim.x * {WARPS}) {{
    const int group = (int)(task / chunks);
    const long long chunk = task - group * chunks, place = chunk * {CHUNK} + lane;
    double {", ".join(f"y{j}[{OF_LANE}]" for j in v)};
#pragma unroll
    for (int u = 0; u < {OF_LANE}; ++u) {{
      const long long i = place + u * 32;
      {" ".join(f"y{j}[u] = i < P ? v{j}[i] : 0;" for j in v)}
    }}
    for (int r = group * together; r < count && r < (group + 1) * together; ++r) {{
      const double* row = (r < rows ? M : N) + (long long)((start + r % rows) % ring) * P;
      double x[{OF_LANE}];
#pragma unroll
      for (int u = 0; u < {OF_LANE}; ++u) x[u] = place + u * 32 < P ? row[place + u * 32] : 0;
      {" ".join(f"double s{j} = 0;" for j in v)}
#pragma unroll
      for (int u = 0; u < {OF_LANE}; ++u) {{
        {" ".join(f"s{j} = fma(x[u], y{j}[u], s{j});" for j in v)}
      }}
      {" ".join(f"s{j} = of_lanes_({DOT}, s{j});" for j in v)}
      if (lane == 0) {{
        const long long number = (long long)r * {vectors};
        {" ".join(f"partials[begin + (number + {j}) * chunks + chunk] = s{j};" for j in v)}
        if (chunk == 0) {{ {" ".join(f"kinds[first + number + {j}] = {DOT};" for j in v)} }}
      }}
    }}
  }}
""",
    )
    return kernel._replace(body=_TAKE + kernel.body)


PRODUCTS = {vectors: _products(vectors) for vectors in range(1, MOST_VECTORS + 1)}

# A block adds up the chunks of one number.
ADD_UP = _kernel(
    "add_up",
    "const double* partials, const int* kinds, double* results, long long first, long long chunks",
    f"""\
  __shared__ double kept[{THREADS}];
  const int kind = kinds[first + blockIdx.x];
  partials += blockIdx.x * chunks;
  double all = 0;
#pragma unroll 4
  for (long long q = threadIdx.x; q < chunks; q += {THREADS}) all = take_(kind, all, partials[q]);
  kept[threadIdx.x] = all;
  for (int half = {THREADS // 2}; half > 0; half >>= 1) {{
    __syncthreads();
    if (threadIdx.x < half) kept[threadIdx.x] = take_(kind, kept[threadIdx.x], kept[threadIdx.x + half]);
  }}
  if (threadIdx.x == 0) results[first + blockIdx.x] = kept[0];
""",
)
ADD_UP = ADD_UP._replace(body=_TAKE + ADD_UP.body)

ALL = (MOVE, SUBTRACT, COMBINE, MEASURES, *PRODUCTS.values(), ADD_UP)
