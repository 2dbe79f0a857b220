"""Every barrier of the fused kernel is there and is needed: ThreadSanitizer on a real thread for each of a block's."""

from __future__ import annotations

import os

import pytest
import races
from fused_case import Case

from gpubp.backend.cuda.fused import plan

pytestmark = pytest.mark.skipif(races.why_not() is not None, reason=str(races.why_not()))
full = pytest.mark.skipif(os.environ.get("GPUBP_FULL") != "1", reason="takes minutes: GPUBP_FULL=1")

CASE = Case((13, 7, 5, 3), "silu", "softmax", weighted=True, held=True, m=150)
# by how a strip's warps meet: one warp (__syncwarp), all of the block (__syncthreads), some (a named barrier)
CUTS = {
    "warp": {"tile": 32, "bands": 1, "warps": 2},
    "block": {"tile": 16, "bands": 1, "warps": 2},
    "named": {"tile": 32, "bands": 1, "warps": 4},
}
PLANNED = {name: plan(CASE.task, **cut) for name, cut in CUTS.items()}
REMOVED = [(name, i, line) for name in CUTS for i, (line, _) in enumerate(races.barriers(PLANNED[name]))]
SHORT = ("await_copies", "rows have come", "meet_crew")  # the first of each, in the default tests


def test_barriers_are_found():
    """A copy's wait, one __syncthreads a tile, two or one a layer's gradient, and the crew's own."""
    for planned in PLANNED.values():
        found = [line.split("(")[0] for line, _ in races.barriers(planned)]
        assert (found.count("await_copies"), found.count("__syncthreads"), found.count("meet_crew")) == (1, 7, 5)


@pytest.mark.parametrize("with_gradient", [True, pytest.param(False, marks=full)])
@pytest.mark.parametrize("cut", ["warp", "named", pytest.param("block", marks=full)])
def test_no_races(cut, with_gradient, tmp_path):
    assert not races.found(tmp_path, CASE, PLANNED[cut], PLANNED[cut].kernel, with_gradient)


@full
@pytest.mark.parametrize("precision", ["bf16", "tf32x3"])
def test_no_races_in_other_precisions(precision, tmp_path):
    case = Case((13, 40, 20, 3), "tanh", "logistic", precision, weighted=True, held=True, m=90)
    planned = plan(case.task, tile=32, bands=1, warps=4)
    assert not races.found(tmp_path, case, planned, planned.kernel, True)


@pytest.mark.parametrize(
    ("cut", "index"),
    [
        pytest.param(cut, i, id=f"{cut} {line}", marks=() if cut == "warp" and any(s in line for s in short) else full)
        for short in [{s: next(line for _, _, line in REMOVED if s in line) for s in SHORT}.values()]
        for cut, i, line in REMOVED
    ],
)
def test_a_missing_barrier_is_a_race(cut, index, tmp_path):
    planned = PLANNED[cut]
    assert races.found(tmp_path, CASE, planned, races.barriers(planned)[index][1], True)
