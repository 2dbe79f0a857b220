"""How ranks are found, and what those of a machine share."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from thread_ranks import on_ranks

from gpubp import hosts
from gpubp.affinity import affinity
from gpubp.communicator import Solo, current, launcher
from gpubp.communicator.library import Library
from gpubp.communicator.mpi import MpiCommunicator, names
from gpubp.communicator.watchdog import Watchdog
from gpubp.data.source import ArrayRows
from gpubp.errors import CommunicatorError, DataError

VARIABLES = [name for one in launcher.LAUNCHERS for name in (one.size, one.rank)]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, (1, 0)),
        ({"PMI_SIZE": "4", "PMI_RANK": "3"}, (4, 3)),
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "5"}, (8, 5)),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, (2, 1)),
        # hydra is itself started by srun, one process on each node
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "PMI_SIZE": "16", "PMI_RANK": "9"}, (16, 9)),
        # a batch script is one process, whatever its job has
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, (1, 0)),
        ({"PMI_SIZE": "what"}, (1, 0)),
    ],
)
def test_the_launcher_says_how_many_there_are(environment, variables, found):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert (launcher.size(), launcher.rank()) == found


def test_what_one_rank_does_alone(environment):
    environment.setattr(launcher, "_left", [])
    environment.setenv("PMI_SIZE", "4")
    launcher.left()
    assert launcher.size() == 1 and isinstance(current(), Solo)


def test_a_library_that_mpi4py_opens_by_itself_is_called_as_mpi4py_does():
    called: list[Any] = []
    world = SimpleNamespace(Abort=called.append, Set_errhandler=called.append)
    mpi = SimpleNamespace(
        __file__="/nowhere/MPI.so", COMM_WORLD=world, ERRORS_RETURN="errors", Is_initialized=lambda: False,
        Is_finalized=lambda: False, Init_thread=lambda: called.append("began"), Finalize=lambda: called.append("ended"),
    )  # fmt: skip
    library = Library(mpi)
    library.end()
    assert not called  # not by us
    library.begin()
    library.abort(3)
    library.end()
    assert called == ["began", "errors", 3, "ended"]


def test_an_error_of_mpi_is_one_of_ours():
    class Lost(Exception):
        pass

    ranks = object.__new__(MpiCommunicator)
    mpi: Any = SimpleNamespace(Exception=Lost)
    ranks._mpi, ranks._spin, ranks.watchdog = mpi, 0.0, Watchdog(0, 100, print)
    ranks.kept = lambda: "the last checkpoint is kept"

    def test() -> bool:
        raise Lost("connection\nreset")

    with pytest.raises(CommunicatorError, match=r"^MPI: connection reset; the last checkpoint is kept$") as met:
        ranks._wait(SimpleNamespace(Test=test))
    assert not met.value.agreed


def test_without_a_launcher_there_is_one_process(environment):
    assert isinstance(current(), Solo) and current() is not current()


def test_the_ranks_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(hosts, "available_cores", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert hosts.cores(Solo()) is None
    assert on_ranks(3, hosts.cores) == [4, 4, 8]  # two on the first machine
    bound = iter(range(100))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {next(bound)})  # each to a core of its own
    monkeypatch.setattr(hosts, "available_cores", lambda: 1)
    assert on_ranks(3, hosts.cores) == [1, 1, 1]


def test_rows_that_one_rank_cannot_read_are_told_by_all():
    class Torn(ArrayRows):
        def read(self, start: int, stop: int, out: np.ndarray) -> None:
            raise DataError("rows that are torn")

    def work(ranks: Any) -> str:
        source = (Torn if ranks.rank == 1 else ArrayRows)(np.zeros((6, 2)))
        with pytest.raises(DataError) as met:
            hosts.refuse_other_rows(ranks, source, LABELS, None)
        assert met.value.agreed
        return str(met.value)

    (said,) = set(on_ranks(3, work))
    assert said.endswith("rows that are torn") and "rank 1" in said


def test_the_last_of_very_many_rows_is_among_those_compared():
    def work(ranks: Any) -> None:
        X = np.zeros((1_000_000, 1), "i1")
        X[-1] = ranks.rank == 1
        hosts.refuse_other_rows(ranks, ArrayRows(X), None, None)

    with pytest.raises(DataError, match="other rows on rank 1"):
        on_ranks(2, work)


def test_machines_of_one_name_are_told_apart():
    found = [("a", "x"), ("node", "q"), ("node", "p"), ("a", "x"), ("node", "q")]
    assert names(found) == ["a", "node (2)", "node (1)", "a", "node (2)"]


def test_a_system_without_affinity_has_all_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert affinity() == frozenset(range(6))


def test_the_ranks_of_a_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(hosts, "default_budget", lambda: 1200)
    assert hosts.memory(Solo()) == 1200
    assert on_ranks(3, hosts.memory) == [600, 600, 1200]  # two on the first machine


LABELS = np.arange(6)


@pytest.mark.parametrize(
    ("other", "labels", "weights", "said"),
    [
        (np.zeros((7, 2)), np.arange(7), None, "has 7 rows of 2 features .float64. on rank 1; wanted 6 rows"),
        (np.zeros((6, 2), "f4"), LABELS, None, "has 6 rows of 2 features .float32. on rank 1"),
        (np.zeros((6, 2)), LABELS[::-1], None, "has other labels or weights on rank 1"),
        (np.zeros((6, 2)), LABELS, np.ones(6), "has other labels or weights on rank 1"),
        (np.eye(6, 2), LABELS, None, "has other rows on rank 1"),
        (np.eye(6, 2, -2), LABELS, None, "has other rows on rank 1"),  # in the midst
        (np.eye(6, 2, -5), LABELS, None, "has other rows on rank 1"),  # the last one
    ],
)
def test_other_data_on_another_machine_are_refused(other, labels, weights, said):
    def work(ranks: Any) -> None:
        mine = (other, labels, weights) if ranks.rank == 1 else (np.zeros((6, 2)), LABELS, None)
        hosts.refuse_other_rows(ranks, ArrayRows(mine[0]), *mine[1:])

    with pytest.raises(DataError, match=said):
        on_ranks(3, work)


def test_the_same_data_are_not():
    on_ranks(3, lambda ranks: hosts.refuse_other_rows(ranks, ArrayRows(np.zeros((6, 2))), LABELS, None))


def test_a_machine_that_computes_other_bits_is_refused():
    def work(ranks: Any) -> None:
        hosts.refuse_other_machines(ranks, {"backend": "cpu", "blas": "Zen" if ranks.rank == 2 else "SkylakeX"})

    with pytest.raises(CommunicatorError, match="rank 2 would compute other bits: blas is Zen, on rank 0 SkylakeX"):
        on_ranks(3, work)


def test_ranks_are_described():
    assert hosts.describe(Solo(), 8) == {}
    (said,) = {one["ranks"] for one in on_ranks(3, lambda ranks: hosts.describe(ranks, 2))}
    assert said.endswith("0 to 1 of the 2 leaves of the sum each; 1 of them has nothing to do: take 2 or fewer")
