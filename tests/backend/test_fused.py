"""The fused kernel's text, run on the CPU, against backpropagation in float64; and what its bits do not depend on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from fused_case import Case, Launcher, errors
from host_program import COMPILER, HostPrograms

from gpubp import activation, cost
from gpubp.backend.cuda import fused
from gpubp.errors import BackendError

FULL = os.environ.get("GPUBP_FULL") == "1"
full = pytest.mark.skipif(not FULL, reason="takes minutes: GPUBP_FULL=1")

# relative errors of a leaf's gradient sums and cost sums
MOST = {"tf32": (2e-3, 1e-3), "tf32x3": (2e-6, 2e-6), "bf16": (3e-2, 1e-2)}

CASES = [
    Case((28, 64, 64, 1), m=333, leaves=3),
    Case((28, 64, 64, 1), "relu", precision="tf32x3", m=150),
    Case((28, 64, 64, 1), "sigmoid", precision="bf16", m=150, weighted=True, held=True),
    Case((400, 25, 10), "sigmoid", m=79, leaves=2),
    Case((400, 25, 10), "tanh", "softmax", "tf32x3", m=39, leaves=1),
    Case((400, 25, 10), "tanh", "softmax", "bf16", stored="u1", m=39, leaves=1),
    Case((13, 7, 5, 3), "sigmoid", "sigmoid_squares", labels="f8", held=True),
    Case((13, 7, 5, 3), "tanh", "softmax", "bf16", labels="f4", stored="f2", weighted=True),
    Case((13, 7, 5, 3), "relu", "squares", labels="f4", stored="f8"),
    Case((13, 7, 5, 3), "leaky_relu", "softmax", stored="u1", weighted=True, held=True),
    Case((13, 7, 5, 3), "softplus", "logistic", "tf32x3", labels="u1", stored="i2", standardised=True),
    Case((13, 7, 5, 3), "silu", "softmax", "tf32x3", stored="f8", standardised=True, weighted=True, held=True),
    Case((13, 7, 5, 3), "gelu", "sigmoid_squares", "bf16", stored="f4", standardised=True, held=True),
    Case((13, 7, 5, 3), "identity", "squares", labels="f4", weighted=True),
    Case((13, 3), cost="softmax", precision="tf32x3", stored="i1", m=100, leaves=4),
    Case((13, 1), "silu", labels="f4", stored="f2"),
    Case((3, 100, 20), "silu", "softmax", m=70, leaves=4),
    Case((784, 25, 10), "tanh", "softmax", stored="u1", m=40, leaves=2),
]
# an activation or a cost that is added runs without another word
CASES += [Case((13, 7, 5, 3), g) for g in activation.names() if g not in {case.activation for case in CASES}]
CASES += [Case((13, 7, 5, 3), cost=J) for J in cost.names() if J not in {case.cost for case in CASES}]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostPrograms]:
    if COMPILER is None:
        pytest.skip("no C++ compiler (g++ or clang++)")
    yield HostPrograms(tmp_path_factory.mktemp("fused"))


def name(case: Case) -> str:
    sizes = "-".join(map(str, case.sizes))
    return f"{sizes} {case.activation} {case.cost} {case.precision} {case.stored} {case.labels or 'codes'}"


def check(programs: HostPrograms, case: Case, **only: int) -> None:
    planned = fused.plan(case.task, **only)
    arrays, launcher = case.draw(), Launcher(programs, case, planned)
    launcher.run(arrays)
    gradient, cost_sums = errors(launcher, case.wanted(arrays))
    # a unit whose z is within rounding of a kink takes the other side's slope: one row of few is noticed
    kinked = case.activation in ("relu", "leaky_relu") and case.precision != "tf32x3"
    assert gradient <= (0.1 if kinked else MOST[case.precision][0]) and cost_sums <= MOST[case.precision][1]
    gaps = np.ones(planned.P, bool)
    W, b = case.network.views(gaps)
    for part in (*W[1:], *b[1:]):
        part[...] = False
    assert not launcher.partials[:, gaps].any()  # NaN before the launch
    if not case.held:
        assert not launcher.costs[:, 1].any()


@pytest.mark.parametrize("case", CASES, ids=name)
def test_sums_equal_backpropagation(case, programs):
    check(programs, case)


@full
@pytest.mark.parametrize("precision", MOST)
@pytest.mark.parametrize("J", cost.names())
@pytest.mark.parametrize("g", activation.names())
def test_every_activation_with_every_cost(g, J, precision, programs):
    labels = "f4" if J == "squares" else None
    check(programs, Case((13, 7, 5, 3), g, J, precision, labels=labels, weighted=True, held=True))
    check(programs, Case((11, 33, 17, 40, 2), g, J, precision, labels=labels, m=70))


@full
@pytest.mark.parametrize("precision", MOST)
@pytest.mark.parametrize("stored", "?bBhHiIlLefd")
def test_every_stored_type(stored, precision, programs):
    for standardised in (False, True):
        check(programs, Case((13, 7, 3), "tanh", "softmax", precision, stored, standardised=standardised, m=70))
    check(programs, Case((13, 7, 3), "tanh", "logistic", precision, labels=stored, m=70))


CUTS = [(tile, bands, warps) for tile in (16, 32, 64, 128) for bands in (1, 2) for warps in (1, 2, 4, 8, 12)
        if tile % (16 * bands) == 0 and warps % (tile // 16 // bands) == 0]  # fmt: skip


@pytest.mark.parametrize(
    ("tile", "bands", "warps"),
    [pytest.param(*cut, marks=() if cut in [(64, 2, 4), (32, 1, 12)] else full) for cut in CUTS],
)
def test_every_cut_gives_the_sums(tile, bands, warps, programs):
    """However the work is cut; three or twelve warps of a strip are no power of two."""
    for precision in MOST if FULL else ("tf32",):
        case = Case((13, 40, 24, 9), "silu", "softmax", precision, m=150, weighted=True)
        check(programs, case, tile=tile, bands=bands, warps=warps)


SMALL = Case((13, 7, 5, 3), "silu", "softmax", "tf32x3", weighted=True, held=True, m=1500, leaves=4)


@pytest.fixture(scope="module")
def small(programs):
    """A network, its rows and the kernel's sums in one launch of one block."""
    planned = fused.plan(SMALL.task, tile=32)
    arrays, launcher = SMALL.draw(), Launcher(programs, SMALL, planned)
    launcher.run(arrays)
    return planned, arrays, launcher


def same(a: Launcher, b: Launcher) -> bool:
    return a.partials.tobytes() == b.partials.tobytes() and a.costs.tobytes() == b.costs.tobytes()


@pytest.mark.parametrize("blocks", [2, 3, 4, 7])
def test_the_grid_changes_no_bit(blocks, small, programs):
    planned, arrays, whole = small
    launcher = Launcher(programs, SMALL, planned)
    launcher.run(arrays, blocks)
    assert same(launcher, whole)


def test_leaves_may_be_launched_apart(small, programs):
    planned, arrays, whole = small
    launcher = Launcher(programs, SMALL, planned)
    for first, last in ((2, 4), (0, 1), (1, 2)):
        launcher.run(arrays, 2, first_leaf=first, last_leaf=last)
    assert same(launcher, whole)


@pytest.mark.parametrize("parts", [1, 2])
def test_leaves_cut_into_launches_with_staged_rows_give_the_same_bits(parts, small, programs):
    """As rows stream from the host: one leaf after the other, its rows from a buffer that starts at some row of it."""
    planned, arrays, whole = small
    launcher = Launcher(programs, SMALL, planned)
    step, m, n = parts * planned.part_rows, SMALL.m, SMALL.leaves
    for leaf in range(n):
        first, end = leaf * m // n, (leaf + 1) * m // n
        # the last launch has no rows of this leaf
        for start in range(0, end - first + step, step):
            row = min(first + start, end)
            # as in the middle of a larger buffer, where nothing is aligned
            staged = np.concatenate([np.full((3, 13), np.nan, np.float32), arrays["x"][row : row + step]])[3:]
            changed = {"first_leaf": leaf, "last_leaf": leaf + 1, "from": start, "to": start + step, "x_row": row}
            launcher.run({**arrays, "x": staged}, keep=int(start > 0), **changed)
    assert same(launcher, whole)


def test_all_leaves_may_be_cut_at_once(small, programs):
    """The leaves' rows in two launches of all leaves: what is resident, and then again from where it left off."""
    planned, arrays, whole = small
    launcher = Launcher(programs, SMALL, planned)
    launcher.run(arrays, 3, to=planned.part_rows)
    launcher.run(arrays, 2, keep=1, **{"from": planned.part_rows})
    assert same(launcher, whole)


def test_long_leaves_are_passed_on_by_parts(programs):
    case = Case((5, 3, 1), m=4500, leaves=2, precision="tf32")
    planned = fused.plan(case.task)
    assert planned.part_rows == 2048
    check(programs, case)


def test_costs_alone(small, programs):
    planned, arrays, whole = small
    launcher = Launcher(programs, SMALL, planned)
    launcher.run(arrays, 2, with_gradient=False)
    assert launcher.costs.tobytes() == whole.costs.tobytes()
    assert np.isnan(launcher.partials).all()  # untouched


def test_more_leaves_than_rows(programs):
    check(programs, replace(SMALL, m=5, leaves=8))


def test_rows_beyond_the_end_are_nothing(small, programs):
    """Neither the rows that follow a leaf, nor what lies in the memory behind the last, however bad they are."""
    planned, arrays, whole = small
    bad = {key: None if array is None else np.array(array) for key, array in arrays.items()}
    m, n = SMALL.m, SMALL.leaves
    others = np.ones(m, bool)
    others[m // n : 2 * m // n] = False
    bad["x"][others], bad["labels"][others], bad["w"][others] = np.nan, -5, np.inf
    launcher = Launcher(programs, SMALL, planned)
    launcher.run(bad, first_leaf=1, last_leaf=2)
    assert launcher.partials[1].tobytes() == whole.partials[1].tobytes()
    assert launcher.costs[1].tobytes() == whole.costs[1].tobytes()


def test_a_row_of_weight_zero_costs_nothing(small, programs):
    planned, arrays, _ = small
    bad = {**arrays, "x": arrays["x"].copy(), "w": np.zeros_like(arrays["w"]), "v": np.zeros_like(arrays["v"])}
    bad["x"][7] = np.inf
    launcher = Launcher(programs, SMALL, planned)
    launcher.run(bad, with_gradient=False)
    assert not launcher.costs.any()


def test_a_misaligned_first_row(programs):
    """Rows of 13 bytes start anywhere; so may the first, and the labels and weights."""
    case = Case((13, 5, 2), "tanh", "softmax", stored="u1", weighted=True, m=90)
    planned = fused.plan(case.task)
    arrays, launcher = case.draw(), Launcher(programs, case, planned)
    whole = Launcher(programs, case, planned)
    whole.run(arrays)
    for off in (1, 7, 15):
        memory = np.full(arrays["x"].nbytes + 64, 0xFF, np.uint8)
        start = -memory.ctypes.data % 16 + 16 + off
        memory[start : start + arrays["x"].nbytes] = arrays["x"].ravel()
        launcher.run({**arrays, "x": memory[start:]})
        assert same(launcher, whole)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": (28, 129, 1)}, "129 units"),
        ({"sizes": (28, 64, 200)}, "200 units"),
        ({"sizes": (5000, 10, 1)}, "bytes of shared memory"),
        ({"sizes": (128, 128, 128, 128, 128)}, "wanted"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(changes, words):
    with pytest.raises(BackendError, match=words):
        fused.plan(replace(Case((28, 64, 1)), **changes).task)


def test_types_that_cannot_be_read_are_refused():
    task = Case((5, 3, 1)).task
    with pytest.raises(BackendError, match="f4"):
        fused.plan(replace(task, stored=np.dtype(">f4")))
    with pytest.raises(BackendError, match="integers"):
        fused.plan(replace(task, labels=np.dtype("f4")))


BREAKS = {
    "a flush that forgets what was there": ("before[j][q] + sum[i][j][q]", "sum[i][j][q]"),
    "no mask of x": ("row < live && column + q < FEATURES", "column + q < FEATURES"),
    "no mask of the output": ("    if (row < live) {\n      const float s", "    if (true) {\n      const float s"),
    "a sign": ("d = w * (h - y)", "d = w * (h + y)"),
    "the other neighbour": ("row[place(column) + 4] = operand(second)", "row[place(column) + 4] = operand(first)"),
    "no bias": ("activated(z0, b0)", "activated(z0, 0)"),
    "half the bias sums": ("bias[i][q & 1] += as_float(left[i][q]);", "bias[i][0] += as_float(left[i][q]);"),
    "one product of three": ("multiply_tf32(sum[i][FROM + j], low_left[i], high_right[j])", "(void)0"),
    "no validation weights": ("costs.validation += cell_cost(s, y_k, v[row])", "costs.validation += 0"),
    "no wait": ("  await_copies();\n", ""),
    "the slope of z alone": ("sloped(e0, kept[0], b[column])", "sloped(e0, kept[0], 0)"),
    "gaps left alone": ("leaf_sums[i] = 0;", ";"),
}


@pytest.mark.parametrize(
    "broken", [pytest.param(b, marks=() if i < 2 else full) for i, b in enumerate(BREAKS)], ids=list(BREAKS)
)
def test_a_broken_kernel_is_noticed(broken, programs):
    """Or the tests above would prove nothing: on leaves of several parts, and on leaves shorter than a tile."""
    long = Case((13, 20, 5, 3), "silu", "softmax", "tf32x3", weighted=True, held=True, m=700, leaves=2)
    planned = fused.plan(long.task, tile=32)
    old, new = BREAKS[broken]
    assert old in planned.kernel.body
    kernel = planned.kernel._replace(body=planned.kernel.body.replace(old, new))
    wrong = []
    for case in (long, replace(long, m=20)):
        arrays, launcher = case.draw(), Launcher(programs, case, replace(planned, kernel=kernel))
        launcher.run(arrays)
        gradient, cost_sums = errors(launcher, case.wanted(arrays))
        wrong.append(not (gradient <= MOST["tf32x3"][0] and cost_sums <= MOST["tf32x3"][1]))
    assert any(wrong)
