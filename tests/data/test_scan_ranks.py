"""The first looks at the rows, shared by ranks: what is missing, the statistics, the fingerprint and the rows kept are
those of one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from thread_ranks import on_ranks

from gpubp.backend.numpy import NumpyBackend
from gpubp.communicator import Solo
from gpubp.communicator.top import own_leaves
from gpubp.data import missing
from gpubp.data import scan as room
from gpubp.data.dataset import Dataset
from gpubp.data.moments import Tree
from gpubp.data.scan import scan
from gpubp.data.source import ArrayRows
from gpubp.errors import DataError
from gpubp.job import Job
from gpubp.model_rows import rows_for
from gpubp.prepare import prepare

RNG = np.random.default_rng(11)
M, D = 20_011, 3
ROWS = (RNG.normal(size=(M, D)) * [1, 1e3, 1e-3] + [0, 1e6, 5]).astype(np.float32)


class FromFile(ArrayRows):
    """Rows that do not lie in memory as one block, and a note of who read which."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array)
        self.seen: list[tuple[int, int]] = []

    def read(self, start: int, stop: int, out: np.ndarray) -> None:
        self.seen.append((start, stop))
        super().read(start, stop, out)


def looked(ranks: Any, budget: int, **more: Any) -> tuple[Any, ...]:
    source: Any = FromFile(np.asfortranarray(ROWS))
    own = (0, M) if ranks is None else tuple(leaf * M // 16 for leaf in own_leaves(ranks.rank, ranks.size, 16))
    found, kept = scan(source, budget=budget, own=own, ranks=ranks, threads=1, **more)
    assert kept.tobytes() == ROWS[own[0] : own[0] + len(kept)].tobytes()
    assert len(kept) == min(own[1] - own[0], budget // (4 * D))
    read = sum(stop - start for start, stop in source.seen)
    return found.fingerprint, *(v.tobytes() for v in (found.mean, found.std, found.minimum, found.maximum)), read


MORE = {
    "plain": {},
    "weights": {"weights": np.where(RNG.random(M) < 0.3, 0.0, RNG.random(M))},
    "training": {"training": RNG.random(M) < 0.7},
    "the last third is not for training": {"training": np.arange(M) < 2 * M // 3},
    "one block is not for training": {"training": (np.arange(M) < 3000) | (np.arange(M) > 9000)},
}


@pytest.mark.parametrize("case", MORE)
@pytest.mark.parametrize("budget", [0, 30_000, 1 << 30])
def test_what_is_found_is_the_same_on_any_number_of_ranks(monkeypatch, case, budget):
    monkeypatch.setattr(room, "_PIECE", 1 << 14)  # several pieces for each rank
    monkeypatch.setattr("gpubp.data.moments._BLOCK", 1 << 11)
    *wanted, all_rows = looked(None, budget, **MORE[case])
    for size in (1, 2, 3, 7, 16):
        found = on_ranks(size, lambda ranks: looked(ranks, budget, **MORE[case]))
        assert {one[:-1] for one in found} == {tuple(wanted)}, size
        assert max(one[-1] for one in found) <= all_rows / size + 6000, "a rank read rows of others"


def test_an_array_in_memory_stays_where_it_is():
    def work(ranks: Any) -> bool:
        own = tuple(rank * M // ranks.size for rank in (ranks.rank, ranks.rank + 1))
        _, kept = scan(ArrayRows(ROWS), budget=0, own=own, ranks=ranks)
        return np.shares_memory(kept, ROWS) and kept.tobytes() == ROWS[own[0] : own[1]].tobytes()

    assert on_ranks(3, work) == [True] * 3


def test_a_value_that_is_not_finite_is_said_once_by_whoever_finds_it(monkeypatch):
    monkeypatch.setattr(room, "_PIECE", 1 << 14)
    monkeypatch.setattr("gpubp.data.moments._BLOCK", 1 << 11)
    wrong = ROWS.copy()
    wrong[15_000, 1] = np.nan

    def work(ranks: Any) -> str:
        own = tuple(rank * M // ranks.size for rank in (ranks.rank, ranks.rank + 1))
        with pytest.raises(DataError) as met:
            scan(ArrayRows(wrong), budget=0, own=own, ranks=ranks)
        return str(met.value)

    (said,) = set(on_ranks(4, work))
    assert said.startswith("rank 2 on host1: ") and "row 15000, column 1 is nan" in said


@pytest.mark.parametrize("case", MORE)
@pytest.mark.parametrize("gaps", ["some", "one", "none"])
def test_what_is_missing_is_the_same_on_any_number_of_ranks_and_threads(monkeypatch, case, gaps):
    monkeypatch.setattr(missing, "_PIECE", 1 << 13)
    X = ROWS.astype("f8") + 1e-9 * RNG.normal(size=(M, D))  # whose means show every bit
    if gaps == "some":
        X[RNG.random((M, D)) < 0.05] = np.nan
        X[: M // 2, 2] = np.nan  # no value at all in the part of some ranks
    elif gaps == "one":
        X[15_000, 1] = np.nan

    def looked(ranks: Any, threads: int) -> tuple[Any, ...]:
        source: Any = FromFile(np.asfortranarray(X))
        found = missing.look(source, ranks=ranks, threads=threads, **MORE[case])
        read = sum(stop - start for start, stop in source.seen)
        mask = missing.rows_with_gaps(source, ranks=ranks)
        assert (mask is None) == (found.rows is None) == (gaps == "none")
        assert mask is None or (np.array_equal(mask, found.rows) and np.array_equal(mask, np.isnan(X).any(axis=1)))
        return found.means.tobytes(), read

    means, all_rows = looked(None, 1)
    w = MORE[case].get("weights", np.ones(M)) * MORE[case].get("training", np.ones(M))
    there = w[:, None] * ~np.isnan(X)
    wanted = (np.nan_to_num(X.astype("f8")) * there).sum(axis=0) / there.sum(axis=0)
    np.testing.assert_allclose(np.frombuffer(means), wanted, rtol=1e-12)
    assert looked(None, 4) == (means, all_rows) and all_rows == M
    for size in (1, 2, 3, 7, 40):
        found = on_ranks(size, lambda ranks: looked(ranks, 1))
        assert {one[0] for one in found} == {means}, size
        assert max(one[1] for one in found) <= M / size + 350, "a rank read rows of others"


@pytest.mark.parametrize("what", ["infinite", "empty"])
def test_what_no_mean_can_help_is_said_once(monkeypatch, what):
    monkeypatch.setattr(missing, "_PIECE", 1 << 13)
    X = ROWS.copy()
    X[15_000, 1] = np.inf
    if what == "empty":
        X[:, 1] = np.nan

    def work(ranks: Any) -> str:
        with pytest.raises(DataError) as met:
            missing.look(ArrayRows(X, "X"), ranks=ranks)
        assert met.value.agreed
        return str(met.value)

    (said,) = set(on_ranks(4, work))
    if what == "empty":
        assert "column 1 has no value in any training row" in said and "rank" not in said
    else:
        assert said.startswith("rank 2 on host1: ") and "row 15000, column 1 is inf" in said


def test_a_training_and_an_evaluation_share_every_look_at_the_rows(monkeypatch):
    monkeypatch.setattr(room, "_PIECE", 1 << 14)
    monkeypatch.setattr(missing, "_PIECE", 1 << 13)
    monkeypatch.setattr("gpubp.data.moments._BLOCK", 1 << 11)
    monkeypatch.setattr(NumpyBackend, "leaves_and_block", lambda self, m, sizes: (16, 1000))
    X = ROWS.copy()
    X[::7, 1] = np.nan
    job = Job(hidden=(3,), backend="cpu", kernel="numpy", threads=1, missing="drop")

    def work(ranks: Any) -> tuple[int, int, str]:
        source: Any = FromFile(np.asfortranarray(X))
        dataset = Dataset("", source, np.arange(M) % 2, None, "X", "y", None, None, None)
        ready = prepare(job, dataset, communicator=ranks)
        trained = sum(stop - start for start, stop in source.seen)
        model = ready.model(ready.network.initial_Theta(0))
        ready.close()
        source.seen.clear()
        rows_for(model, dataset, labelled=True, communicator=ranks)
        return trained, sum(stop - start for start, stop in source.seen), ready.choices["rows"]

    found = on_ranks(4, work)
    assert max(trained for trained, *_ in found) < 2 * M / 4 + 5000  # what is missing, and the moments
    assert max(looked for _, looked, _ in found) < M / 4 + 1000
    assert {said for *_, said in found} == {work(Solo())[2]}
    assert f"{M:,} kept in memory" in found[0][2]


def test_parts_of_a_tree_of_moments_are_put_together_as_one():
    @dataclass(frozen=True)
    class Text:
        text: str

        def merged(self, other: Text) -> Text:
            return Text(f"({self.text}{other.text})")

    def text(of: Tree[Text]) -> str:
        root = of.root()
        assert root is not None
        return root.text

    for count in (1, 2, 5, 8, 13):
        whole = Tree[Text]()
        for i in range(count):
            whole.add(Text(chr(97 + i)))
        for cuts in ((0, count), (0, count // 3, count), (0, 1, max(1, count // 2), max(1, count // 2), count)):
            every = Tree[Text]()
            for first, stop in pairwise(cuts):
                part = Tree[Text](first)
                for i in range(first, stop):
                    part.add(Text(chr(97 + i)))
                for node in part.waiting:
                    every.put(*node)
            assert text(every) == text(whole), (count, cuts)
