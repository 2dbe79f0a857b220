"""An optimizer's vectors in the device's memory: see `optimizers.vectors` for what the operations mean.

Products are sums in float64 over fixed chunks of `CHUNK` elements, in each of them a fixed tree, and over the chunks in
a fixed order: the same bits in every run, whatever the device does at once. A product of many rows with a few vectors
goes over the rows once.

A number that was asked for has a place in one array of results. `read` waits for all that is queued and fetches that
array, once; numbers that came with an earlier answer cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels import THREADS, Kernel
from .device import Device

CHUNK = 16 * THREADS  # elements of one partial sum
MOST_ROWS, MOST_VECTORS = 128, 2  # of one launch
RESULTS = 8192  # numbers that may be asked for before they are read
_WARPS = THREADS // 32
_REAL = np.dtype(np.float64)


class Numbers:
    """Numbers that were asked for, in the order of `array`."""

    def __init__(self, vectors: DeviceVectors, start: int, count: int) -> None:
        self._vectors, self._start, self._count = vectors, start, count
        self.values: np.ndarray | None = None  # set by the one who reads
        self.array = vectors.results[start : start + count]

    def __getitem__(self, i: int) -> Number:
        return Number(self, i)

    def fetched(self) -> np.ndarray:
        """The values, (count,) float64; waits for them if they are not here."""
        if self.values is None:
            self._vectors.fetch()
        assert self.values is not None
        return self.values

    def take(self, results: np.ndarray) -> None:
        """Keep what an answer holds of these."""
        self.values = results[self._start : self._start + self._count].copy()


class Number:
    """One of them."""

    def __init__(self, numbers: Numbers, i: int) -> None:
        self._numbers, self._i = numbers, i

    def __float__(self) -> float:
        return float(self._numbers.fetched()[self._i])


class _Products:
    """Those of `products`: (vectors, rows), out of numbers that lie row by row."""

    def __init__(self, parts: list[tuple[Numbers, int, int]], vectors: int) -> None:
        self._parts, self._vectors = parts, vectors

    def value(self) -> np.ndarray:
        if not self._parts:
            return np.zeros((self._vectors, 0))
        return np.concatenate([part.fetched().reshape(rows, width).T for part, rows, width in self._parts])


class DeviceVectors:
    """`optimizers.vectors.Vectors` on a device."""

    early = True

    def __init__(self, device: Device) -> None:
        self._device = device
        self.waits = 0
        self.results = device.empty((RESULTS,), _REAL)
        self._used, self._asked = 0, []
        self._partials: Any = None

    def zeros(self, *shape: int) -> Any:
        array = self._device.empty(shape, _REAL)
        self._device.zero(array)
        return array

    def put(self, host: np.ndarray, out: Any) -> None:
        self._device.copy(self._device.upload(np.ascontiguousarray(host, np.float64)), out)

    def to_host(self, array: Any) -> np.ndarray:
        if type(array) is np.ndarray:
            return array
        self.waits += 1
        return self._device.to_host(array)

    def copy(self, source: Any, out: Any) -> None:
        self._device.copy(source, out)

    def move(self, a: Any, alpha: float, d: Any, out: Any) -> None:
        self._device.launch(_MOVE, _blocks(len(a)), (a, d, out, len(a), alpha))

    def subtract(self, a: Any, b: Any, out: Any) -> None:
        self._device.launch(_SUBTRACT, _blocks(len(a)), (a, b, out, len(a)))

    def combine(self, sign: float, factor: float, a: Any, parts: Sequence[tuple[np.ndarray, Any]], out: Any) -> None:
        coefficients = np.concatenate([np.zeros(0), *(c for c, _ in parts)])
        counts = [len(c) for c, _ in parts] + [0, 0]
        matrices = [M for _, M in parts] + [None, None]
        if len(parts) > 2:
            raise ValueError(f"{len(parts)} matrices in one sum")
        c = self._device.upload(coefficients) if len(coefficients) else None
        arguments = (a, c, matrices[0], matrices[1], out, len(a), counts[0], counts[1], sign, factor)
        self._device.launch(_COMBINE, _blocks(len(a)), arguments)

    def dot(self, a: Any, b: Any) -> Number:
        numbers = self.numbers(1)
        self._queue(a, [0], [b], numbers)
        return numbers[0]

    def max_abs(self, v: Any) -> Number:
        return self._folded(_MAX_ABS, v)

    def sum_abs(self, v: Any) -> Number:
        return self._folded(_SUM_ABS, v)

    def products(self, matrix: Any, rows: Sequence[int], vectors: Sequence[Any]) -> _Products:
        parts = []
        for at in range(0, len(vectors), MOST_VECTORS):
            some = vectors[at : at + MOST_VECTORS]
            if len(rows):
                numbers = self.numbers(len(rows) * len(some))
                self._queue(matrix, rows, some, numbers)
                parts.append((numbers, len(rows), len(some)))
        return _Products(parts, len(vectors))

    def read(self, *numbers: Any) -> list[Any]:
        return [float(n) if isinstance(n, Number) else n.value() if isinstance(n, _Products) else n for n in numbers]

    def numbers(self, count: int) -> Numbers:
        """Places for so many numbers; work that is queued next writes them to their `array`."""
        if self._used + count > RESULTS:
            self.fetch()
        numbers = Numbers(self, self._used, count)
        self._used += count
        self._asked.append(numbers)
        return numbers

    def fetch(self) -> None:
        """Wait, once, for every number asked for so far."""
        results = self._device.to_host(self.results[: self._used])
        self.waits += 1
        for numbers in self._asked:
            numbers.take(results)
        self._used, self._asked = 0, []

    def _queue(self, matrix: Any, rows: Sequence[int], vectors: Sequence[Any], numbers: Numbers) -> None:
        """numbers[r, v] ← row r · vector v."""
        P, width = len(vectors[0]), len(vectors)
        ring = matrix.shape[0] if len(matrix.shape) == 2 else 1
        if list(rows) != [(rows[0] + r) % ring for r in range(len(rows))]:
            raise ValueError(f"rows {rows}, which do not follow each other in a ring of {ring}")
        chunks = -(-P // CHUNK)
        first, second = vectors[0], vectors[-1]
        for at in range(0, len(rows), MOST_ROWS):
            some = rows[at : at + MOST_ROWS]
            partials = self._scratch(chunks * len(some) * width)
            arguments = (matrix, first, second, partials, P, some[0], ring, len(some), width)
            self._device.launch(_PRODUCTS, chunks, arguments)
            out = numbers.array[at * width : (at + len(some)) * width]
            self._device.launch(_SUMS, len(some) * width, (partials, out, chunks, len(some) * width))

    def _folded(self, kernels: tuple[Kernel, Kernel], v: Any) -> Number:
        numbers, chunks = self.numbers(1), -(-len(v) // CHUNK)
        partials = self._scratch(chunks)
        self._device.launch(kernels[0], chunks, (v, partials, len(v)))
        self._device.launch(kernels[1], 1, (partials, numbers.array, chunks, 1))
        return numbers[0]

    def _scratch(self, count: int) -> Any:
        """Place for partial sums: work is in order, so all can use the same."""
        if self._partials is None or len(self._partials) < count:
            self._partials = self._device.empty((count,), _REAL)
        return self._partials


def _blocks(P: int) -> int:
    return -(-P // THREADS)


def _elementwise(name: str, pointers: str, numbers: str, text: str) -> Kernel:
    parameters = [p.strip() for p in f"{pointers}, {numbers}".split(",")]
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_{name}({", ".join(parameters)}) {{
  const long long i = (long long)blockIdx.x * {THREADS} + threadIdx.x;
  if (i < P) {{
    {text}
  }}
}}
"""
    return Kernel(f"gpubp_{name}", body, tuple(p.rsplit(None, 1)[0] for p in parameters))


_MOVE = _elementwise(
    "move",
    "const double* a, const double* d, double* out",
    "long long P, double alpha",
    "out[i] = a[i] + alpha * d[i];",
)
_SUBTRACT = _elementwise(
    "subtract", "const double* a, const double* b, double* out", "long long P", "out[i] = a[i] - b[i];"
)
_COMBINE = _elementwise(
    "combine",
    "const double* a, const double* c, const double* M, const double* N, double* out",
    "long long P, int m, int n, double sign, double factor",
    """double sum = factor * a[i];
    for (int k = 0; k < m; ++k) if (c[k] != 0) sum += c[k] * M[k * P + i];
    for (int k = 0; k < n; ++k) if (c[m + k] != 0) sum += c[m + k] * N[k * P + i];
    out[i] = sign * sum;""",
)

_PRODUCTS = Kernel(
    "gpubp_products",
    f"""
extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_products(
    const double* matrix, const double* first, const double* second, double* partials, long long P, int start, int ring,
    int rows, int width) {{
  // partials[chunk, row, vector]; a block has a chunk of all rows, so the vectors are read once
  __shared__ double sums[{MOST_ROWS * MOST_VECTORS * _WARPS}];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  double a[{CHUNK // THREADS}], b[{CHUNK // THREADS}];
#pragma unroll
  for (int u = 0; u < {CHUNK // THREADS}; ++u) {{
    const long long i = (long long)blockIdx.x * {CHUNK} + u * {THREADS} + threadIdx.x;
    a[u] = i < P ? first[i] : 0;
    b[u] = i < P ? second[i] : 0;
  }}
  for (int r = 0; r < rows; ++r) {{
    const double* row = matrix + (long long)((start + r) % ring) * P;
    double with_a = 0, with_b = 0;
#pragma unroll
    for (int u = 0; u < {CHUNK // THREADS}; ++u) {{
      const long long i = (long long)blockIdx.x * {CHUNK} + u * {THREADS} + threadIdx.x;
      const double x = i < P ? row[i] : 0;
      with_a += x * a[u];
      with_b += x * b[u];
    }}
    for (int other = 16; other > 0; other >>= 1) {{
      with_a += __shfl_xor_sync(0xffffffffu, with_a, other);
      with_b += __shfl_xor_sync(0xffffffffu, with_b, other);
    }}
    if (lane == 0) {{
      sums[(r * width) * {_WARPS} + warp] = with_a;
      if (width == 2) sums[(r * width + 1) * {_WARPS} + warp] = with_b;
    }}
  }}
  __syncthreads();
  for (int k = threadIdx.x; k < rows * width; k += {THREADS}) {{
    double sum = 0;
    for (int w = 0; w < {_WARPS}; ++w) sum += sums[k * {_WARPS} + w];
    partials[(long long)blockIdx.x * rows * width + k] = sum;
  }}
}}
""",
    ("const double*", "const double*", "const double*", "double*", "long long", "int", "int", "int", "int"),
)


def _fold(name: str, first: str, step: str) -> tuple[Kernel, Kernel]:
    """Two stages: of each chunk of a vector, and of the chunks' results; `step` takes x into `all`."""
    tree = f"""
  __shared__ double kept[{THREADS}];
  kept[threadIdx.x] = all;
  for (int half = {THREADS // 2}; half > 0; half >>= 1) {{
    __syncthreads();
    if (threadIdx.x < half) {{
      const double x = kept[threadIdx.x + half];
      double all = kept[threadIdx.x];
      {step};
      kept[threadIdx.x] = all;
    }}
  }}
"""
    chunk = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_{name}_chunk(
    const double* v, double* partials, long long P) {{
  double all = 0;
  for (int u = 0; u < {CHUNK // THREADS}; ++u) {{
    const long long i = (long long)blockIdx.x * {CHUNK} + u * {THREADS} + threadIdx.x;
    if (i < P) {{
      const double x = {first};
      {step};
    }}
  }}{tree}  if (threadIdx.x == 0) partials[blockIdx.x] = kept[0];
}}
"""
    end = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_{name}(
    const double* partials, double* out, long long count, long long stride) {{
  // out[k] of the partials k, k + stride, …; a block for each k
  double all = 0;
  for (long long q = threadIdx.x; q < count; q += {THREADS}) {{
    const double x = partials[q * stride + blockIdx.x];
    {step};
  }}{tree}  if (threadIdx.x == 0) out[blockIdx.x] = kept[0];
}}
"""
    types = ("const double*", "double*", "long long")
    return Kernel(f"gpubp_{name}_chunk", chunk, types), Kernel(f"gpubp_{name}", end, (*types, "long long"))


_SUM_ABS = _fold("sum_abs", "fabs(v[i])", "all += x")
_MAX_ABS = _fold("max_abs", "fabs(v[i])", "if (x > all || x != x) all = x")  # a NaN stays: nothing is larger
_SUMS = _SUM_ABS[1]
ALL = (_MOVE, _SUBTRACT, _COMBINE, _PRODUCTS, *_SUM_ABS, *_MAX_ABS)
