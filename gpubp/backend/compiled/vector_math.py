"""exp, expm1, log, log1p, tanh and the logistic function, written so that LLVM can vectorise a loop over them.

A compiled loop that calls the C library computes one element at a time. The functions here are arithmetic and selects
alone, in float32 or float64 as the argument is, and become part of the loop that calls them:

    @numba.njit(error_model="numpy", fastmath={"contract"})
    def loop(x, y):
        for i in range(x.size):
            y[i] = vector_math.exp(x[i])

Importing this module imports numba: import it where numba is wanted. Three habits hold throughout:

- No branch, no table, no float-to-integer conversion (LLVM leaves that of NaN and ∞ undefined). A float becomes an
  integer by adding 1.5·2²³ (float64: 1.5·2⁵²): the low bits of the sum are the integer.
- Of the fast-math flags only "contract" is set: fused multiply-adds where the machine has them. The functions carry
  their own flags, so that a caller compiled with "reassoc" cannot cancel (t + c) − c.
- NaN passes: the comparison of a clamp is one that NaN fails, and then it stays.

The errors in the docstrings are the largest ones seen, in units in the last place of the result (ulp): first with fused
multiply-adds, then without; in float32 over every fifth number above 2⁻²⁶, in float64 over random ones.

The polynomials are minimax fits made for this module, each by the line above it after `from mpmath import *` and
`mp.dps = 40`. ln 2 in two parts and tanh near 0 in float64 are from Cephes (Moshier 1989; `expf.c`, `exp.c`, `tanh.c`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import copysign
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}, "forceinline": True}
# Any: for a type checker an intrinsic still has the context argument that its callers do not give.
_intrinsic: Any = extending.intrinsic
_overload: Any = extending.overload
_word: Any = extending.register_jitable(**_OPTIONS)

_MANTISSA = {types.float32: 23, types.float64: 52}  # bits
_MAGIC = {types.float32: 1.5 * 2.0**23, types.float64: 1.5 * 2.0**52}

# The functions as mathematics. What is compiled in their place stands below: _exp for exp, and so on.


def exp(x: Any) -> Any:
    """e^x: down to the denormal numbers and 0 at one end, ∞ at the other.

    x = n·ln 2 + r with |r| ≤ ln 2/2, and e^x = 2^n·e^r, where e^r is a polynomial.
    Error: float32 0.97 and 1.26, float64 0.96 and 1.22.
    """
    return np.exp(x)


def expm1(x: Any) -> Any:
    """e^x − 1, to the last places at 0 too.

    With n and r of `exp`: 2^n·(e^r − 1) + (2^n − 1), where e^r − 1 is a polynomial without a constant.
    Error: float32 1.37 and 1.49, float64 1.43 and 1.37.
    """
    return np.expm1(x)


def log(x: Any) -> Any:
    """ln x: −∞ at 0, NaN below.

    x = 2^k·(1 + f) with 1 + f between √½ and √2, and ln x = k·ln 2 + ln(1 + f).
    Error: float32 0.86 and 0.84, float64 0.88 and 0.88.
    """
    return np.log(x)


def log1p(x: Any) -> Any:
    """ln(1 + x), to the last places at 0 too: −∞ at −1, NaN below.

    k is that of 1 + x, which is rounded; but f = x/2^k + (1/2^k − 1) is made of x itself.
    Error: float32 1.42 and 1.41, float64 1.43 and 1.42.
    """
    return np.log1p(x)


def tanh(x: Any) -> Any:
    """tanh x, odd, and to the last places at 0 too; one division.

    float32: q/(q + 2) with q = e^(2|x|) − 1 as in `expm1`. float64: 1 − 2/(e^(2|x|) + 1), and a rational function of x
    where |x| < 0.625, one of the two chosen before the division.
    Error: float32 2.43 and 2.53, float64 1.38 and 1.37.
    """
    return np.tanh(x)


def sigmoid(x: Any) -> Any:
    """The logistic function 1/(1 + e^−x), with e^−x as in `exp`; one division.

    Below x = −88.37 (float64: −709.4) it is 0 instead of a denormal number.
    Error: float32 2.00 and 2.00, float64 2.00 and 2.00.
    """
    return 1 / (1 + np.exp(-x))


# The words of the implementations.


@_intrinsic
def like(_context: Any, x: Any, v: Any) -> Any:
    """The number v in the type of x: beside a float32, a constant of Python would make the result float64."""
    return x(x, v), lambda context, builder, signature, args: context.cast(builder, args[1], v, x)


@_intrinsic
def _either(_context: Any, x: Any, single: Any, double: Any) -> Any:
    """`single` if x is float32, `double` if it is float64, in the type of x."""
    i, v = (1, single) if x == types.float32 else (2, double)
    return x(x, single, double), lambda context, builder, signature, args: context.cast(builder, args[i], v, x)


@_intrinsic
def _where(_context: Any, condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b: an `if` of Python could become a branch."""
    return a(condition, a, b), lambda context, builder, signature, args: builder.select(*args)


def _bits(x: Any, v: float) -> int:
    """The bits of v as a number of the type x."""
    size = x.bitwidth // 8
    return int(np.array(v, f"f{size}").view(f"i{size}"))


@_intrinsic
def _power_of_two(_context: Any, t: Any) -> Any:
    """2^n for t = n + magic, where 2^n is a normal number."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = ir.IntType(t.bitwidth)
        exponent = builder.shl(builder.bitcast(args[0], integer), integer(_MANTISSA[t]))
        return builder.bitcast(builder.add(exponent, integer(_bits(t, 1.0))), args[0].type)

    return t(t), build


@_intrinsic
def _scaled(_context: Any, y: Any, t: Any) -> Any:
    """y·2^n for t = n + magic, in two factors of about 2^(n/2): 2^n itself may be too large or too small."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = ir.IntType(t.bitwidth)
        mantissa = integer(_MANTISSA[t])
        biases = 2 * (_bits(t, 1.0) >> _MANTISSA[t])
        both = builder.add(builder.bitcast(args[1], integer), integer(biases - _bits(t, _MAGIC[t])))  # positive
        one = builder.lshr(both, integer(1))
        y = args[0]
        for exponent in (one, builder.sub(both, one)):
            y = builder.fmul(y, builder.bitcast(builder.shl(exponent, mantissa), y.type))
        return y

    return y(y, t), build


@_intrinsic
def _split(_context: Any, x: Any) -> Any:
    """(m, k) with x = m·2^k and m between √½ and √2, for a normal x > 0; k is in the type of x too."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, integer, mantissa = args[0].type, ir.IntType(x.bitwidth), _MANTISSA[x]
        bias = _bits(x, 1.0) >> mantissa
        bits = builder.bitcast(args[0], integer)
        biased = builder.lshr(builder.add(bits, integer(_bits(x, 1.0) - _bits(x, 0.5**0.5))), integer(mantissa))
        m = builder.sub(bits, builder.shl(builder.sub(biased, integer(bias)), integer(mantissa)))
        t = builder.bitcast(builder.add(biased, integer(_bits(x, _MAGIC[x]) - bias)), kind)
        k = builder.fsub(t, ir.Constant(kind, _MAGIC[x]))
        return context.make_tuple(builder, signature.return_type, (builder.bitcast(m, kind), k))

    return types.UniTuple(x, 2)(x), build


def _polynomial(single: tuple[float, ...], double: tuple[float, ...]) -> Any:
    """Horner's rule as a function of a float: the coefficients for either type, that of the highest power first."""

    @_intrinsic
    def polynomial(_context: Any, x: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            y, *others = (ir.Constant(args[0].type, c) for c in (single if x == types.float32 else double))
            for c in others:
                y = builder.fadd(builder.fmul(y, args[0]), c)
            return y

        return x(x), build

    return polynomial


def _implements(function: Callable) -> Callable:
    """Compile the implementation where `function` is called with a float32 or a float64."""

    def register(implementation: Callable) -> Callable:
        _overload(function, jit_options=_OPTIONS)(lambda x: implementation if x in _MANTISSA else None)
        return implementation

    return register


# The implementations.

# chebyfit(lambda r: (expm1(r) - r)/r**2 if abs(r) > 1e-8 else 0.5 + r/6, [-log(2)/2, log(2)/2], 5), and 10 for float64
# fmt: off
_Q = (
    (0.0013926183587713495, 0.0083631790527225774, 0.041666554617204574, 0.16666576989698776, 0.5),
    (2.5100385495510319e-8, 2.7620088445409748e-7, 2.7557268459997065e-6, 2.4801521295954375e-5,
     0.00019841269863053617, 0.0013888888917213717, 0.0083333333333300618, 0.041666666666624128,
     0.16666666666666667, 0.5000000000000001),
)
# chebyfit(lambda z: 2*(atanh(sqrt(z))/sqrt(z) - 1)/z if z > 1e-12 else 2/3, [0, (sqrt(2) - 1)**4], 3), and 7
_l = _polynomial(
    (0.29579949391972785, 0.39988780566021982, 0.66666685039575855),
    (0.14616449685043406, 0.15331721600556041, 0.18182889125261722, 0.2222221113479508, 0.28571428625975485,
     0.39999999999899504, 0.66666666666666697),
)
# fmt: on
_q = _polynomial(*_Q)
_exponential = _polynomial((*_Q[0], 1.0, 1.0), (*_Q[1], 1.0, 1.0))  # e^r = 1 + r + r²·q
_tanh_p = _polynomial((), (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3))
_tanh_q = _polynomial((), (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3))


@_word
def _round(x):
    """(t, n): x rounded to an integer n, and t = n + magic."""
    magic = _either(x, 1.5 * 2.0**23, 1.5 * 2.0**52)
    t = x + magic
    return t, t - magic


@_word
def _ln2(x):
    """(high, low) with the sum ln 2: an n or a k times high is exact."""
    return _either(x, 0.693359375, 6.93145751953125e-1), _either(x, -2.12194440e-4, 1.42860682030941723212e-6)


@_word
def _reduced(x):
    """(t, r, c): x = n·ln 2 + r + c with |r| ≤ ln 2/2, where c is what rounding took from r, and t = n + magic."""
    t, n = _round(x * like(x, 1.4426950408889634))
    high, low = _ln2(x)
    high = x - n * high
    low = n * low
    r = high - low
    return t, r, (high - r) - low


@_word
def _clamped(x, low):
    """x, but not below `low` and not above the point where e^x is ∞."""
    high = _either(x, 89.0, 710.0)
    x = _where(x < low, low, x)
    return _where(x > high, high, x)


@_implements(exp)
def _exp(x):
    t, r, _ = _reduced(_clamped(x, _either(x, -104.0, -746.0)))  # there e^x is 0
    return _scaled(_exponential(r), t)


@_implements(expm1)
def _expm1(x):
    t, r, c = _reduced(_clamped(x, like(x, -80)))  # there e^x − 1 is −1
    s = _power_of_two(t - like(x, 1))  # half of 2^n, which overflows before e^x does
    y = s * (r * r * _q(r) + c) + (s * r + (s - like(x, 0.5)))  # the large terms first: they cancel exactly
    return _where(abs(x) < like(x, 1e-20), x, y + y)  # -0.0, and the denormal numbers that s would halve


@_implements(sigmoid)
def _sigmoid(x):
    y = _where(x > like(x, 60), like(x, -60), -x)  # from here on the result is 1
    t, r, _ = _reduced(y)
    s = _power_of_two(t)
    # 1 + e^y with e^y = s + s·(e^r − 1). The 1 first: beside s = 2²⁴ it would be half a unit, and lost.
    a = like(x, 1) / ((s * (r + r * r * _q(r)) + like(x, 1)) + s)
    return _where(y > _either(x, 88.37, 709.4), like(x, 0), a)  # beyond, 2^n is too large


def _single_tanh(x):
    y = abs(x) + abs(x)
    y = _where(y > like(x, 20), like(x, 20), y)  # from here on the result is 1
    t, n = _round(y * like(x, 1.4426950408889634))
    r = y - n * like(x, 0.6931471805599453)  # ln 2 in one part: where n is large, tanh is flat
    s = _power_of_two(t)
    q = s * (r + r * r * _q(r)) + (s - like(x, 1))
    return copysign(q / (q + like(x, 2)), x)


def _double_tanh(x):
    y = abs(x) + abs(x)
    t, r, _ = _reduced(_where(y > like(x, 40), like(x, 40), y))
    z = x * x
    small = abs(x) < like(x, 0.625)
    numerator = _where(small, abs(x) * z * _tanh_p(z), like(x, -2))
    denominator = _where(small, _tanh_q(z), _power_of_two(t) * _exponential(r) + like(x, 1))
    return copysign(_where(small, abs(x), like(x, 1)) + numerator / denominator, x)


@_overload(tanh, jit_options=_OPTIONS)
def _tanh(x):
    return {types.float32: _single_tanh, types.float64: _double_tanh}.get(x)


@_word
def _ln(f, k):
    """ln(2^k·(1 + f)) for 1 + f between √½ and √2: with s = f/(2 + f), ln(1 + f) = 2·artanh s."""
    high, low = _ln2(f)
    s = f / (f + like(f, 2))
    z = s * s
    h = like(f, 0.5) * f * f
    y = s * (h + z * _l(z)) + k * low - h  # ln(1 + f) = f − h + s·(h + z·l): all but f is small
    return (f + y) + k * high


@_word
def _at_ends(x, y):
    """ln x, given y that is ln x where 0 < x < ∞."""
    y = _where(x < like(x, np.inf), y, x)
    return _where(x > like(x, 0), y, _where(x == like(x, 0), like(x, -np.inf), like(x, np.nan)))


@_implements(log)
def _log(x):
    denormal = x < _either(x, 2.0**-126, 2.0**-1022)
    m, k = _split(_where(denormal, x * like(x, 2.0**54), x))
    return _at_ends(x, _ln(m - like(x, 1), k - _where(denormal, like(x, 54), like(x, 0))))


@_implements(log1p)
def _log1p(x):
    u = x + like(x, 1)
    _, k = _split(u)
    t, _ = _round(like(x, 2) - k)
    s = _power_of_two(t)  # 4/2^k, because 1/2^k may be too small
    y = _ln(like(x, 0.25) * x * s + (like(x, 0.25) * s - like(x, 1)), k)
    return _where(abs(x) < like(x, 1e-20), x, _at_ends(u, y))  # -0.0, and the denormal numbers
