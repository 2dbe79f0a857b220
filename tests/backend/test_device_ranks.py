"""Ranks with a device each: the same bits as one, by the host's memory and by NCCL; on the CPU, and on GPUs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nccl_on_host
import numpy as np
import pytest
from devices import gpu
from gpu_on_host import GpuOnHost
from host_program import COMPILER
from test_engine import UNSCALED, rows_of, theta
from thread_ranks import on_ranks

import gpubp
from gpubp import optimizers
from gpubp.backend import ranks as placing
from gpubp.backend.numpy import NumpyBackend
from gpubp.backend.ranks import connect, leaves_of
from gpubp.communicator import Solo, top
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.errors import DataError, OtherRankFailed, OutOfMemory
from gpubp.objective import Objective
from gpubp.training import fit
from gpubp.tree import cover, depth_first, leaf_rows, leaves_below

SIZES = [1, 2, 3, 4, 7]
NETWORK = gpubp.Network((5, 6, 3))
WAYS = ["host", "nccl", "nccl in slices"]
KERNELS = {
    "layered": ("fp32", {"leaves": 16, "block_rows": 20}),  # 25 rows of a leaf, in two blocks
    "fused": ("tf32", {"leaves": 64}),
}
emulated = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++)")


class OwnRows(ArrayRows):
    """Of which one rank's alone may be read."""

    def __init__(self, X: np.ndarray, first: int, until: int) -> None:
        super().__init__(X)
        self.own, self.broken = (first, until), False

    def read(self, start: int, stop: int, out: np.ndarray) -> None:
        assert self.own[0] <= start and stop <= self.own[1]
        if self.broken:
            raise DataError(f"rows {start} to {stop - 1} cannot be read")
        super().read(start, stop, out)


def own_rows(ranks: Any, leaves: int, kept: int = 1 << 30, m: int = 400, scaling: Scaling = UNSCALED) -> Rows:
    """The rows of this rank's leaves; at most `kept` of them are in memory."""
    whole = rows_of(NETWORK, m, held=True, scaling=scaling)
    first, until = (leaf_rows(leaf, leaves, m)[0] for leaf in ranks.own(leaves))
    X = np.asarray(whole.kept)
    source = OwnRows(X, first, until)
    y, w, v = whole.labels, whole.weights, whole.validation
    return Rows(source, source.array[first:until][:kept], scaling, y, w, v, first=first, until=until)


def joined(ranks: Any, backend: GpuOnHost, way: str) -> Any:
    """The ranks, having found how sums go between their devices."""
    if way == "host":
        backend.place = "the only GPU"
    if ranks.size > 1:
        assert ("NCCL" in connect(ranks, backend)) == (way != "host")
    return ranks


def objective(ranks: Any, folder: Path, kernel: str, way: str = "host", **more: Any) -> Objective:
    precision, plan = KERNELS[kernel]
    backend = GpuOnHost(folder, kernel)
    backend.room = more.pop("room", 1 << 60)
    rows = more.pop("rows", None) or own_rows(ranks, plan["leaves"])
    return Objective(
        NETWORK, rows, 0.3, backend=backend, precision=precision, communicator=joined(ranks, backend, way), **plan
    )


def evaluated(made: Objective) -> tuple[Any, ...]:
    """J, the validation cost and ∇J, of Θ on the device and on the host; J alone is the same."""
    found, gradient = set(), np.zeros(NETWORK.P)
    vectors = made.vectors
    Theta, slopes = vectors.zeros(NETWORK.P), vectors.zeros(NETWORK.P)
    vectors.put(theta(NETWORK), Theta)
    for _ in range(2):  # the second time as it was recorded
        J = made.value_and_gradient(Theta, slopes)
        found.add((float(J), made.validation_cost, vectors.to_host(slopes).tobytes()))
    J = made.value_and_gradient(theta(NETWORK), gradient)
    found.add((J, made.validation_cost, gradient.tobytes()))
    assert J == made.value(theta(NETWORK)) == float(made.value(Theta))
    made.close()
    assert len(found) == 1
    return found.pop()


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "nccl in slices":
        monkeypatch.setattr(top, "SMALL", 0)
    return request.param


@emulated
@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize("kernel", KERNELS)
def test_J_and_its_gradient_have_the_bits_of_one_rank(folder, kernel, way):
    wanted = evaluated(objective(Solo(), folder, kernel))
    for size in SIZES:
        found = on_ranks(size, lambda ranks: evaluated(objective(ranks, folder, kernel, way)))
        assert found == [wanted] * size


@emulated
@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_that_do_not_stay_on_the_device_change_no_bit(folder, kernel):
    leaves = KERNELS[kernel][1]["leaves"]
    wanted = evaluated(objective(Solo(), folder, kernel))
    for kept, room in [(1 << 30, 77 * 20), (50, 1 << 60), (0, 0)]:

        def work(ranks: Any, kept: int = kept, room: int = room) -> Any:
            made = objective(ranks, folder, kernel, rows=own_rows(ranks, leaves, kept), room=room)
            return evaluated(made), made.backend.sent  # type: ignore[attr-defined]

        found = on_ranks(3, work)
        assert [bits for bits, _ in found] == [wanted] * 3 and all(sent for _, sent in found)


@emulated
def test_more_ranks_than_leaves_and_other_rows_than_a_ranks_own_in_memory(folder):
    wanted = evaluated(objective(Solo(), folder, "fused"))

    def misfit(ranks: Any) -> Any:
        """What is in memory begins and ends within other leaves."""
        whole = rows_of(NETWORK, 400, held=True)
        rows = Rows(whole.source, whole.kept[95:233], UNSCALED, whole.labels, whole.weights, whole.validation, first=95)
        return evaluated(objective(ranks, folder, "fused", rows=rows))

    assert on_ranks(2, misfit) == [wanted] * 2
    plan = {"leaves": 2, "block_rows": 30}

    def few(ranks: Any) -> Any:
        backend = GpuOnHost(folder, "layered")
        ranks, rows = joined(ranks, backend, "nccl"), own_rows(ranks, 2)
        return evaluated(Objective(NETWORK, rows, 0.3, backend=backend, communicator=ranks, **plan))

    assert len({*on_ranks(1, few), *on_ranks(5, few)}) == 1


@emulated
@pytest.mark.parametrize("mean", [0.5, 900.0], ids=["folded", "standardised on the way"])
def test_scaled_rows(folder, mean):
    scaling = Scaling("standard", np.full(5, mean), np.linspace(1, 3, 5))
    for kernel in KERNELS:
        leaves = KERNELS[kernel][1]["leaves"]

        def work(ranks: Any, kernel: str = kernel, leaves: int = leaves) -> Any:
            return evaluated(objective(ranks, folder, kernel, "nccl", rows=own_rows(ranks, leaves, scaling=scaling)))

        assert len({*on_ranks(1, work), *on_ranks(3, work)}) == 1


@emulated
@pytest.mark.parametrize(
    ("optimizer", "kernel", "iterations", "sizes"),
    [("klbfgs", "fused", 20, (3,)), ("lbfgs", "layered", 20, (7,)), ("gd", "fused", 20, (2, 4))],
)  # fmt: skip
def test_a_whole_run_ends_at_the_same_theta(folder, monkeypatch, optimizer, kernel, iterations, sizes):
    monkeypatch.setattr(top, "SMALL", 2000)  # sums of ∇J go in slices, those of J do not

    def run(ranks: Any, way: str = "nccl") -> tuple[int, bytes]:
        made = objective(ranks, folder, kernel, way, rows=rows_of(NETWORK, 200, held=True))
        taken = optimizers.make(optimizer, tolerance=0.0)
        ending, state = fit(made, taken, theta(NETWORK), iterations=iterations)
        assert state is not None and ending.kind == "limit", ending
        Theta = state.Theta_on_host.tobytes()
        made.close()
        return state.evaluations, Theta

    wanted = run(Solo())
    for size in sizes:
        assert on_ranks(size, run) == [wanted] * size
    if optimizer == "gd":
        assert on_ranks(3, lambda ranks: run(ranks, "host")) == [wanted] * 3


@emulated
def test_curvature_has_the_bits_of_one_rank_and_is_the_cpus(folder):
    direction = np.random.default_rng(1).normal(size=NETWORK.P)

    def curved(made: Objective) -> list[np.ndarray]:
        out, curvature = np.zeros(NETWORK.P), made.curvature
        curvature.product(theta(NETWORK), direction, out)
        factors = curvature.factors(theta(NETWORK), 0)
        found = [out, curvature.matrix(theta(NETWORK)), *factors.A, *factors.G]
        made.close()
        return found

    def work(ranks: Any) -> list[bytes]:
        # a sample has leaves of its own, so ranks read rows of others there
        return [one.tobytes() for one in curved(objective(ranks, folder, "layered", "nccl", rows=rows))]

    rows, plan = rows_of(NETWORK, 400, held=True), KERNELS["layered"][1]
    on_one = curved(objective(Solo(), folder, "layered", rows=rows))
    exact = curved(Objective(NETWORK, rows, 0.3, backend=NumpyBackend(1), **plan))
    for one, wanted in zip(on_one, exact, strict=True):
        assert np.abs(one - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert on_ranks(3, work) == [[one.tobytes() for one in on_one]] * 3


@emulated
@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_rows_that_one_rank_cannot_read_end_all_before_anything_is_sent(folder, way):
    rank_that_fails = 1

    def work(ranks: Any) -> Any:
        rows = own_rows(ranks, 16, kept=0)
        made = objective(ranks, folder, "layered", way, rows=rows)
        made.value_and_gradient(theta(NETWORK), np.zeros(NETWORK.P))
        nccl_on_host.log.clear()
        rows.source.broken = ranks.rank == rank_that_fails  # type: ignore[attr-defined]
        with pytest.raises(DataError, match=r"^rank 1 on host0: rows \d+ to \d+ cannot be read") as error:
            for _ in range(2):  # one of them may have been on the way already
                made.value_and_gradient(theta(NETWORK), np.zeros(NETWORK.P))
        assert error.value.agreed
        made.close()
        return len([1 for rank, _ in nccl_on_host.log if rank == ranks.rank])

    assert len(set(on_ranks(3, work))) == 1


@emulated
@pytest.mark.parametrize("way", WAYS[1:], indirect=True)
def test_each_pass_waits_for_the_others_by_itself_and_leaves_no_such_wait_behind(folder, way):
    def work(ranks: Any) -> None:
        made = objective(ranks, folder, "layered", way)
        vectors, waits = made.vectors, []
        Theta, slopes = vectors.zeros(NETWORK.P), vectors.zeros(NETWORK.P)
        wait = ranks.link.wait
        ranks.link.wait = lambda done: waits.append((done(), wait(done)))
        for _ in range(3):
            made.value_and_gradient(Theta, slopes)
        assert len(waits) == 3
        made.close()

    on_ranks(2, work)


@emulated
def test_an_error_that_is_not_ours_is_told_too(folder):
    def work(ranks: Any) -> Any:
        made = objective(ranks, folder, "layered", "nccl")
        if ranks.rank == 2:
            made._pass._engine.nodes = lambda *_: 1 / 0
        with pytest.raises((ZeroDivisionError, OtherRankFailed)) as error:
            made.value(theta(NETWORK))
        made.close()
        return str(error.value)

    said = on_ranks(3, work)
    assert said[0] == said[1] == "rank 2 on host1: failed by ZeroDivisionError: division by zero"


@emulated
@pytest.mark.parametrize("way", WAYS[:2], indirect=True)
def test_one_rank_gives_up_rows_and_all_have_the_same_bits(folder, way, caplog):
    wanted = evaluated(objective(Solo(), folder, "layered"))

    def work(ranks: Any) -> Any:
        made = objective(ranks, folder, "layered", way)
        kept, nodes, full = made.resident_rows, made._pass._engine.nodes, [ranks.rank == 1]

        def once(*arguments: Any) -> Any:
            if any(full):
                full.clear()
                raise OutOfMemory("the GPU of the test is full", do="nothing")
            return nodes(*arguments)

        made._pass._engine.nodes = once
        made.value(theta(NETWORK))
        resident = made.resident_rows
        return evaluated(made), kept, resident

    found = on_ranks(3, work)
    assert [bits for bits, *_ in found] == [wanted] * 3 and "62 rows stay there" in caplog.text
    assert [kept // resident for _, kept, resident in found] == [1, 2, 1]


@emulated
def test_steps_are_not_repeated_by_one_rank_alone(folder):
    def work(ranks: Any) -> bool:
        made = objective(ranks, folder, "layered")
        can = made.can_make_room
        made.close()
        return can

    assert on_ranks(1, work) == [True] and on_ranks(2, work) == [False] * 2


@emulated
def test_rows_lie_on_the_device_as_they_would_among_all(folder):
    def addresses(ranks: Any) -> dict[int, int]:
        made = objective(ranks, folder, "layered")
        feed, rows = made._pass.feed, made.rows
        found = {row: feed.resident(row, row + 1).ctypes.data % 256 for row in range(rows.first, rows.until or rows.m)}
        made.close()
        return found

    wanted = addresses(Solo())
    found = on_ranks(3, addresses)
    assert {row: at - wanted[0] for one in found for row, at in one.items()} == {
        row: at - wanted[0] for row, at in wanted.items()
    }


@emulated
def test_the_leaves_of_an_objective_are_known_before_it_is_made(folder):
    for kernel, precision, m in [("auto", "tf32", 900), ("auto", "fp32", 900), ("layered", "tf32", 200_000)]:
        backend = GpuOnHost(folder, kernel)
        backend.choice = {"kernel": kernel}
        rows = rows_of(NETWORK, m, held=True)
        made = Objective(NETWORK, rows, backend=backend, precision=precision)
        assert rows.labels is not None
        about = {"stored": rows.source.dtype, "labels": rows.labels, "weighted": True}
        assert leaves_of(backend, NETWORK, m, precision, **about) == made.leaves
        made.close()
    cpu = NumpyBackend(1)
    assert leaves_of(cpu, NETWORK, 900, "fp32", **about) == cpu.leaves_and_block(900, NETWORK.sizes)[0]


def test_places_of_a_part_of_the_tree_end_as_its_topmost_nodes():
    for leaves in (1, 2, 8, 32):
        for first in range(leaves + 1):
            for stop in range(first, leaves + 1):
                sums: dict[int, list[int]] = {}
                for leaf, (place, added) in zip(range(first, stop), depth_first(first, stop, leaves), strict=True):
                    sums[place] = [leaf]
                    for k in added:
                        sums[k] += sums.pop(k + 1)
                below = [list(range(*leaves_below(index, leaves))) for index in cover(first, stop, leaves)]
                assert [sums[k] for k in sorted(sums)] == below and sorted(sums) == list(range(len(below)))
    assert max(place for place, _ in depth_first(0, 64, 64)) == 6


def test_slices_cover_each_array_once_and_are_alike_but_for_the_last():
    node = [((1000,), np.dtype(np.float32)), ((2,), np.dtype(np.float64))]
    for size in range(1, 9):
        plan = top.Plan(0, size, 64, node)
        for k, (n, dtype) in enumerate(plan.lengths):
            cuts = [cut[k] for cut in plan.cuts]
            assert [i for one in cuts for i in range(one.start, one.stop)] == list(range(n))
            assert all(one.start in (n, r * plan.each[k]) for r, one in enumerate(cuts))
            assert plan.each[k] * dtype.itemsize % top.ALIGN == 0


# Processes.


@pytest.mark.parametrize("where", ["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_processes_that_mpi_connects(folder, tmp_path, where):
    """Where there is one GPU they share it, by way of the host's memory; several have one rank each, and NCCL."""
    pytest.importorskip("mpi4py")
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("no mpiexec")
    size = 3
    if where == "gpu":
        gpu()
        size = placing._seen() if placing._seen() > 1 else 3
    elif COMPILER is None:
        pytest.skip("no C++ compiler (g++ or clang++)")
    program = [sys.executable, str(Path(__file__).parent / "ranks_program.py"), where, str(folder)]
    one = subprocess.run(program, capture_output=True, text=True, timeout=300)
    several = subprocess.run([mpiexec, "-n", str(size), *program], capture_output=True, text=True, timeout=300)
    assert one.returncode == 0, one.stderr
    assert several.returncode == 0, several.stderr
    assert several.stdout == one.stdout and len(one.stdout) > 40
