"""The functions for compiled loops, against the same formulas in NumPy's longdouble."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from gpubp.backend.compiled import vector_math  # noqa: E402 (it imports numba)

INF, NAN = np.inf, np.nan
PLAIN = frozenset({"contract"})
FAST = frozenset({"contract", "reassoc", "nsz", "arcp"})

HUGE = 3e38
# x and f(x), without rounding.
ENDS = {
    "exp": [(-INF, 0), (-HUGE, 0), (-800, 0), (-0.0, 1), (0.0, 1), (800, INF), (HUGE, INF), (INF, INF)],
    "expm1": [(-INF, -1), (-HUGE, -1), (-800, -1), (-0.0, -0.0), (0.0, 0.0), (800, INF), (HUGE, INF), (INF, INF)],
    "log": [(-INF, NAN), (-HUGE, NAN), (-1, NAN), (-1e-42, NAN), (-0.0, -INF), (0.0, -INF), (1, 0.0), (INF, INF)],
    "log1p": [(-INF, NAN), (-HUGE, NAN), (-1 - 2**-20, NAN), (-1, -INF), (-0.0, -0.0), (0.0, 0.0), (INF, INF)],
    "tanh": [(-INF, -1), (-HUGE, -1), (-20, -1), (-0.0, -0.0), (0.0, 0.0), (20, 1), (HUGE, 1), (INF, 1)],
    "sigmoid": [(-INF, 0), (-HUGE, 0), (-800, 0), (-0.0, 0.5), (0.0, 0.5), (40, 1), (HUGE, 1), (INF, 1)],
}
# In units in the last place. tanh in float32 is three roundings, of which the first two may count double, and a little.
BOUNDS = {name: 1.5 if name in ("exp", "expm1", "log") else 2.0 for name in ENDS}
BOUND_OF_SINGLE_TANH = 2.6

over_functions = pytest.mark.parametrize("name", ENDS)
over_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
over_flags = pytest.mark.parametrize("flags", [PLAIN, FAST], ids=["plain", "fast"])


@functools.cache
def loop(name, flags):
    """y = f(1·x)·1, where the compiler does not know that the factor is 1."""
    f = getattr(vector_math, name)

    @numba.njit(error_model="numpy", fastmath=set(flags))
    def loop(x, one, y):
        for i in range(x.size):
            y[i] = f(x[i] * one) * one

    return loop


def evaluate(name, x, flags=PLAIN):
    y = np.full_like(x, -77)
    loop(name, flags)(x, x.dtype.type(1), y)
    return y


def ulp_error(got, wanted):
    """|got − wanted| in units in the last place of `wanted`, in the type of `got`; ∞ counts as the number after the
    largest one, and NaN as NaN."""
    info = np.finfo(got.dtype)
    end = np.ldexp(np.longdouble(1), info.maxexp)
    got, wanted = np.clip(got.astype(np.longdouble), -end, end), np.clip(wanted, -end, end)
    exponent = np.clip(np.frexp(wanted)[1] - 1, info.minexp, info.maxexp - 1)
    return np.abs(got - wanted) / np.ldexp(np.longdouble(1), exponent - info.nmant)


def points(name, dtype):
    """Dense random numbers of every size and in the ranges that matter; edges with their neighbours."""
    rng = np.random.default_rng(len(name))
    info = np.finfo(dtype)
    n = 20_000
    end = 1.05 * np.log(2.0) * info.maxexp
    sized = np.ldexp(rng.uniform(1, 2, n), rng.integers(info.minexp, info.maxexp, n))
    denormal = rng.uniform(0, 1, n) * float(info.tiny)
    x = np.concatenate([rng.uniform(0, end, n), rng.uniform(0, 22, n), rng.uniform(0, 1, n), sized, denormal])
    x = np.concatenate([x, -x, rng.uniform(0.5, 2, n), 1 + rng.normal(0, 1e-3, n)]).astype(dtype)
    steps = np.arange(-1080, 1081) * np.log(2.0) / 2  # where one n becomes the next; of log: elsewhere
    edges = np.concatenate([steps, steps / 2, 2.0 ** np.arange(-30, 31) * 0.5**0.5, 2.0 ** np.arange(-126, 128)])
    edges = np.concatenate([edges, edges - 1, -edges, [0.625]]).astype(dtype)
    near = [np.nextafter(edges, dtype(sign * INF)) for sign in (1, -1)]
    x = np.concatenate([x, edges, *near, [info.max, -info.max, info.tiny, info.smallest_subnormal]]).astype(dtype)
    return x[x > {"log": 0, "log1p": -1}.get(name, -INF)]


@over_flags
@over_dtypes
@over_functions
def test_error_is_a_few_units_in_the_last_place(name, dtype, flags):
    if np.finfo(np.longdouble).nmant < 60 and dtype == np.float64:
        pytest.skip("the longdouble of this machine is no better than float64")
    x = points(name, dtype)
    y = evaluate(name, x, flags)
    with np.errstate(all="ignore"):
        wanted = getattr(vector_math, name)(x.astype(np.longdouble))
    if name == "sigmoid":  # its far end may be flushed to 0
        tail = wanted < np.finfo(dtype).tiny
        assert np.all((y[tail] >= 0) & (y[tail] <= np.finfo(dtype).tiny))
        x, y, wanted = x[~tail], y[~tail], wanted[~tail]
    error = ulp_error(y, wanted)
    worst = np.argmax(np.where(np.isnan(error), INF, error))
    bound = BOUND_OF_SINGLE_TANH if (name, dtype) == ("tanh", np.float32) else BOUNDS[name]
    assert error[worst] <= bound, f"{name}({x[worst]!r}) = {y[worst]!r}, not {wanted[worst]!r}"


@over_flags
@over_dtypes
@over_functions
def test_ends(name, dtype, flags):
    x, wanted = np.array([*ENDS[name], (NAN, NAN), (-NAN, NAN)], dtype).T.copy()
    # Again and again, so that each number is met in a vector and in the rest after the last one.
    for shift in range(x.size):
        y = evaluate(name, np.roll(np.tile(x, 9), shift), flags)
        np.testing.assert_array_equal(y, np.roll(np.tile(wanted, 9), shift))
    if flags == PLAIN:  # "nsz" gives the sign of zero away
        number = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(evaluate(name, x))[number], np.signbit(wanted)[number])


@over_dtypes
def test_smallest_numbers_are_their_own_values(dtype):
    x = np.array([np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny, 1e-30], dtype)
    for name in ("tanh", "expm1", "log1p"):
        np.testing.assert_array_equal(evaluate(name, x), x)
        np.testing.assert_array_equal(evaluate(name, -x), -x)


@over_dtypes
@over_functions
def test_loop_is_vectorised(name, dtype):
    evaluate(name, np.zeros(1, dtype))
    compiled = loop(name, PLAIN)
    (signature,) = [s for s in compiled.signatures if s[0].dtype == numba.from_dtype(np.dtype(dtype))]
    text = compiled.inspect_llvm(signature)
    scalar = {np.float32: "float", np.float64: "double"}[dtype]
    assert re.search(rf"= fmul [a-z ]*<\d+ x {scalar}>", text)
    called = {n.removeprefix("llvm.").split(".")[0] for n in re.findall(r'^declare [^@\n]*@"?([\w.$]+)', text, re.M)}
    assert "fabs" in called or name not in ("tanh", "expm1", "log1p"), "the list of what is called is no such list"
    library = ("exp", "exp2", "expm1", "log", "log1p", "log2", "tanh", "pow", "ldexp", "frexp", "rint", "round", "fma")
    assert not called & {n + suffix for n in library for suffix in ("", "f")}
    if dtype == np.float32:
        assert "x double>" not in text and "fpext" not in text


@over_dtypes
def test_constant_takes_the_type_of_x(dtype):
    @numba.njit
    def tenth(x):
        return vector_math.like(x, 0.1), vector_math.like(x, 3)

    assert tenth(dtype(7)) == (float(dtype(0.1)), 3.0)
    assert tenth.nopython_signatures[0].return_type == numba.types.UniTuple(numba.from_dtype(np.dtype(dtype)), 2)


def test_other_types_are_refused():
    with pytest.raises(numba.TypingError):
        numba.njit(lambda x: vector_math.exp(x))(1)
