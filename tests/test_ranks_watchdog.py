"""When a rank has waited too long for the others, and what is not waiting."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from gpubp.communicator import mpi, watchdog
from gpubp.communicator.pulse import Pulse
from gpubp.communicator.watchdog import TICK, Watchdog


class Clock:
    """Time that passes when it is told to, and a watchdog that looks then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        # threads of real watchdogs, of tests before, still sleep by it
        monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=time.sleep))
        monkeypatch.setattr(watchdog, "threading", SimpleNamespace(Thread=lambda **_: SimpleNamespace(start=int)))
        self.dogs: list[Watchdog] = []

    def dog(self, rank: int, seconds: float, pulse: Any = None) -> tuple[Watchdog, list[float]]:
        told: list[float] = []
        self.dogs.append(Watchdog(rank, seconds, told.append, pulse))
        return self.dogs[-1], told

    def passes(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            for dog in self.dogs:
                dog.look()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_wait_that_is_too_long_is_ended(clock):
    dog, told = clock.dog(0, 5)
    with dog.waiting():
        clock.passes(4.8)
        assert not told
        clock.passes(0.4)
    assert told and told[0] == pytest.approx(5, abs=0.2)


def test_work_of_ones_own_is_no_wait_and_waits_do_not_add_up(clock):
    dog, told = clock.dog(0, 5)
    clock.passes(100)
    for _ in range(10):
        with dog.waiting():
            clock.passes(4)
    assert not told


def test_who_was_busy_for_long_waits_for_long(clock):
    dog, told = clock.dog(0, 5)
    clock.passes(60)
    with dog.waiting():
        clock.passes(124)
        assert not told
        clock.passes(2)
    assert told


def test_time_in_which_the_process_was_stopped_does_not_count(clock):
    dog, told = clock.dog(0, 5)
    with dog.waiting():
        clock.passes(1)
        clock.now += 3600
        clock.passes(2)
    assert not told


def test_one_rank_speaks_before_the_others(clock):
    (first, said), (second, also) = clock.dog(0, 5), clock.dog(3, 5)
    with first.waiting(), second.waiting():
        clock.passes(5.3)
        assert said and not also
        clock.passes(2)
    assert also  # where the first one could not


def test_it_looks_by_itself():
    told = threading.Event()
    dog = Watchdog(0, 0.05, lambda waited: told.set())
    with dog.waiting():
        assert told.wait(60)


class Line:
    """What rank 0 says, on its way to another."""

    def __init__(self) -> None:
        self.sent, self.seen, self.cut = 0, 0, False

    def beat(self) -> None:
        self.sent += not self.cut

    def heard(self) -> bool:
        before, self.seen = self.seen, self.sent
        return self.seen > before


@pytest.fixture
def two(clock: Clock) -> tuple[Any, Any, Line, list[float]]:
    """Watchdogs of rank 0 and of another, what goes from one to the other, and what the other has told."""
    line = Line()
    (first, _), (other, told) = clock.dog(0, 5, line), clock.dog(1, 5, line)
    return first, other, line, told


def test_what_rank_0_does_alone_may_take_as_long_as_it_takes(clock, two):
    first, other, _, told = two
    with other.waiting():
        with first.alone("writing"):
            clock.passes(60)
        clock.passes(4)
        assert not told
        clock.passes(3)
        assert told


def test_signs_of_life_that_do_not_come(clock, two):
    first, other, line, told = two
    with first.alone("writing"), other.waiting():
        clock.passes(60)
        line.cut = True
        clock.passes(4)
        assert not told
        clock.passes(3)
    assert told


def test_rank_0_says_nothing_while_it_waits_itself_or_is_only_busy(clock, two):
    first, _, line, _ = two
    with first.alone("writing"), first.waiting():
        clock.passes(4)
    clock.passes(4)
    assert line.sent == 0


def test_there_is_time_for_several_signs_of_life(clock):
    line = Line()
    first, _ = clock.dog(0, 1, line)
    with first.alone("writing"):
        clock.passes(1)
    assert line.sent >= 3


class Comm:
    """Rank 1 of two, to which so many messages are on their way, and whose own never go."""

    def __init__(self, coming: int) -> None:
        self.coming, self.sent, self.at_once = coming, 0, 0

    def Get_size(self) -> int:
        return 2

    def Iprobe(self, source: int, tag: int) -> bool:
        found = self.coming > 0
        time.sleep(0.02)
        return found

    def Recv(self, *_: Any) -> None:
        assert self.coming > 0, "two threads have taken one message"
        self.coming -= 1

    def Isend(self, *_: Any) -> str:
        self.sent += 1
        return "a request"


MPI = SimpleNamespace(
    BYTE=None, Exception=RuntimeError, Request=SimpleNamespace(Testall=lambda under_way: not under_way)
)


def test_two_threads_may_look_for_signs_of_life():
    comm = Comm(3)
    pulse = Pulse(MPI, comm)
    errors: list[BaseException] = []

    def look() -> None:
        try:
            pulse.heard()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and pulse.count == 3 and not pulse.heard()


def test_signs_of_life_do_not_pile_up():
    comm = Comm(0)
    pulse = Pulse(MPI, comm)
    for _ in range(5):
        pulse.beat()
    assert comm.sent == pulse.count == 1
    pulse.close()
    pulse.beat()
    assert comm.sent == 1 and not pulse.heard()


def test_a_disk_that_never_says_what_is_kept_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(mpi, "MOMENT", 0.05)
    ranks = object.__new__(mpi.MpiCommunicator)
    never = threading.Event()
    ranks.kept = lambda: str(never.wait(60))
    began = time.monotonic()
    assert ranks._what_is_kept() == "" and time.monotonic() - began < 30
    never.set()
    ranks.kept = lambda: "a checkpoint"
    assert ranks._what_is_kept() == "a checkpoint"


def test_work_within_work_is_told_by_its_own_name_and_then_the_other(clock, two, caplog):
    first, *_ = two
    with first.alone("looking"):
        clock.passes(3)
        with first.alone("writing"):
            clock.passes(6)
        clock.passes(3)
    assert [record.getMessage() for record in caplog.records] == [
        "writing takes 5 s so far; the other ranks wait for it",
        "looking takes 9 s so far; the other ranks wait for it",
    ]
