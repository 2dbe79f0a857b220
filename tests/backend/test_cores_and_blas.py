"""How many cores are ours, and that BLAS has one thread while a pass runs."""

from __future__ import annotations

import threading

import pytest

from gpubp.backend import blas
from gpubp.backend.cores import _quota, available_cores


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.5),
        ({"cpu/cpu.cfs_quota_us": "250000\n"}, None),
        ({}, None),
    ],
)
def test_quota_of_a_control_group(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _quota(tmp_path) == cores


def test_there_is_a_core():
    assert available_cores() >= 1


@pytest.fixture
def libraries():
    """The BLAS of this process with two threads each, restored afterwards."""
    found = blas.loaded()
    if not found:
        pytest.skip("no BLAS whose threads can be set")
    before = [b.threads() for b in found]
    for b in found:
        b.set_threads(2)
    yield found
    for b, threads in zip(found, before, strict=True):
        b.set_threads(threads)


def counts(libraries) -> set[int]:
    return {b.threads() for b in libraries}


def test_one_thread_is_set_and_restored(libraries):
    with blas.one_thread():
        assert counts(libraries) == {1}
        with blas.one_thread():
            assert counts(libraries) == {1}
        assert counts(libraries) == {1}
    assert counts(libraries) == {2}


def test_one_thread_is_restored_after_an_error(libraries):
    with pytest.raises(KeyError), blas.one_thread():
        raise KeyError
    assert counts(libraries) == {2}


def test_the_last_to_leave_restores(libraries):
    entered, leave = threading.Event(), threading.Event()

    def other():
        with blas.one_thread():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with blas.one_thread():
        thread.start()
        assert entered.wait(10)
    assert counts(libraries) == {1}
    leave.set()
    thread.join()
    assert counts(libraries) == {2}


def test_blas_is_named(libraries):
    assert any(b.title in blas.describe() for b in libraries)
