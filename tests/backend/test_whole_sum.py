"""The threads of a compiled pass: they sleep and wake, survive an interrupt, end; and no bit depends on any of it."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import passes
import pytest
from passes import labels, numbers, objective, rows_of
from running import ENVIRONMENT, ROOT

from gpubp.network import Network
from gpubp.objective import Objective

pytest.importorskip("numba")

NETWORK = Network((12, 20, 5), "tanh")
ROWS = rows_of(numbers((4000, 12), np.float32), labels(NETWORK, 4000))
OPTIONS: dict[str, Any] = {"leaves": 64, "block_rows": 50}


_others: set[threading.Thread] = set()  # of tests before in this process


@pytest.fixture(scope="module", autouse=True)
def _our_threads_alone() -> None:
    _others.update(threading.enumerate())


@pytest.fixture(autouse=True)
def _none_of_the_test_before() -> None:
    assert until(lambda: not helpers()), "close() asks threads to end, and does not wait until they have"


def helpers() -> list[str]:
    mine = set(threading.enumerate()) - _others
    return sorted(thread.name for thread in mine if thread.name.startswith("gpubp"))


def until(condition: Callable[[], object], seconds: float = 10) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(condition())


def asleep(whole: Any) -> int:
    native, shared = whole._native, whole._shared
    return int(shared[native.OWN + native.PER_OWNER + native.ASLEEP :: native.PER_OWNER].sum())


@pytest.fixture(scope="module")
def bits() -> tuple[Any, ...]:
    """Of the passes by one thread, which are NumPy's to rounding."""
    with objective(NETWORK, ROWS, threads=1, **OPTIONS) as it:
        assert it._pass._whole is not None and not helpers()
        found = passes.at(it)
    passes.assert_close(found, passes.evaluate(NETWORK, ROWS, kernel="numpy", **OPTIONS), 1e-5)
    return found.bits


def test_the_tree_by_python_gives_the_same_bits(bits):
    """One row is not kept, so `gpubp.tree.SumTree` shares the leaves out."""
    with objective(NETWORK, rows_of(ROWS.kept, ROWS.labels, kept=3999), threads=3, **OPTIONS) as it:
        assert it._pass._whole is None
        assert passes.at(it).bits == bits


def test_helpers_go_to_sleep_and_are_woken(bits):
    with objective(NETWORK, ROWS, threads=4, **OPTIONS) as it:
        for pause in (0, 0.0005, 0.001, 0.02, 0.02):
            assert passes.at(it).bits == bits
            time.sleep(pause)
        for _ in range(3):
            assert until(lambda: asleep(it._pass._whole) == 3), "they look for work for ever"
            assert passes.at(it).bits == bits


def test_passes_at_the_edge_of_sleep(bits):
    """A pass that begins just when helpers fall asleep, some hundred times."""
    with objective(NETWORK, ROWS, threads=3, **OPTIONS) as it:
        rng = np.random.default_rng(0)
        Theta = it.network.initial_Theta(1)
        for pause in rng.uniform(0.0005, 0.003, 150):
            time.sleep(pause)
            assert it.value(Theta) == bits[2]


def test_memory_does_not_grow_with_the_number_of_passes(bits):
    with objective(NETWORK, ROWS, threads=3, **OPTIONS) as it:
        for _ in range(60):
            assert passes.at(it).bits == bits
        assert it._pass._whole is not None
        # alive at most: on each owner one leaf, and one node a level at both ends of its range
        assert len(it._pass._whole._flats) <= 3 * (2 * 6 + 1)


@pytest.mark.parametrize(("owners", "leaves"), [(7, 2), (5, 1), (4, 4), (3, 64)])
def test_more_owners_than_leaves(owners, leaves):
    with objective(NETWORK, ROWS, threads=1, leaves=leaves, block_rows=50) as it:
        wanted = it.value(it.network.initial_Theta(1))
        Theta = it._pass._Theta_host
        whole = it.backend.whole_sum(NETWORK, it._pass._feed, Theta, leaves, owners, 50)
        assert whole is not None and len(helpers()) == owners - 1
        for _ in range(5):
            node = whole.nodes(True)[1]
            assert node.cost[0] / 4000 == pytest.approx(wanted, rel=1e-2)
            results = (node.cost.tobytes(), node.flat.tobytes())
            whole_by_one = it._pass._whole
            assert whole_by_one is not None
            alone = whole_by_one.nodes(True)[1]
            assert results == (alone.cost.tobytes(), alone.flat.tobytes())
        whole.close()
    assert until(lambda: not helpers())


def test_many_objectives_at_once(bits):
    opened = [objective(NETWORK, ROWS, threads=1 + i % 4, **OPTIONS) for i in range(12)]
    its = [context.__enter__() for context in opened]
    for _ in range(3):
        assert {passes.at(it).bits for it in its} == {bits}
    for context in opened[::-1]:
        context.__exit__(None, None, None)
    assert until(lambda: not helpers())


def test_objectives_of_several_threads(bits):
    found: list[Any] = []

    def one() -> None:
        with objective(NETWORK, ROWS, threads=3, **OPTIONS) as it:
            found.extend(passes.at(it).bits for _ in range(5))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [bits] * 20
    assert until(lambda: not helpers())


def test_close_ends_the_threads_and_may_be_said_twice(bits):
    with objective(NETWORK, ROWS, threads=4, **OPTIONS) as it:
        assert helpers() == ["gpubp-1", "gpubp-2", "gpubp-3"]
        assert passes.at(it).bits == bits
        it.close()
        assert until(lambda: not helpers())
    with objective(NETWORK, ROWS, threads=4, **OPTIONS) as it:  # and without a pass, from sleep
        assert until(lambda: asleep(it._pass._whole) == 3)
    assert until(lambda: not helpers())


@pytest.mark.parametrize("awake", [True, False])
def test_a_forgotten_objective_ends_its_threads(bits, awake):
    with objective(NETWORK, ROWS, threads=3, **OPTIONS) as it:
        forgotten = Objective(NETWORK, ROWS, 0.3, backend=it.backend, **OPTIONS)
        assert passes.at(forgotten).bits == bits and len(helpers()) == 4
        if not awake:
            sleepers = partial(asleep, forgotten._pass._whole)
            assert until(lambda: sleepers() == 2)
            del sleepers
        del forgotten
        gc.collect()
        assert until(lambda: len(helpers()) == 2)
        assert passes.at(it).bits == bits


# Interrupts.


class Interrupt(BaseException):
    """What a signal's handler raises."""


@pytest.mark.parametrize("after", [0, 1, 5, 20, 63])
@pytest.mark.parametrize("threads", [1, 3])
def test_an_interrupt_between_two_leaves_leaves_all_ready(bits, threads, after):
    with objective(NETWORK, ROWS, threads=threads, **OPTIONS) as it:
        whole: Any = it._pass._whole
        native, slices = whole._native, iter(range(after))

        def work(*arguments: Any) -> Any:
            if next(slices, None) is None:
                raise Interrupt
            return native.work(*arguments)

        whole._native, whole._most = SimpleNamespace(**vars(native) | {"work": work}), 1
        gradient = np.zeros(NETWORK.P)
        if threads == 1:  # helpers may have taken all before
            with pytest.raises(Interrupt):
                it.value_and_gradient(NETWORK.initial_Theta(1), gradient)
        else:
            for _ in range(3):
                try:
                    it.value_and_gradient(NETWORK.initial_Theta(1), gradient)
                except Interrupt:
                    slices = iter(range(after))
        whole._native = native
        for _ in range(3):
            assert passes.at(it).bits == bits


def test_helpers_take_no_more_leaves_after_an_interrupt():
    rows = rows_of(numbers((60_000, 12), np.float32), labels(NETWORK, 60_000))
    with objective(NETWORK, rows, threads=3, leaves=512) as it:
        whole: Any = it._pass._whole
        native, begun = whole._native, []

        def work(*arguments: Any) -> Any:
            raise Interrupt

        for _ in range(5):  # once they may be through before the interrupt is
            whole._native = SimpleNamespace(**vars(native) | {"work": work})
            with pytest.raises(Interrupt):
                it.value(NETWORK.initial_Theta(1))
            whole._native = native
            begun.append(int(np.count_nonzero(whole._waiting)))
        it.value(NETWORK.initial_Theta(1))
        assert np.count_nonzero(whole._waiting) == 511  # a node for each pair
        assert min(begun) < 400, begun


def test_no_room_for_a_buffer_is_an_error_and_leaves_all_ready(bits, monkeypatch):
    """Whoever needs the buffer, the calling thread or a helper."""
    from gpubp.backend.compiled.whole import WholeSum

    add, in_helper = WholeSum.add_buffer, threading.Event()
    for fails_in_helper in (False, True):
        with objective(NETWORK, ROWS, threads=3, **OPTIONS) as it:

            def full(self: Any, fails_in_helper: bool = fails_in_helper) -> None:
                if (threading.current_thread() is not threading.main_thread()) == fails_in_helper:
                    in_helper.set()
                    raise MemoryError("no room")
                if fails_in_helper:
                    in_helper.wait(10)  # so that a helper needs one
                add(self)

            monkeypatch.setattr(WholeSum, "add_buffer", full)
            in_helper.clear()
            with pytest.raises(MemoryError, match="no room"):
                passes.at(it)
            monkeypatch.setattr(WholeSum, "add_buffer", add)
            for _ in range(3):
                assert passes.at(it).bits == bits


def test_signals_at_any_time_leave_all_ready(bits):
    def handler(*_: Any) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, handler)
    interrupted = 0
    try:
        with objective(NETWORK, ROWS, threads=3, **OPTIONS) as it:
            whole: Any = it._pass._whole
            whole._most = 1
            Theta = NETWORK.initial_Theta(1)
            began = time.perf_counter()
            it.value(Theta)
            length = time.perf_counter() - began
            for part in np.linspace(0.05, 0.95, 40):
                try:
                    signal.setitimer(signal.ITIMER_REAL, max(part * length, 1e-6))
                    it.value(Theta)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Interrupt:
                    interrupted += 1
                assert it.value(Theta) == bits[2]
            assert passes.at(it).bits == bits
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted


# What hangs where it is wrong runs in a process of its own, which ends itself.

APART = """
import faulthandler
faulthandler.dump_traceback_later(20, exit=True)
import time, sys, threading
sys.path.insert(0, "tests/backend")
import passes, test_whole_sum as t
from gpubp.backend.compiled import whole as room
Theta = t.NETWORK.initial_Theta(1)
with passes.objective(t.NETWORK, t.ROWS, threads=1, **t.OPTIONS) as it:
    wanted = passes.at(it).bits
"""


def apart(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", APART + code], capture_output=True, text=True, cwd=ROOT, timeout=120,
        env=ENVIRONMENT | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("threads", [63, 64, 65, 70])
def test_helpers_of_a_large_machine_are_woken(threads):
    """There are more of them than bits in a word."""
    apart(f"""
with passes.objective(t.NETWORK, t.ROWS, threads={threads}, leaves=128, block_rows=50) as it:
    first = passes.at(it).bits
    for _ in range(2):
        assert t.until(lambda: t.asleep(it._pass._whole) == {threads} - 1), "they do not sleep"
        assert passes.at(it).bits == first
""")


def test_an_interrupt_while_helpers_are_woken_leaves_all_ready():
    apart("""
with passes.objective(t.NETWORK, t.ROWS, threads=3, **t.OPTIONS) as it:
    assert passes.at(it).bits == wanted
    assert t.until(lambda: t.asleep(it._pass._whole) == 2)
    rouse = room._rouse
    def interrupted(*_):
        room._rouse = rouse
        raise KeyboardInterrupt
    room._rouse = interrupted
    try:
        it.value(Theta)
    except KeyboardInterrupt:
        pass
    assert passes.at(it).bits == wanted
""")


def test_a_pass_after_close_is_an_error():
    apart("""
with passes.objective(t.NETWORK, t.ROWS, threads=3, **t.OPTIONS) as it:
    it.close()
    try:
        it.value(Theta)
    except Exception:  # which one is not promised
        pass
    else:
        raise AssertionError("a pass without threads")
""")
