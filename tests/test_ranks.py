"""Ranks as threads: the upper part of the tree, and every optimizer, have the same bits on any number of ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from thread_ranks import ThreadRanks, on_ranks

from gpubp import optimizers
from gpubp.backend import choose
from gpubp.communicator import Solo
from gpubp.communicator.ranks import Ranks, digest
from gpubp.communicator.top import RanksTop, additions, own_leaves
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.errors import CommunicatorError, DataError, OtherRankFailed
from gpubp.network import Network
from gpubp.objective import Objective
from gpubp.training import StopRequest, fit
from gpubp.tree import SumTree, cover

RANKS = (1, 2, 3, 4, 7)
LEAVES = 16
NETWORK = Network((7, 6, 3), "tanh", "softmax")
RNG = np.random.default_rng(3)
X = RNG.normal(size=(901, 7)) * RNG.normal(1, 0.3, size=7)
Y = (X @ RNG.normal(size=(7, 3)) + RNG.normal(size=(901, 3))).argmax(axis=1).astype(np.uint32)
WEIGHTS = np.where(RNG.random(901) < 0.1, 0.0, RNG.random(901) + 0.5)


# --- the tree


@pytest.mark.parametrize("leaves", [1, 2, 8, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 70])
def test_the_nodes_of_all_ranks_cover_every_leaf_once_and_add_up_to_the_root(size, leaves):
    indices = [index for rank in range(size) for index in cover(*own_leaves(rank, size, leaves), leaves)]

    def under(index: int) -> list[int]:
        return [index - leaves] if index >= leaves else under(2 * index) + under(2 * index + 1)

    assert [leaf for index in indices for leaf in under(index)] == list(range(leaves))
    known = dict(enumerate(indices))
    for a, b in additions(indices):
        assert known[a] ^ 1 == known[b] and known[a] % 2 == 0, "not siblings, or not the left one first"
        known[a] //= 2
        del known[b]
    assert known == {0: 1}


def test_nodes_that_make_no_tree_are_refused():
    with pytest.raises(ValueError, match="make no tree"):
        additions([4, 5, 6])


def order_of(leaves: int, size: int, small: int) -> np.ndarray:
    """A sum that tells its order: float32 numbers of very different sizes."""
    values = (np.random.default_rng(0).normal(size=(leaves, 5)) * 10.0 ** (np.arange(leaves)[:, None] % 9)).astype("f4")

    def work(ranks: Any) -> np.ndarray:
        quiet: dict[str, Any] = {"header": lambda error: np.zeros(8, np.int64), "heard": lambda said, error: None}
        part = [((5,), np.dtype("f4")), ((1,), np.dtype("f8"))]
        if size == 0:
            top = Solo().top(leaves, part)
        else:
            top = RanksTop(ranks, ranks.rank, size, leaves, part, small=small, **quiet)

        def merge(a: list[np.ndarray], b: list[np.ndarray]) -> None:
            for one, other in zip(a, b, strict=True):
                one += other

        tree: SumTree[list[np.ndarray]] = SumTree(leaves, 1, lambda: [np.empty(5, "f4"), np.empty(1)], merge, top.own)

        def fill(owner: int, leaf: int, node: list[np.ndarray]) -> None:
            node[0][:], node[1][:] = values[leaf], leaf

        flat, total = top.root(lambda: tree.root(fill))
        assert total[0] == leaves * (leaves - 1) / 2
        return flat.copy()

    found = [work(None)] if size == 0 else on_ranks(size, work)
    assert all(one.tobytes() == found[0].tobytes() for one in found)
    return found[0]


@pytest.mark.parametrize("leaves", [1, 8, 32])
def test_the_root_has_the_same_bits_however_nodes_travel(leaves):
    wanted = order_of(leaves, 0, 0)
    for size in RANKS:
        for small in (0, 1 << 20):  # by slices, and whole
            assert order_of(leaves, size, small).tobytes() == wanted.tobytes(), (size, small)
    values = (np.random.default_rng(0).normal(size=(leaves, 5)) * 10.0 ** (np.arange(leaves)[:, None] % 9)).astype("f4")
    in_order = np.add.accumulate(values)[-1]
    assert leaves < 8 or in_order.tobytes() != wanted.tobytes(), "this sum does not tell its order"


# --- training


def objective(ranks: Any, precision: str = "fp32", *, weights: np.ndarray | None = None, **more: Any) -> Objective:
    rows = Rows(ArrayRows(X), X, Scaling("none", None, None), Y, weights, more.pop("validation", None))
    on = choose("cpu", kernel=more.pop("kernel", "numpy"), threads=more.pop("threads", 1))[0]
    plan = {"leaves": LEAVES, "block_rows": 20, **more}
    return Objective(NETWORK, rows, 0.7, backend=on, precision=precision, communicator=ranks, **plan)


def trained(ranks: Any, name: str, precision: str, iterations: int = 20, **more: Any) -> tuple[bytes, float]:
    f = objective(ranks, precision, **more)
    try:
        _, state = fit(f, optimizers.make(name, tolerance=0.0), NETWORK.initial_Theta(1), iterations=iterations)
        assert state is not None and state.iteration >= min(iterations, 5)
        return state.Theta_on_host.tobytes(), state.J
    finally:
        f.close()


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer_has_the_same_bits_on_any_number_of_ranks(name, precision):
    wanted = trained(Solo(), name, precision)
    for size in RANKS:
        assert set(on_ranks(size, lambda ranks: trained(ranks, name, precision))) == {wanted}, size


@pytest.mark.parametrize("name", ["klbfgs", "lm", "gn"])
def test_with_weights_threads_and_the_compiled_loop(name):
    pytest.importorskip("numba")
    more: dict[str, Any] = {"weights": WEIGHTS, "kernel": "compiled", "iterations": 8}
    wanted = trained(Solo(), name, "fp32", threads=2, **more)
    for size, threads in ((2, 1), (3, 2), (7, 1)):
        found = on_ranks(size, lambda ranks, threads=threads: trained(ranks, name, "fp32", threads=threads, **more))
        assert set(found) == {wanted}, size


def test_large_nodes_travel_by_slices_with_the_same_bits(monkeypatch):
    wanted = trained(Solo(), "klbfgs", "fp32", 5)
    monkeypatch.setitem(RanksTop.__init__.__kwdefaults__, "small", 0)
    for size in (2, 3, 7):
        assert set(on_ranks(size, lambda ranks: trained(ranks, "klbfgs", "fp32", 5))) == {wanted}, size


def test_more_ranks_than_leaves():
    wanted = trained(Solo(), "klbfgs", "fp32", 5, leaves=2)
    assert set(on_ranks(5, lambda ranks: trained(ranks, "klbfgs", "fp32", 5, leaves=2))) == {wanted}


def test_validation_cost_and_J_alone():
    held = np.where(WEIGHTS == 0, 1.0, 0.0)

    def work(ranks: Any) -> tuple[float, float, float | None]:
        f = objective(ranks, weights=WEIGHTS, validation=held)
        Theta, gradient = NETWORK.initial_Theta(0), np.empty(NETWORK.P)
        both = f.value_and_gradient(Theta, gradient)
        alone = f.value(Theta)
        f.close()
        return both, alone, f.validation_cost

    wanted = work(Solo())
    assert wanted[2] and wanted[0] == wanted[1]
    for size in RANKS:
        assert set(on_ranks(size, work)) == {wanted}


# --- what goes wrong


class Boom(Exception):
    pass


def failing(ranks: ThreadRanks, rank: int, error: Exception) -> Any:
    """A pass in which the rows of one rank cannot be read."""
    f = objective(ranks)
    if ranks.rank == rank:
        f.rows.check = lambda: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
    try:
        with pytest.raises(Exception) as met:
            f.value_and_gradient(NETWORK.initial_Theta(0), np.empty(NETWORK.P))
        return type(met.value), str(met.value), met.value.agreed
    finally:
        f.close()


def test_an_error_of_one_rank_is_raised_on_all_with_its_name():
    found = on_ranks(3, lambda ranks: failing(ranks, 2, DataError("row 7 is torn", do="mend it")))
    assert set(found) == {(DataError, "rank 2 on host1: row 7 is torn; mend it", True)}


def test_an_error_that_is_not_ours_stays_what_it_is_where_it_happened():
    found = on_ranks(3, lambda ranks: failing(ranks, 1, Boom("what now")))
    assert found[1][:2] == (Boom, "what now")
    assert found[0] == found[2] == (OtherRankFailed, "rank 1 on host0: failed by Boom: what now", True)


def test_what_all_have_met_alike_is_said_without_a_rank():
    def work(ranks: ThreadRanks) -> str:
        with pytest.raises(DataError) as met, ranks.together():
            raise DataError("no such file")
        return str(met.value)

    assert set(on_ranks(3, work)) == {"no such file"}


def test_after_an_error_the_ranks_are_in_step_again():
    def work(ranks: ThreadRanks) -> list[int]:
        with pytest.raises(DataError), ranks.together():
            if ranks.rank == 1:
                raise DataError("once")
        with ranks.together():
            return ranks.gather(ranks.rank)

    assert on_ranks(3, work) == [[0, 1, 2]] * 3


def test_ranks_out_of_step_are_noticed():
    def work(ranks: ThreadRanks) -> None:
        if ranks.rank == 1:
            ranks._step += 1
        with ranks.together():
            pass

    with pytest.raises(CommunicatorError, match="out of step"):
        on_ranks(2, work)


def stopped(size: int, asks: int) -> list[tuple[int, str, str | None]]:
    """Each rank's iterations, ending and who asked, where one of them is asked in its fifth iteration."""

    def work(ranks: ThreadRanks) -> tuple[int, str, str | None]:
        f, stop = objective(ranks), StopRequest()

        def ask(progress: Any, state: Any) -> None:
            if progress.iteration == 5 and ranks.rank == asks:
                stop.by = "SIGTERM"

        ending, state = fit(
            f, optimizers.make("gd", tolerance=0.0), NETWORK.initial_Theta(0), iterations=50, callbacks=[ask], stop=stop
        )
        f.close()
        assert state is not None
        return state.iteration, ending.reason, stop.by

    return on_ranks(size, work)


@pytest.mark.parametrize("asks", [0, 2])
def test_all_ranks_stop_at_the_same_iteration_whoever_is_asked(asks):
    found = stopped(3, asks)
    assert set(found) == {(5, "stopped by SIGTERM after 5 iterations", "SIGTERM")}


def test_two_signals_at_once_are_one_for_all():
    def work(ranks: ThreadRanks) -> tuple[str, str | None]:
        f, stop = objective(ranks), StopRequest()

        def ask(progress: Any, state: Any) -> None:
            if progress.iteration == 5 and ranks.rank < 2:
                stop.by = ("SIGUSR1", "SIGTERM")[ranks.rank]

        gd = optimizers.make("gd", tolerance=0.0)
        ending, _ = fit(f, gd, NETWORK.initial_Theta(0), iterations=50, callbacks=[ask], stop=stop)
        f.close()
        return ending.reason, stop.by

    assert set(on_ranks(3, work)) == {("stopped by SIGTERM after 5 iterations", "SIGTERM")}


def test_what_is_begun_anew_has_forgotten_who_asked():
    def work(ranks: ThreadRanks) -> tuple[str, str, str]:
        ranks.wish, ranks.kept = lambda: "SIGTERM", lambda: "a run"
        with ranks.together():
            pass
        before = ranks.asked
        ranks.listen(lambda: "")
        with ranks.together():
            pass
        return before, ranks.asked, ranks.kept()

    assert set(on_ranks(2, work)) == {("SIGTERM", "", "")}


def test_a_communicator_must_say_how_its_bytes_travel():
    with pytest.raises(TypeError, match="abstract"):
        Ranks(0, 2, ["a", "b"])  # type: ignore[abstract]


def test_a_callback_of_any_rank_ends_the_run_on_all():
    def work(ranks: ThreadRanks) -> tuple[str, int]:
        f = objective(ranks)
        callback: Callable[..., bool] = lambda progress, state: ranks.rank == 1 and progress.iteration == 3  # noqa: E731
        ending, state = fit(
            f, optimizers.make("gd"), NETWORK.initial_Theta(0), iterations=50, callbacks=[callback]
        )  # fmt: skip
        f.close()
        assert state is not None
        return ending.kind, state.iteration

    assert set(on_ranks(3, work)) == {("stopped", 3)}


def test_another_Theta_on_one_rank_ends_the_run():
    def work(ranks: ThreadRanks) -> None:
        f = objective(ranks)

        def flip(progress: Any, state: Any) -> None:
            if progress.iteration == 2 and ranks.rank == 2:
                state.Theta.view(np.int64)[3] ^= 1  # the last bit of one number

        try:
            fit(f, optimizers.make("gd"), NETWORK.initial_Theta(0), iterations=50, callbacks=[flip])
        finally:
            f.close()

    with pytest.raises(CommunicatorError, match="rank 2 on host1 has another Theta than rank 0 on host0"):
        on_ranks(3, work)


def test_the_digest_of_Theta_sees_every_bit():
    Theta = RNG.normal(size=50)
    assert digest(Theta.copy()) == digest(Theta)
    for place in range(50):
        for bit in (0, 17, 51, 63):
            other = Theta.copy()
            other.view(np.uint64)[place] ^= np.uint64(1 << bit)
            assert digest(other) != digest(Theta), (place, bit)


def test_threads_of_a_rank_that_fails_do_not_hang_the_others():
    begun = threading.active_count()
    for _ in range(3):
        on_ranks(3, lambda ranks: failing(ranks, 0, DataError("x")))
    assert threading.active_count() <= begun + 2
