"""The two ends of an evaluation on the device: the optimizer's Θ becomes the pass's, the pass's sums become J and ∇J.

    enter    Θ in float64 → the flat Θ of the pass; a scaling is folded into Θ^(1), as `gpubp.feed.fold` does; and ΣΘ²
             without the biases, in parts
    leave    Δ → ∇J = Δ/Σw + λ/Σw·Θ without the biases, taken back through the scaling, as `gpubp.feed.unfold` does;
             J = cost/Σw + λ/(2Σw)·ΣΘ², and the cost of the validation rows

All in float64. W^(1) is the first part of the flat vector, row by row, so its row and column follow from the index. A
pass may keep Θ and Δ in a layout of its own: `where` says at which place of it each element lies, −1 for the gaps.
"""

from __future__ import annotations

import numpy as np

from ..kernels import BF16, THREADS, Kernel, c_type

SPAN = 4  # elements of a thread


def blocks(P: int) -> int:
    """How many blocks take P elements; and how many parts ΣΘ² has."""
    return -(-P // (SPAN * THREADS))


def enter(T: np.dtype, *, narrow: bool) -> Kernel:
    """``(Theta, decays, where, mean, scale, flat, narrow, squares, P, inputs, units, bias)``; `enter_blocks` blocks.

    Theta: (P,) float64; decays: (P,) uint8, 1 where λ applies; where: (P,) int32, or null for each element's own place;
    flat: Θ of the pass; narrow: likewise as bfloat16, where `narrow`; squares: (blocks(P),) float64; mean, scale:
    (inputs,), or null; inputs, units: of the first layer, whose b^(1) begins at `bias` of Theta.
    """
    real = c_type(T)
    name = f"gpubp_enter_{real}{'_bf16' * narrow}"
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) {name}(
    const double* Theta, const unsigned char* decays, const int* where, const double* mean, const double* scale,
    {real}* flat, bf16_* narrow, double* squares, long long P, long long inputs, long long units, long long bias) {{
  const long long elementwise = (P + {SPAN * THREADS - 1}) / {SPAN * THREADS};
  if (blockIdx.x < elementwise) {{
    double sum = 0;
#pragma unroll
    for (int u = 0; u < {SPAN}; ++u) {{
      const long long i = ((long long)blockIdx.x * {SPAN} + u) * {THREADS} + threadIdx.x;
      if (i < P) {{
        const double theta = Theta[i];
        if (decays[i]) sum += theta * theta;
        if (!(mean && i >= bias && i < bias + units)) {{
          const {real} value = ({real})(scale && i < inputs * units ? theta / scale[i % inputs] : theta);
          const long long at = where ? where[i] : i;
          if (at >= 0) {{
            flat[at] = value;
            {"narrow[at] = value;" * narrow}
          }}
        }}
      }}
    }}
    sum = block_sum_(sum);
    if (threadIdx.x == 0) squares[blockIdx.x] = sum;
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
    const long long at = where ? where[bias + unit] : bias + unit;
    flat[at] = value;
    {"narrow[at] = value;" * narrow}
  }}
}}
"""
    pointers = ("const double*", "const unsigned char*", "const int*", "const double*", "const double*", f"{real}*")
    return Kernel(name, body, (*pointers, f"{c_type(BF16)}*", "double*", *("long long",) * 4))


def enter_blocks(P: int, units: int, centred: bool) -> int:
    """How many blocks `enter` takes; `centred`: there is a mean."""
    return blocks(P) + (-(-units // (THREADS // 32)) if centred else 0)


def leave(T: np.dtype) -> Kernel:
    """``(flat, cost, Theta, decays, where, mean, scale, squares, gradient, answer, P, inputs, units, bias,
    weight_sum, held_sum, pull)``; `blocks(P)` blocks, or one for J alone.

    flat: Δ of the pass; cost: (2,) float64, Σ w·cost and Σ v·cost; gradient: (P,) float64, or null for J alone;
    answer: (2,) float64, J and the validation cost (0 without such rows); pull: λ/Σw. The rest as for `enter`.
    """
    real = c_type(T)
    body = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) gpubp_leave_{real}(
    const {real}* flat, const double* cost, const double* Theta, const unsigned char* decays, const int* where,
    const double* mean, const double* scale, const double* squares, double* gradient, double* answer, long long P,
    long long inputs, long long units, long long bias, double weight_sum, double held_sum, double pull) {{
  if (blockIdx.x == 0) {{
    const long long parts = (P + {SPAN * THREADS - 1}) / {SPAN * THREADS};
    double sum = 0;
    for (long long i = threadIdx.x; i < parts; i += {THREADS}) sum += squares[i];
    sum = block_sum_(sum);
    if (threadIdx.x == 0) {{
      // λ = 0 with an infinite Θ must not make J a NaN of its own
      answer[0] = cost[0] / weight_sum + (pull != 0 ? pull * sum / 2 : 0.0);
      answer[1] = held_sum != 0 ? cost[1] / held_sum : 0.0;
    }}
  }}
  if (!gradient) return;
#pragma unroll
  for (int u = 0; u < {SPAN}; ++u) {{
    const long long i = ((long long)blockIdx.x * {SPAN} + u) * {THREADS} + threadIdx.x;
    if (i < P) {{
      const long long at = where ? where[i] : i;
      double slope = at < 0 ? 0.0 : (double)flat[at];
      if (i < inputs * units) {{
        const long long of_unit = bias + i / inputs;
        if (mean) slope -= (double)flat[where ? where[of_unit] : of_unit] * mean[i % inputs];
        if (scale) slope /= scale[i % inputs];
      }}
      gradient[i] = slope / weight_sum + (decays[i] ? pull * Theta[i] : 0.0);
    }}
  }}
}}
"""
    sums = f"const {real}*", "const double*"
    pointers = (*sums, "const double*", "const unsigned char*", "const int*", *("const double*",) * 3)
    types = (*pointers, "double*", "double*", *("long long",) * 4, *("double",) * 3)
    return Kernel(f"gpubp_leave_{real}", body, types)
