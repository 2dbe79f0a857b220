"""A formula's steps: what a reference does when it is handed symbols instead of arrays."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from gpubp import activation, cost
from gpubp.errors import BackendError
from gpubp.formula import Formula
from gpubp.trace import Recorder, Symbol, needed

COLUMNS_OF = {
    "b": (False, True),
    "mu": (False, True),
    "sigma": (False, True),
    "k": (False, True),
    "label": (True, False),
}


@pytest.fixture
def xp() -> Recorder:
    return Recorder()


def operations(recorder: Recorder) -> list[str]:
    return [step.operation for step in recorder.steps]


def test_operations_are_recorded_in_order_with_their_operands(xp):
    z, b = xp.input("z", "f4"), xp.input("b", "f4", (False, True))
    a = 1 / (1 + xp.exp(-(z + b)))
    assert operations(xp) == ["input", "input", "add", "negative", "exp", "add", "divide"]
    inner, negative, power, sum_, quotient = xp.steps[2:]
    assert inner.operands == (z.step, b.step) and negative.operands == (inner,)
    assert sum_.operands == (1, power) and quotient.operands == (1, sum_) and a.step is quotient
    assert [step.name for step in xp.steps] == ["z", "b", "", "", "", "", ""]


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power", "less", "maximum", "equal"])
@pytest.mark.parametrize(("left", "right"), [*product(["?", "u1", "i4", "i8", "f2", "f4", "f8"], repeat=2)])
def test_types_are_numpys_own(xp, name, left, right):
    a, b = xp.input("a", left), xp.input("b", right)
    try:
        with np.errstate(all="ignore"):
            wanted = getattr(np, name)(np.ones(3, left), np.ones(3, right)).dtype
    except TypeError:  # truth minus truth
        with pytest.raises(TypeError):
            getattr(xp, name)(a, b)
        return
    assert getattr(xp, name)(a, b).dtype == wanted


@pytest.mark.parametrize("stored", ["u1", "i4", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize("number", [2, 0.5, float("inf")])
def test_a_python_number_takes_the_type_of_what_it_meets(xp, stored, number):
    z, array = xp.input("z", stored), np.ones(3, stored)
    for operation in (lambda v: v * number, lambda v: number + v, lambda v: v < number):
        assert operation(z).dtype == operation(array).dtype
    assert xp.where(z > 0, z, number).dtype == np.where(array > 0, array, number).dtype
    assert xp.exp(z).dtype == np.exp(array).dtype


@pytest.mark.parametrize("number", [True, np.float32(2), np.float64(2), np.int32(2), np.bool_(True)])
def test_truth_and_a_number_of_numpys_keep_their_type(xp, number):
    for stored in ("?", "u1", "f4", "f8"):
        z, array = xp.input("z", stored), np.ones(3, stored)
        assert (z * number).dtype == (number * z).dtype == (array * number).dtype
        assert xp.maximum(z, number).dtype == np.maximum(array, number).dtype


def test_the_types_of_the_operands_are_those_of_numpys_loop(xp):
    x, mu = xp.input("x", "u1"), xp.input("mu", "f8", (False, True))
    step = (x - mu).step
    assert step.loop == (np.dtype("f8"), np.dtype("f8")) and step.dtype == np.dtype("f8")
    step = (x == xp.input("k", "i4")).step
    assert step.loop == (np.dtype("i4"), np.dtype("i4")) and step.dtype == np.dtype("?")
    step = xp.where(x > 0, xp.input("z", "f4"), 0).step
    assert step.loop == (np.dtype("?"), np.dtype("f4"), np.dtype("f4")) and step.dtype == np.dtype("f4")


def test_every_operator_is_the_ufunc_of_that_name(xp):
    z, b, c = xp.input("z", "f8"), xp.input("b", "f8"), xp.input("c", "?")
    for symbol, name, operands in (
        (z - b, "subtract", (z, b)), (2 - z, "subtract", (2, z)), (z / b, "divide", (z, b)), (1 / z, "divide", (1, z)),
        (z**2, "power", (z, 2)), (2**z, "power", (2, z)), (-z, "negative", (z,)), (abs(z), "absolute", (z,)),
        (xp.abs(b), "absolute", (b,)), (z < b, "less", (z, b)), (z <= 1, "less_equal", (z, 1)),
        (z > b, "greater", (z, b)), (z >= 1, "greater_equal", (z, 1)), (z == b, "equal", (z, b)),
        (z != 1, "not_equal", (z, 1)), (~c, "invert", (c,)),
        ((z < 7) & c, "bitwise_and", (z < 7, c)), (c | (z < 7), "bitwise_or", (c, z < 7)), (xp.tanh(z), "tanh", (z,)),
    ):  # fmt: skip
        assert symbol.step.operation == name
        assert symbol.step.operands == tuple(o.step if isinstance(o, Symbol) else o for o in operands)


def test_equal_steps_are_recorded_once(xp):
    z, b = xp.input("z", "f4"), xp.input("b", "f4")
    first, count = (z + b) * xp.exp(z + b), len(xp.steps)
    assert count == 5
    assert ((z + b) * xp.exp(z + b)).step is first.step and len(xp.steps) == count
    # what differs is not taken for the same
    assert len({id(s.step) for s in (z + b, b + z, z - b, z + 1, z + 1.0, z * 2, z * 3)}) == 7
    assert z.astype("f4") is z and z.astype("f8").step is not z.astype("i4").step
    assert len({id(xp.input("z", "f4").step) for _ in range(2)} | {id(z.step)}) > 1


def test_zero_and_minus_zero_are_two_numbers(xp):
    z = xp.input("z", "f8")
    assert xp.where(z > 0, 0.0, z).step is not xp.where(z > 0, -0.0, z).step


def test_a_step_has_rows_and_columns_as_its_operands_have(xp):
    full, row, column = xp.input("z", "f4"), xp.input("b", "f4", (False, True)), xp.input("w", "f4", (True, False))
    assert (row + 1).step.shape == (False, True) and (column * 2.0).step.shape == (True, False)
    assert (full + row).step.shape == (row * column).step.shape == (True, True)
    assert full.max(axis=1, keepdims=True).step.shape == (True, False)
    assert row.sum(axis=1, keepdims=True).step.shape == (False, False)
    assert (full - full.max(axis=1, keepdims=True)).step.shape == (True, True)
    assert xp.where(column > 0, 1.0, row).step.shape == (True, True)


@pytest.mark.parametrize("weight", [1.0, 2.5, 0.0])
def test_what_a_number_decides_is_decided_at_once(xp, weight):
    """Rows without weights have the number 1 for them: `w == 0` and all that hangs on it is gone."""
    z, y = xp.input("z", "f4"), xp.input("y", "f4")
    zero = weight == 0
    kept = (weight == 0) | (y == 0)
    assert kept is True if zero else kept.step is (y == 0).step
    both = (y == 0) & (weight == 1)
    assert both.step is (y == 0).step if weight == 1 else both is False
    chosen = xp.where(zero, 0.0, z)
    assert chosen == 0.0 if zero else chosen is z
    assert "where" not in operations(xp) and "bitwise_or" not in operations(xp)


def test_numbers_among_themselves_are_a_number(xp):
    assert xp.maximum(2, 3.0) == 3.0 and type(xp.maximum(2, 3.0)) is float
    assert xp.exp(0.0) == 1.0 and xp.where(xp.less(1, 2), 5, 6) == 5
    assert not xp.steps


@pytest.mark.parametrize("c", cost.names())
def test_a_weight_of_one_leaves_no_trace_in_a_cost(c):
    """A row without weight costs a multiplication less; the weighted one is still there."""
    J = cost.cost(c)
    counts = []
    for weighted in (True, False):
        xp = Recorder()
        s, y, w = (xp.input(name, "f4") for name in "syw")
        result = J.cell(xp, s, y, w if weighted else 1.0)
        steps = needed(xp, [result.step, J.delta(xp, xp.exp(s), y, w if weighted else 1.0).step])
        assert (w.step in steps) == weighted
        counts.append(len(steps))
    assert counts[1] <= counts[0] - 3


def test_an_if_on_a_value_is_refused_in_one_line(xp):
    z = xp.input("z", "f4")
    for question in (
        lambda: 1 if z > 0 else 2,
        lambda: z > 0 and z < 1,
        lambda: 0 < z < 1,
        lambda: not z,
        lambda: max(z, 0),
    ):
        with pytest.raises(BackendError, match=r"an `if` on a value in a formula; wanted xp\.where") as caught:
            question()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["expp", "clip", "softmax", "pi", "sum", "float32", "linalg"])
def test_what_is_no_ufunc_is_refused_by_name(xp, name):
    with pytest.raises(BackendError, match=rf"^xp\.{name} in a formula; wanted a ufunc of NumPy, or xp\.where$"):
        getattr(xp, name)


def test_reductions_go_along_a_row_and_keep_it(xp):
    z = xp.input("z", "f4")
    for operation in (z.max, z.sum):
        for arguments in (
            {},
            {"axis": 1},
            {"axis": 0, "keepdims": True},
            {"axis": -1, "keepdims": True},
            {"keepdims": True},
        ):
            with pytest.raises(BackendError, match=r"row_(max|sum) over axis .*; wanted axis=1, keepdims=True"):
                operation(**arguments)
    assert (z.max(axis=1, keepdims=True).step.operation, z.sum(axis=1, keepdims=True).step.operation) == (
        "row_max",
        "row_sum",
    )
    assert z.sum(axis=1, keepdims=True).dtype == np.dtype("f4")


def test_needed_leaves_out_what_leads_nowhere(xp):
    z, b, e = (xp.input(name, "f4") for name in "zbe")
    wanted, other = xp.exp(z + b), e * 2
    assert [step.operation for step in needed(xp, [wanted.step])] == ["input", "input", "add", "exp"]
    assert needed(xp, [wanted.step, other.step]) == xp.steps
    assert needed(xp, [z.step]) == [z.step]


@pytest.mark.parametrize("formula", Formula.all[:], ids=lambda f: f.name)
def test_every_formula_is_recorded_with_the_type_that_numpy_gives(formula):
    assert activation.names() and cost.names()  # they are imported, so their formulas are listed
    fixed = {"double": "f8", "int": "i4"}
    for T, S in product(("f4", "f8"), ("u1", "f2", "f4", "f8", "i8")):
        xp = Recorder()
        dtypes = [fixed.get(a.type, T if a.type == "T" else S) for a in formula.inputs]
        shapes = [COLUMNS_OF.get(a.name, (True, True)) for a in formula.inputs]
        symbols = [xp.input(a.name, d, s) for a, d, s in zip(formula.inputs, dtypes, shapes, strict=True)]
        arrays = [np.ones([3 if many else 1 for many in s], d) for d, s in zip(dtypes, shapes, strict=True)]
        with np.errstate(all="ignore"):
            wanted = np.asarray(formula(np, *arrays))
        found = formula(xp, *symbols).step
        assert found.dtype == wanted.dtype
        assert found.shape == tuple(n > 1 for n in wanted.shape)
