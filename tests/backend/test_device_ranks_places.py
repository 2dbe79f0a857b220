"""Which GPU each rank takes, and how it is found out how sums go from one to the other."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nccl_on_host
import pytest
from gpu_on_host import GpuOnHost
from thread_ranks import ThreadRanks, on_ranks

from gpubp.backend import ranks as placing
from gpubp.backend.numpy import NumpyBackend
from gpubp.backend.ranks import connect, local_device
from gpubp.communicator import Solo
from gpubp.communicator.nccl import NcclCommunicator
from gpubp.errors import CommunicatorError


def test_ranks_of_a_host_take_its_gpus_in_turn(monkeypatch):
    def devices(first: int) -> list[int]:
        return on_ranks(4, lambda ranks: local_device(ranks, first))  # two ranks on each host

    for seen, first, wanted in [(2, 0, [0, 1]), (4, 1, [1, 2]), (2, 1, [1, 0]), (1, 0, [0, 0]), (0, 0, [0, 0])]:
        monkeypatch.setattr(placing, "_seen", lambda seen=seen: seen)
        assert devices(first) == wanted * 2
    assert local_device(Solo(), 3) == 3
    assert on_ranks(3, lambda ranks: ranks.local) == [(0, 2), (1, 2), (0, 1)] and Solo().local == (0, 1)


def backend_of(ranks: Any, folder: Path, place: str) -> GpuOnHost:
    backend = GpuOnHost(folder, "layered")
    backend.place = place
    return backend


def test_ranks_that_share_a_gpu_or_have_no_nccl_say_so_once(folder, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "gpubp")

    def work(ranks: ThreadRanks) -> tuple[str, bool, int]:
        backend = backend_of(ranks, folder, f"{ranks.rank // 2}")
        how = connect(ranks, backend)
        return how, ranks.link is None, backend.sharers

    how, alone, sharers = zip(*on_ranks(3, work), strict=True)
    assert len(set(how)) == 1 and "through the host's memory, since 2 ranks share GPU 0 of " in how[0]
    assert all(alone) and sharers == (2, 2, 1) and len(caplog.records) == 1
    caplog.clear()
    monkeypatch.setattr(nccl_on_host, "available", False)
    how = on_ranks(2, lambda ranks: connect(ranks, backend_of(ranks, folder, f"{ranks.rank}")))
    assert "there is no NCCL (rank 0 on " in how[0] and "nvidia-nccl-cu13" in how[0] and len(caplog.records) == 1
    assert connect(Solo(), backend_of(Solo(), folder, "0")) == ""


def test_all_on_gpus_or_none(folder):
    cpu = NumpyBackend(1)
    assert on_ranks(2, lambda ranks: connect(ranks, cpu)) == [""] * 2

    def mixed(ranks: ThreadRanks) -> str:
        with pytest.raises(CommunicatorError) as error:
            connect(ranks, cpu if ranks.rank == 1 else backend_of(ranks, folder, "0"))
        return str(error.value)

    assert all(
        "computes on the CPU, and rank 0 on a GPU; wanted one kind for all" in said for said in on_ranks(2, mixed)
    )


def test_nccl_that_cannot_begin_is_an_error_of_all(monkeypatch):
    class Broken:
        NcclError, NCCL_UINT8 = nccl_on_host.NcclError, 1

        @staticmethod
        def get_unique_id() -> Any:
            raise nccl_on_host.NcclError("NCCL_ERROR_SYSTEM_ERROR:\nno network")

    def work(ranks: ThreadRanks) -> str:
        with pytest.raises(CommunicatorError) as error:
            NcclCommunicator(ranks, Broken, 0)
        return str(error.value)

    assert set(on_ranks(2, work)) == {
        "rank 0 on host0: NCCL failed: NCCL_ERROR_SYSTEM_ERROR: no network; "
        "NCCL_DEBUG=WARN has it say why; go on with gpubp resume"
    }


def test_a_wait_is_the_watchdogs_and_ends_where_nccl_has_lost_another_rank():
    def work(ranks: ThreadRanks) -> None:
        inside: list[bool] = []

        class Waiting:
            def __enter__(self) -> None:
                inside.append(True)

            def __exit__(self, *error: Any) -> None:
                inside.pop()

        ranks.waiting = Waiting  # type: ignore[method-assign, assignment]
        link = NcclCommunicator(ranks, nccl_on_host, 0)
        seen: list[int] = []

        def done() -> bool:
            seen.append(len(inside))
            return len(seen) > 3

        link.wait(done)
        assert seen == [1] * 4 and not inside

        def lost() -> None:
            raise nccl_on_host.NcclError("NCCL_ERROR_REMOTE")

        link._comm.check_async_error = lost
        with pytest.raises(CommunicatorError, match="NCCL failed: NCCL_ERROR_REMOTE"):
            link.wait(lambda: False)
        assert not inside

    on_ranks(2, work)


# The plan.
