"""Long vectors have parts whose products a tree adds, and ranks share what an optimizer remembers: the same bits."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import launched
import numpy as np
import pytest
from running import ENVIRONMENT, write
from thread_ranks import ThreadRanks, on_ranks

from gpubp import gathering, optimizers, run
from gpubp.allotment import allot
from gpubp.backend import choose
from gpubp.backend.numpy import NumpyBackend
from gpubp.checkpoint import read, table, whole
from gpubp.communicator import Solo
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.errors import CheckpointError, DataError, OtherRankFailed
from gpubp.job import Job
from gpubp.leading import Order
from gpubp.network import Network
from gpubp.objective import Objective
from gpubp.optimizers import parted
from gpubp.optimizers.footprint import footprint
from gpubp.optimizers.parted import Parted, added, cut, parts
from gpubp.optimizers.vectors import HostVectors
from gpubp.prepare import array_dataset
from gpubp.run_folder import RunFolder, find_checkpoint
from gpubp.training import fit

RANKS = (1, 2, 3, 4, 7)
NETWORK = Network((7, 40, 21, 3), "tanh", "softmax")  # 1,296 parameters: 32 parts of 40 or 41
RNG = np.random.default_rng(3)
X = RNG.normal(size=(601, 7)) * RNG.normal(1, 0.3, size=7)
Y = (X @ RNG.normal(size=(7, 3)) + RNG.normal(size=(601, 3))).argmax(axis=1).astype(np.uint32)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of 256 elements are long."""
    monkeypatch.setattr(parted, "PARTED", 256)
    monkeypatch.setattr(parted, "PART", 32)


# --- the parts


@pytest.mark.parametrize("P", [256, 257, 1000, 1296, 100_003])
def test_parts_follow_from_the_length_alone_and_cover_it(short, P):
    count = parts(P)
    assert count & (count - 1) == 0 and count >= 8 and P // count >= 32
    pieces = cut(P, 0, count)
    assert [piece.start for piece in pieces[1:]] == [piece.stop for piece in pieces[:-1]]
    assert (pieces[0].start, pieces[-1].stop) == (0, P)
    assert parts(255) == 1


def pairwise_sum(x: np.ndarray, y: np.ndarray, count: int, first: int = 0, leaves: int | None = None) -> float:
    """What the tree is to give, written as it is said: a node is the sum of its two children, a leaf is a part."""
    leaves = count if leaves is None else leaves
    if leaves == 1:
        part = slice(first * len(x) // count, (first + 1) * len(x) // count)
        return float(np.dot(x[part], y[part]))
    half = leaves // 2
    return pairwise_sum(x, y, count, first, half) + pairwise_sum(x, y, count, first + half, half)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_product_is_the_sum_of_a_binary_tree_over_the_parts(short, monkeypatch, threads):
    monkeypatch.setattr("gpubp.optimizers.vectors.LONG", 1)
    x, y = (RNG.normal(size=5001) * 10.0 ** RNG.integers(-8, 8, 5001) for _ in range(2))
    M, vectors = RNG.normal(size=(3, 5001)), HostVectors(threads)
    assert vectors.dot(x, y) == pairwise_sum(x, y, parts(5001))
    assert vectors.dot(x, y) != float(np.dot(x, y)), "this sum does not tell its order"
    found = vectors.products((M, M[::-1]), [2, 0], (x, y))
    for m, matrix in enumerate((M, M[::-1])):
        for v, vector in enumerate((x, y)):
            assert found[m, v].tolist() == [pairwise_sum(matrix[i], vector, parts(5001)) for i in (2, 0)]


@pytest.mark.parametrize(("first", "stop"), [(0, 16), (0, 5), (3, 11), (15, 16), (7, 7)])
def test_the_topmost_nodes_of_some_parts(first, stop):
    sums = np.arange(16.0)[first:stop, None] * np.array([1.0, 100.0])
    nodes = added(first, sums, 16)
    assert sum(node[0][0] for node in nodes.values()) == sums[:, 0].sum()
    assert all((node[0] == node[0][0] * np.array([1, 100])).all() for node in nodes.values())


def test_infinities_and_nan_come_through_without_a_warning(short):
    x = np.full(1000, 1e200)
    assert HostVectors().dot(x, x) == np.inf
    x[17] = np.nan
    assert np.isnan(HostVectors().dot(x, x))
    assert all(np.isnan(found[0]) for found in on_ranks(3, lambda ranks: HostVectors(1, ranks).dots((x, x))))


def operations(ranks: Any, P: int) -> tuple[bytes, ...]:
    """What each operation gives that looks at rows of a matrix, from vectors that are the same everywhere."""
    rng, vectors = np.random.default_rng(5), HostVectors(2, ranks)
    S, Y = vectors.matrix(4, P), vectors.matrix(4, P)
    a, out = rng.normal(size=P), np.full(P, np.nan)
    vectors.put(rng.normal(size=(4, P)), S)
    for j in range(4):
        vectors.copy(rng.normal(size=P), Y[j])
    assert isinstance(S, Parted) == (ranks.size > 1)
    c = rng.normal(size=(2, 4))
    products = vectors.products((S, Y), [3, 0, 1], (a, Y[2]))
    dots = vectors.dots((S[1], Y[1]), (a, a), (a, S[0]))
    vectors.copy(S[3], Y[0])
    vectors.combine(-1.0, 0.3, a, ((c[0], S), (c[1], Y)), out)
    row = np.empty(P)
    vectors.copy(Y[0], row)
    return products.tobytes(), np.array(dots).tobytes(), out.tobytes(), row.tobytes()


def test_operations_on_rows_have_the_same_bits_on_any_number_of_ranks(short):
    wanted = operations(Solo(), 1296)
    for size in (*RANKS, 40):  # 32 parts: some ranks have none
        assert set(on_ranks(size, lambda ranks: operations(ranks, 1296))) == {wanted}, size


def test_and_with_vectors_as_long_as_they_are_in_earnest():
    P = parted.PARTED + 4321
    wanted = operations(Solo(), P)
    assert set(on_ranks(3, lambda ranks: operations(ranks, P))) == {wanted}


# --- training


def objective(ranks: Any, precision: str) -> Objective:
    rows = Rows(ArrayRows(X), X, Scaling("none", None, None), Y, None, None)
    on = choose("cpu", kernel="numpy", threads=1)[0]
    return Objective(NETWORK, rows, 0.7, backend=on, precision=precision, communicator=ranks, leaves=8, block_rows=40)


def trained(ranks: Any, name: str, precision: str, **more: Any) -> tuple[bytes, float]:
    f = objective(ranks, precision)
    try:
        Theta = NETWORK.initial_Theta(1)
        _, state = fit(f, optimizers.make(name, tolerance=0.0, **more), Theta, iterations=20)
        assert state is not None and state.iteration == 20
        assert gathering.is_parted(state) == (ranks.size > 1 and name in ("lbfgs", "klbfgs"))
        return state.Theta_on_host.tobytes(), state.J
    finally:
        f.close()


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize(("name", "more"), [("lbfgs", {"history": 6}), ("klbfgs", {"refresh": 5}), ("cg", {})])
def test_the_same_bits_on_any_number_of_ranks(short, name, more, precision):
    wanted = trained(Solo(), name, precision, **more)
    for size in RANKS:
        assert set(on_ranks(size, lambda ranks: trained(ranks, name, precision, **more))) == {wanted}, size


def test_short_vectors_have_no_parts_and_the_bits_they_had():
    vectors, P = HostVectors(), 4001
    x, y, M = RNG.normal(size=P), RNG.normal(size=P), RNG.normal(size=(2, P))
    assert vectors.dot(x, y) == vectors.dots((x, y))[0] == float(np.dot(x, y))
    assert vectors.products((M,), [0, 1], (x,))[0, 0].tolist() == [float(np.dot(row, x)) for row in M]
    ranks = on_ranks(3, lambda ranks: type(HostVectors(1, ranks).matrix(2, P)) is np.ndarray)
    assert all(ranks)


# --- keeping and going on


class Team:
    """`gpubp.run` on ranks that are threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._mine = threading.local()
        monkeypatch.setattr(run, "current", lambda: getattr(self._mine, "ranks", None) or Solo())

    def __call__(self, size: int, work: Any) -> list[Any]:
        def one(ranks: ThreadRanks) -> Any:
            self._mine.ranks = ranks
            return work(ranks)

        return [work(Solo())] if size == 1 else on_ranks(size, one)


@pytest.fixture
def team(short: None, monkeypatch: pytest.MonkeyPatch) -> Team:
    monkeypatch.setattr(NumpyBackend, "leaves_and_block", lambda self, m, sizes: (8, 40))
    return Team(monkeypatch)


JOB = Job(
    hidden=(40, 21), backend="cpu", kernel="numpy", threads=1, optimizer="klbfgs", lambda_=0.7, iterations=20,
    options={"tolerance": 0.0, "history": 5, "refresh": 4}, checkpoint_every="4it",
)  # fmt: skip
DATA = array_dataset(X, Y)


def begin(out: Path, iterations: int = 20) -> Any:
    job = Job(**{**vars(JOB), "iterations": iterations})
    return lambda ranks: run.start(job, out, dataset=DATA)


def go_on(out: Path, iterations: int) -> Any:
    return lambda ranks: run.resume(out, dataset=DATA, iterations=iterations)


def known(out: Path) -> dict[str, Any]:
    """All that a run has come to, but for the time it took."""
    checkpoint = find_checkpoint(out).checkpoint
    history = {name: checkpoint.history[:, i].tobytes() for i, name in enumerate(checkpoint.history_columns)}
    del history["seconds"]
    state = {name: np.asarray(value).tobytes() for name, value in checkpoint.state.items()}
    return {**state, "history": history, "at": checkpoint.iteration, "Theta_": [T.tobytes() for T in checkpoint.Theta]}


def test_a_run_goes_on_with_other_numbers_of_ranks_and_has_the_files_of_one(team, tmp_path):
    team(1, begin(tmp_path / "straight"))
    team(4, begin(tmp_path / "run", 9))
    team(2, go_on(tmp_path / "run", 14))
    team(3, go_on(tmp_path / "run", 20))
    assert known(tmp_path / "run") == known(tmp_path / "straight")
    for name in ("checkpoint-00000016.h5", "checkpoint-00000020.h5"):
        one, other = (read(tmp_path / run / name).state for run in ("run", "straight"))
        assert {key: np.asarray(v).tobytes() for key, v in one.items()} == {
            key: np.asarray(v).tobytes() for key, v in other.items()
        }
    team(1, go_on(tmp_path / "straight", 25))
    team(1, go_on(tmp_path / "run", 25))
    assert known(tmp_path / "run") == known(tmp_path / "straight")


@pytest.mark.parametrize("block", [table.BLOCK, 256])
def test_no_rank_ever_has_a_ring_whole(team, monkeypatch, tmp_path, block):
    """Rows come one by one, whether a row is a piece of its own in the file or, being short, the whole ring is one."""
    team(1, begin(tmp_path / "straight", 8))
    wanted = known(tmp_path / "straight")
    monkeypatch.setattr(table, "BLOCK", block)
    asked: list[tuple[str, int]] = []
    row = gathering.Gathered.row

    def noted(self: Any, j: int) -> np.ndarray:
        asked.append((self._name, j))
        found = row(self, j)
        assert found.shape == (NETWORK.P,)
        return found

    monkeypatch.setattr(gathering.Gathered, "row", noted)
    team(3, begin(tmp_path / "run", 8))
    # checkpoints at 0 (no pairs), 4 (4 pairs), 8 (5 of 8) and at the end
    assert asked == [(name, j) for pairs in (4, 5, 5) for name in ("PY", "S", "Y") for j in range(pairs)]
    assert known(tmp_path / "run") == wanted


def test_ranks_are_sent_rows_and_not_the_checkpoint(team, monkeypatch, tmp_path):
    team(2, begin(tmp_path / "run", 8))
    orders: list[tuple[set[str], set[str]]] = []
    rows: list[Any] = []
    share = ThreadRanks.share

    def noted(self: ThreadRanks, value: Any = None) -> Any:
        if self.rank == 0 and isinstance(value, Order) and value.resumed:
            orders.append((set(value.resumed.state), set(value.apart)))
        if self.rank == 0 and isinstance(value, np.ndarray):
            rows.append(value.shape)
        return share(self, value)

    monkeypatch.setattr(ThreadRanks, "share", noted)
    team(2, go_on(tmp_path / "run", 12))
    ((state, apart),) = orders
    assert apart == {"S", "Y", "PY"} and not apart & state and {"Theta", "gradient", "rho"} <= state
    assert rows == [(NETWORK.P,)] * 15


# --- what goes wrong


def test_a_disk_that_is_full_ends_all_with_one_error_and_the_checkpoint_before_is_kept(team, monkeypatch, tmp_path):
    finish, saved = whole.Sink.finish, []

    def full(self: Any, head: bytes) -> None:
        saved.append(1)
        if len(saved) == 4 and len(head):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finish(self, head)

    monkeypatch.setattr(whole.Sink, "finish", full)

    def work(ranks: Any) -> str:
        with pytest.raises(CheckpointError) as met:
            begin(tmp_path / "run")(ranks)
        assert met.value.agreed
        return str(met.value)

    found = team(3, work)
    assert all("No space left on device" in one and "gpubp resume" in one for one in found), found
    monkeypatch.setattr(whole.Sink, "finish", finish)
    team(2, go_on(tmp_path / "run", 20))
    team(1, begin(tmp_path / "straight"))
    assert known(tmp_path / "run") == known(tmp_path / "straight")


@pytest.mark.parametrize("error", [DataError("row 7 is torn"), ValueError("what now"), MemoryError()])
def test_after_an_error_of_one_rank_what_was_reached_is_kept_if_all_have_it(team, monkeypatch, tmp_path, error):
    passes: dict[int, int] = {}
    evaluate = Objective.value_and_gradient

    def failing(self: Objective, Theta: Any, out: Any) -> Any:
        rank = self.communicator.rank
        passes[rank] = passes.get(rank, 0) + 1
        if rank == 1 and passes[rank] == 8:
            self.rows.check = lambda: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
        return evaluate(self, Theta, out)

    monkeypatch.setattr(Objective, "value_and_gradient", failing)

    def work(ranks: Any) -> type[BaseException]:
        with pytest.raises(Exception) as met:
            begin(tmp_path / "run")(ranks)
        return type(met.value)

    kinds = team(3, work)
    assert kinds[1] is type(error)
    assert kinds[0] is kinds[2] is (DataError if isinstance(error, DataError) else OtherRankFailed)
    monkeypatch.setattr(Objective, "value_and_gradient", evaluate)
    reached = find_checkpoint(tmp_path / "run").checkpoint.iteration
    assert reached == 4 if isinstance(error, ValueError) else reached > 4
    team(1, begin(tmp_path / "straight"))
    team(2, go_on(tmp_path / "run", 20))
    assert known(tmp_path / "run") == known(tmp_path / "straight")


@pytest.mark.parametrize("error", [MemoryError(), CheckpointError("the disk is full"), ValueError("what now")])
def test_an_error_of_writing_the_history_is_met_by_all(team, monkeypatch, tmp_path, error):
    append, lines = RunFolder.append_history, []

    def failing(self: RunFolder, row: Any) -> None:
        lines.append(row)
        if len(lines) == 6:
            raise error
        append(self, row)

    monkeypatch.setattr(RunFolder, "append_history", failing)

    def work(ranks: Any) -> str:
        with pytest.raises(Exception) as met:
            begin(tmp_path / "run")(ranks)
        return type(met.value).__name__

    kinds = team(3, work)
    if isinstance(error, CheckpointError):
        assert set(kinds) == {"CheckpointError"}
    else:
        own = "OutOfMemory" if isinstance(error, MemoryError) else type(error).__name__
        assert kinds == [own, "OtherRankFailed", "OtherRankFailed"]
    monkeypatch.setattr(RunFolder, "append_history", append)
    assert find_checkpoint(tmp_path / "run").checkpoint.iteration == 6  # what was reached is kept
    team(1, begin(tmp_path / "straight"))
    team(2, go_on(tmp_path / "run", 20))
    assert known(tmp_path / "run") == known(tmp_path / "straight")


# --- memory


def test_what_a_rank_takes_falls_as_the_ranks_rise(short):
    each = []
    for size in (1, 2, 4):
        rings = 2 * 30 * 8 * 100_000
        made = on_ranks(size, lambda ranks: footprint(optimizers.make("lbfgs"), 100_000, ranks))
        assert max(made) <= 7 * 8 * 100_000 + 1.02 * rings / size
        each.append(max(made))
    assert each[0] > 1.75 * each[1] > 2.8 * each[2]


def test_the_footprint_is_what_is_taken(short):
    def taken(ranks: Any) -> int:
        tracemalloc.start()
        state = optimizers.make("klbfgs").blank(50_000, HostVectors(1, ranks))
        found = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert gathering.is_parted(state) == (ranks.size > 1)
        return found

    class One:
        """Rank 1 of some."""

        rank = 1

        def __init__(self, size: int) -> None:
            self.size = size

        def own(self, leaves: int) -> tuple[int, int]:
            return leaves // self.size, 2 * leaves // self.size

    for ranks in (Solo(), One(2), One(7)):
        said = footprint(optimizers.make("klbfgs"), 50_000, ranks)
        assert said <= taken(ranks) <= said + 100_000


def test_a_history_that_ranks_share_need_not_be_shortened(short, caplog):
    P, budget = 4_000_000, 4 * 16 * 4_000_000 * 10  # on one rank, ten pairs
    on = choose("cpu", kernel="numpy")[0]

    def history(ranks: Any) -> int:
        optimizer: Any = allot(optimizers.make("lbfgs"), P, budget, on, fresh=True, ranks=ranks)[0]
        return optimizer.history

    assert history(Solo()) == 10 and "from 30 to 10 pairs" in caplog.text
    assert on_ranks(2, history) == [20, 20] and on_ranks(4, history) == [30] * 4
    assert "on each rank" in caplog.text


# --- processes


PROGRAM = """
import sys
from gpubp.optimizers import parted
parted.PARTED, parted.PART = 256, 32
from gpubp.cli import main
main(sys.argv[1:])
"""


@launched.needs_mpi
def test_the_command_on_ranks(tmp_path):
    write(tmp_path / "data.h5", X=np.tile(X, (5, 1)).astype(np.float32), y=np.tile(Y, 5))
    train = ["train", "data.h5", "--hidden", "40,21", "--optimizer", "lbfgs", "--tolerance", "0"]
    train += ["--kernel", "numpy", "--lambda", "0.7"]

    def command(ranks: int, *arguments: object) -> None:
        started = [launched.MPIEXEC, "-n", str(ranks)] if ranks > 1 else []
        line = [*started, sys.executable, "-c", PROGRAM, "-q", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, timeout=120)
        assert done.returncode == 0 and not done.stderr, done.stderr

    command(1, *train, "--out", "straight", "--iterations", 20)
    command(4, *train, "--out", "run", "--iterations", 9, "--checkpoint-every", "3it")
    command(2, "resume", "run", "--iterations", 14)
    command(3, "resume", "run", "--iterations", 20)
    assert known(tmp_path / "run") == known(tmp_path / "straight")
