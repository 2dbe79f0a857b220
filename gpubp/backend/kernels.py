"""CUDA text from formulas: pure text and arithmetic, so that it can be compiled, run and tested without a GPU.

`source` writes the kernel of a formula for given dtypes; `plan` says how it is launched on given arrays. Every array
is addressed by (row stride, column stride) in elements: a stride of 0 is a broadcast (rows, 1) or (1, columns), and a
slice of a larger matrix needs no copy. Nothing is included: the compiler's wheels need not carry the toolkit's headers.

The order of every sum follows from the shape alone. `total` adds fixed chunks of `CHUNK` elements, each in a fixed
tree, to partial sums, which one thread block adds in a fixed tree again: no atomics, so no run differs by a bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import BackendError
from ..formula import Argument, Formula

OPTIONS = ("-std=c++17",)  # no fast-math: exp, division and tanh keep the accuracy CUDA documents

THREADS = 256  # of a block; a multiple of the warp's 32
UNROLL = 4  # elements a thread has in flight: enough loads to keep the memory of a Hopper busy
CHUNK = 16 * THREADS  # elements of one partial sum
_WARPS = THREADS // 32
_MOST_BLOCKS = 4096  # several waves on any device; beyond it a thread takes more elements
_NARROW = 1 << 31  # elements that 32-bit indices can count, with room for the last step of a loop

_C_TYPES = {
    "bool": "unsigned char",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned",
    "int64": "long long",
    "uint64": "unsigned long long",
    "float16": "half_",
    "float32": "float",
    "float64": "double",
    "bfloat16": "bf16_",
}
BF16 = "bfloat16"  # in place of a dtype: NumPy has no such numbers; on the device they lie in an array of uint16
Type = np.dtype | str

_PREAMBLE = f"""\
#ifdef __CUDACC__
__device__ inline float half_value_(unsigned short bits) {{
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}}
#endif
struct half_ {{  // float16 as it is stored
  unsigned short bits;
  __device__ operator float() const {{ return half_value_(bits); }}
}};
union word_ {{
  float value;
  unsigned bits;
}};
struct bf16_ {{  // the upper half of a float32
  unsigned short bits;
  __device__ operator float() const {{
    word_ word;
    word.bits = (unsigned)bits << 16;
    return word.value;
  }}
  __device__ bf16_& operator=(float value) {{  // the nearest one, of two the even one
    word_ word;
    word.value = value;
    bits = value != value ? 0x7fff : (unsigned short)((word.bits + 0x7fff + ((word.bits >> 16) & 1)) >> 16);
    return *this;
  }}
}};
__device__ inline double block_sum_(double sum) {{  // of all threads' values, in a fixed tree; thread 0 gets it
  __shared__ double sums[{THREADS}];
  sums[threadIdx.x] = sum;
  for (unsigned half = {THREADS // 2}; half > 0; half >>= 1) {{
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }}
  return sums[0];
}}
template <class F> __device__ double warp_max_(F f, int columns) {{
  double top = __longlong_as_double(0xfff0000000000000ll);  // −∞
  for (int j = threadIdx.x & 31; j < columns; j += 32) top = fmax(top, f(j));
  for (int other = 16; other > 0; other >>= 1) top = fmax(top, __shfl_xor_sync(0xffffffffu, top, other));
  return top;
}}
template <class F> __device__ double warp_sum_(F f, int columns) {{
  double sum = 0;
  for (int j = threadIdx.x & 31; j < columns; j += 32) sum += f(j);
  // a + b = b + a to the bit, so every lane ends with the same sum
  for (int other = 16; other > 0; other >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, other);
  return sum;
}}
"""


def c_type(type: Type) -> str:
    """The type of an array's elements in CUDA text.

    Raises:
        BackendError: there is none.
    """
    name = type if isinstance(type, str) else type.name if type.isnative else ""
    if name not in _C_TYPES:
        raise BackendError(f"numbers of type {type}", wanted=f"native ones of {', '.join(_C_TYPES)}")
    return _C_TYPES[name]


class Kernel(NamedTuple):
    """One CUDA kernel as text.

    Attributes:
        name: of the kernel, unique for a formula and its dtypes.
        body: its text without the common first part; bodies of different kernels go into one program.
        parameters: the C types of its parameters in order: pointers, then numbers.
        threads: of a block.
        shared: bytes of dynamic shared memory.
    """

    name: str
    body: str
    parameters: tuple[str, ...]
    threads: int = 256
    shared: int = 0

    @property
    def text(self) -> str:
        """A program of this kernel alone."""
        return program(self)


def program(*kernels: Kernel) -> str:
    """One CUDA program of several kernels."""
    return _PREAMBLE + "".join(kernel.body for kernel in kernels)


@dataclass(frozen=True)
class Launch:
    """How a kernel meets its arrays.

    Attributes:
        types: the arrays' dtypes, as `source` wants them.
        wide: whether indices need 64 bits.
        blocks: thread blocks of `THREADS` threads; 0 where there is nothing to do.
        numbers: the integers after the pointers: rows, columns, and each array's two strides.
    """

    types: tuple[np.dtype, ...]
    wide: bool
    blocks: int
    numbers: tuple[int, ...]


def plan(formula: Formula, arrays: Sequence[Any]) -> Launch:
    """The launch of a formula on arrays of one or two dimensions, of any library that has `shape` and `strides`.

    Args:
        arrays: the inputs, and the output unless the formula is a `total`.

    Raises:
        ValueError: an input that cannot be broadcast to the output.
    """
    if formula.shape == "total":
        shape = tuple(map(max, zip(*(array.shape for array in arrays), strict=True)))
    else:
        shape = arrays[-1].shape
    rows, columns = shape if len(shape) == 2 else (1, *shape)
    numbers = [rows, columns]
    for array in arrays:
        numbers += _strides(formula, array, shape)
    size = rows * columns
    if formula.shape == "elementwise":
        blocks = min(-(-size // (THREADS * UNROLL)), _MOST_BLOCKS)
    elif formula.shape == "total":
        blocks = -(-size // CHUNK)
    else:
        blocks = min(-(-rows // _WARPS), _MOST_BLOCKS) if columns else 0
    wide = size >= _NARROW or max(numbers) >= _NARROW
    return Launch(tuple(array.dtype for array in arrays), wide, blocks, tuple(numbers))


def _strides(formula: Formula, array: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """(row, column) strides in elements, 0 along an axis of length 1."""
    fits = len(array.shape) == len(shape) and all(n in (1, m) for n, m in zip(array.shape, shape, strict=True))
    if not fits:
        raise ValueError(f"{formula.name}: an array of shape {array.shape} does not fit {shape}")
    itemsize = array.dtype.itemsize
    steps = [0 if n == 1 else step // itemsize for n, step in zip(array.shape, array.strides, strict=True)]
    return (steps[0], steps[1]) if len(steps) == 2 else (0, steps[0])


def source(formula: Formula, types: Sequence[Type], *, wide: bool = False) -> Kernel:
    """The kernel of a formula.

    Args:
        types: the dtypes of the inputs, and of the output unless the formula is a `total`. Those of `T` must agree,
            but a `T` of float32 may also be stored as `BF16`, in an elementwise formula.
        wide: index with 64 bits.

    Raises:
        BackendError: a dtype that the formula's argument cannot have.
    """
    arguments = formula.inputs if formula.shape == "total" else (*formula.inputs, formula.output)
    pairs = [(a, t if t == BF16 else np.dtype(t)) for a, t in zip(arguments, types, strict=True)]
    narrow = formula.shape == "elementwise"
    T = next((t for a, t in pairs if a.type == "T" and isinstance(t, np.dtype)), np.dtype(np.float32))
    bf16 = any(t == BF16 for _, t in pairs)
    if T.name not in ("float32", "float64") or (bf16 and not (narrow and T.name == "float32")):
        raise BackendError(f"{formula.name} in {', '.join(map(str, types))}", wanted="float32 or float64")
    arrays = [_array(formula, argument, type, T) for argument, type in pairs]
    inputs = arrays[: len(formula.inputs)]
    output = arrays[-1] if len(arrays) > len(inputs) else _Array(formula.output.name, formula.output.type)
    stored = (t.str[1:] if isinstance(t, np.dtype) else "bf16" for _, t in pairs)
    name = "_".join(["gpubp", formula.name, *stored, *(["wide"] if wide else [])])
    write = {"elementwise": _elementwise, "total": _total, "rowwise": _rowwise}[formula.shape]
    return write(name, formula.cuda, inputs, output, _C_TYPES[T.name], "unsigned long long" if wide else "unsigned")


def sum_source() -> Kernel:
    """The second stage of `total`: out[0] += the partial sums, in one block; parameters: partials, out, count."""
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_sum(
    const double* partials, double* out, long long count) {{
  double sum = 0;
  for (long long i = threadIdx.x; i < count; i += {THREADS}) sum += partials[i];
  sum = block_sum_(sum);
  if (threadIdx.x == 0) out[0] += sum;
}}
"""
    return Kernel("gpubp_sum", body, ("const double*", "double*", "long long"))


class _Array(NamedTuple):
    """An argument with the C type of its elements in memory, and in the formula where that is another one."""

    name: str
    type: str
    value: str = ""

    @property
    def element(self) -> str:
        """The lvalue at (row_, column_); offsets are 64-bit products of indices, one instruction."""
        return f"{self.name}_p[(unsigned long long)row_ * {self.name}_r + (unsigned long long)column_ * {self.name}_c]"


def _array(formula: Formula, argument: Argument, type: Type, T: np.dtype) -> _Array:
    if isinstance(type, str):
        if argument.type != "T":
            raise BackendError(f"{formula.name}: '{argument.name}' is {type}", wanted=argument.type)
        return _Array(argument.name, _C_TYPES[type], _C_TYPES[T.name])
    return _Array(argument.name, _c_type(formula, argument, type, T))


def _c_type(formula: Formula, argument: Argument, dtype: np.dtype, T: np.dtype) -> str:
    found = _C_TYPES.get(dtype.name) if dtype.isnative else None
    wanted = {"T": _C_TYPES[T.name], "S": found}.get(argument.type, argument.type)
    if found is None or found != wanted:
        raise BackendError(f"{formula.name}: '{argument.name}' is {dtype.str}", wanted=wanted or "a native number")
    return found


# In the texts below every name of ours ends in an underscore or in _p, _r, _c, _v, so that none of a formula's clashes.


def _head(name: str, inputs: list[_Array], result: str, strided: list[_Array], T: str, Index: str) -> Kernel:
    """Signature and first declarations. `result` is the output's pointer, `strided` are the arrays with strides."""
    integers = ["rows_n", "columns_n", *(f"{a.name}_{axis}n" for a in strided for axis in "rc")]
    pointers = [f"const {a.type}* {a.name}_p" for a in inputs] + [result]
    strides = "".join(
        f"  const Index {a.name}_r = (Index){a.name}_rn, {a.name}_c = (Index){a.name}_cn;\n" for a in strided
    )
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) {name}(
    {", ".join(pointers)},
    {", ".join(f"long long {n}" for n in integers)}) {{
  typedef {T} T;
  typedef {Index} Index;
  const Index rows_ = (Index)rows_n, columns_ = (Index)columns_n;
{strides}"""
    types = tuple(pointer.rsplit(None, 1)[0] for pointer in pointers) + ("long long",) * len(integers)
    return Kernel(name, body, types)


def _elementwise(name: str, cuda: str, inputs: list[_Array], output: _Array, T: str, Index: str) -> Kernel:
    """A thread reads `UNROLL` elements of every input before it writes one: in place, and with loads in flight."""
    head = _head(name, inputs, f"{output.type}* {output.name}_p", [*inputs, output], T, Index)
    at = f"const Index i_ = first_ + u_ * {THREADS};"
    position = "const Index row_ = i_ / columns_, column_ = i_ - row_ * columns_;"
    body = f"""\
  const Index size_ = rows_ * columns_;
  for (Index first_ = (Index)blockIdx.x * {THREADS * UNROLL} + threadIdx.x; first_ < size_;
       first_ += (Index)gridDim.x * {THREADS * UNROLL}) {{
    {" ".join(f"{a.type} {a.name}_v[{UNROLL}];" for a in inputs)}
#pragma unroll
    for (int u_ = 0; u_ < {UNROLL}; ++u_) {{
      {at}
      if (i_ < size_) {{
        {position}
        {" ".join(f"{a.name}_v[u_] = {a.element};" for a in inputs)}
      }}
    }}
#pragma unroll
    for (int u_ = 0; u_ < {UNROLL}; ++u_) {{
      {at}
      if (i_ < size_) {{
        {" ".join(f"const {a.value or a.type} {a.name} = {a.name}_v[u_];" for a in inputs)}
        {output.value or output.type} {output.name};
        {{ {cuda}; }}
        {position}
        {output.element} = {output.name};
      }}
    }}
  }}
}}
"""
    return head._replace(body=head.body + body)


def _total(name: str, cuda: str, inputs: list[_Array], output: _Array, T: str, Index: str) -> Kernel:
    """Block i sets partial sum i: of the elements from i·CHUNK, each thread's own in order, then the block's tree."""
    head = _head(name, inputs, "double* partials_p", inputs, T, Index)
    body = f"""\
  const Index size_ = rows_ * columns_;
  double sum_ = 0;
  for (int u_ = 0; u_ < {CHUNK // THREADS}; ++u_) {{
    const Index i_ = (Index)blockIdx.x * {CHUNK} + u_ * {THREADS} + threadIdx.x;
    if (i_ < size_) {{
      const Index row_ = i_ / columns_, column_ = i_ - row_ * columns_;
      {" ".join(f"const {a.type} {a.name} = {a.element};" for a in inputs)}
      double {output.name};
      {{ {cuda}; }}
      sum_ += {output.name};
    }}
  }}
  sum_ = block_sum_(sum_);
  if (threadIdx.x == 0) partials_p[blockIdx.x] = sum_;
}}
"""
    return head._replace(body=head.body + body)


def _rowwise(name: str, cuda: str, inputs: list[_Array], output: _Array, T: str, Index: str) -> Kernel:
    """A warp takes a row; lane i holds columns i, i + 32, …, so that a row may be replaced in place."""
    head = _head(name, inputs, f"{output.type}* {output.name}_p", [*inputs, output], T, Index)
    body = f"""\
  const auto row_max = [&](auto f_) {{ return warp_max_(f_, (int)columns_); }};
  const auto row_sum = [&](auto f_) {{ return warp_sum_(f_, (int)columns_); }};
  const auto each = [&](auto f_) {{ for (int j_ = threadIdx.x & 31; j_ < (int)columns_; j_ += 32) f_(j_); }};
  for (Index row_ = (Index)blockIdx.x * {_WARPS} + threadIdx.x / 32; row_ < rows_; row_ += gridDim.x * {_WARPS}) {{
    {" ".join(f"const auto {a.name} = [&](int column_) -> {a.type} {{ return {a.element}; }};" for a in inputs)}
    const auto {output.name} = [&](int column_) -> {output.type}& {{ return {output.element}; }};
    {{ {cuda}; }}
  }}
}}
"""
    return head._replace(body=head.body + body)
