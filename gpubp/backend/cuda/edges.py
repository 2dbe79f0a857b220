"""The two ends of an evaluation on the device: the optimizer's Θ becomes the pass's, the pass's sums become J and ∇J.

    enter    Θ in float64 → the flat Θ of the pass; a scaling is folded into Θ^(1), as `gpubp.feed.fold` does
    leave    Δ → ∇J = Δ/Σw + λ/Σw·Θ without the biases, taken back through the scaling, as `gpubp.feed.unfold` does
    finish   J = cost/Σw + λ/(2Σw)·ΣΘ², and the cost of the validation rows

All in float64. W^(1) is the first part of the flat vector, row by row, so its row and column follow from the index.
"""

from __future__ import annotations

import numpy as np

from ..kernels import BF16, THREADS, Kernel, c_type

_SPAN = 4 * THREADS  # elements of a block of `leave`
_POINTERS_IN = ("const double*",) * 3


def enter(T: np.dtype, *, narrow: bool) -> Kernel:
    """``(Theta, mean, scale, flat, narrow, P, inputs, units, bias)``; `enter_blocks(P, units)` blocks.

    Theta: (P,) float64; flat: (P,) of the pass; narrow: likewise as bfloat16, where `narrow`; mean, scale: (inputs,),
    or null; inputs, units: of the first layer, whose b^(1) begins at `bias`.
    """
    real = c_type(T)
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_enter_{real}{"_bf16" * narrow}(
    const double* Theta, const double* mean, const double* scale, {real}* flat, bf16_* narrow, long long P,
    long long inputs, long long units, long long bias) {{
  const long long elementwise = (P + {THREADS - 1}) / {THREADS};
  if (blockIdx.x < elementwise) {{
    const long long i = (long long)blockIdx.x * {THREADS} + threadIdx.x;
    if (i < P && !(mean && i >= bias && i < bias + units)) {{
      const {real} value = ({real})(scale && i < inputs * units ? Theta[i] / scale[i % inputs] : Theta[i]);
      flat[i] = value;
      {"narrow[i] = value;" * narrow}
    }}
    return;
  }}
  // a warp for each unit: b^(1) − Σ_k W^(1)_k/σ_k · μ_k
  const long long unit = (blockIdx.x - elementwise) * {THREADS // 32} + threadIdx.x / 32;
  const long long from = unit < units ? unit : 0;
  double sum = 0;
  for (long long k = threadIdx.x % 32; k < inputs; k += 32) {{
    const double weight = Theta[from * inputs + k];
    sum += (scale ? weight / scale[k] : weight) * mean[k];
  }}
  for (int other = 16; other > 0; other >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, other);
  if (threadIdx.x % 32 == 0 && unit < units) {{
    const {real} value = ({real})(Theta[bias + unit] - sum);
    flat[bias + unit] = value;
    {"narrow[bias + unit] = value;" * narrow}
  }}
}}
"""
    name = f"gpubp_enter_{real}{'_bf16' * narrow}"
    types = (*_POINTERS_IN, f"{real}*", f"{c_type(BF16)}*", *("long long",) * 4)
    return Kernel(name, body, types)


def enter_blocks(P: int, units: int, centred: bool) -> int:
    """How many blocks `enter` takes; `centred`: there is a mean."""
    return -(-P // THREADS) + (-(-units // (THREADS // 32)) if centred else 0)


def leave(T: np.dtype) -> Kernel:
    """``(flat, Theta, decays, mean, scale, gradient, squares, P, inputs, units, bias, weight_sum, pull)``;
    `leave_blocks(P)` blocks.

    flat: Δ, (P,) of the pass; decays: (P,) uint8, 1 where λ applies; gradient: (P,) float64, or null for J alone;
    squares: (blocks,) float64, each block's part of ΣΘ² where λ applies; pull: λ/Σw.
    """
    real = c_type(T)
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_leave_{real}(
    const {real}* flat, const double* Theta, const unsigned char* decays, const double* mean, const double* scale,
    double* gradient, double* squares, long long P, long long inputs, long long units, long long bias,
    double weight_sum, double pull) {{
  double sum = 0;
#pragma unroll
  for (int u = 0; u < {_SPAN // THREADS}; ++u) {{
    const long long i = (long long)blockIdx.x * {_SPAN} + u * {THREADS} + threadIdx.x;
    if (i < P) {{
      const double theta = decays[i] ? Theta[i] : 0.0;
      sum += theta * theta;
      if (gradient) {{
        double slope = flat[i];
        if (i < inputs * units) {{
          if (mean) slope -= (double)flat[bias + i / inputs] * mean[i % inputs];
          if (scale) slope /= scale[i % inputs];
        }}
        gradient[i] = slope / weight_sum + pull * theta;
      }}
    }}
  }}
  sum = block_sum_(sum);
  if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}}
"""
    pointers = f"const {real}*", "const double*", "const unsigned char*", "const double*", "const double*"
    types = (*pointers, "double*", "double*", *("long long",) * 4, "double", "double")
    return Kernel(f"gpubp_leave_{real}", body, types)


def leave_blocks(P: int) -> int:
    """How many blocks `leave` takes."""
    return -(-P // _SPAN)


def finish() -> Kernel:
    """``(cost, squares, answer, count, weight_sum, held_sum, pull)``; one block.

    answer[0] ← cost[0]/Σw + λ/(2Σw)·Σ squares; answer[1] ← cost[1]/Σv, the validation cost (0 without such rows).
    """
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_finish(
    const double* cost, const double* squares, double* answer, long long count, double weight_sum, double held_sum,
    double pull) {{
  double sum = 0;
  for (long long i = threadIdx.x; i < count; i += {THREADS}) sum += squares[i];
  sum = block_sum_(sum);
  if (threadIdx.x == 0) {{
    // λ = 0 with an infinite Θ must not make J a NaN of its own
    answer[0] = cost[0] / weight_sum + (pull != 0 ? pull * sum / 2 : 0.0);
    answer[1] = held_sum != 0 ? cost[1] / held_sum : 0.0;
  }}
}}
"""
    types = ("const double*", "const double*", "double*", "long long", "double", "double", "double")
    return Kernel("gpubp_finish", body, types)
