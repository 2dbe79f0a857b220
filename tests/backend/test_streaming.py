"""Rows read from a file in each pass give the bits of rows in memory, whoever reads them; what goes wrong is a line."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import passes
import pytest
from passes import labels, numbers, objective
from raw_rows import RawRows, later

from gpubp.backend.compiled import missing
from gpubp.data import direct
from gpubp.data.direct import Direct
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows, RowSource, StackedRows
from gpubp.errors import DataError
from gpubp.network import Network

M, D = 1003, 11
NETWORK = Network((D, 9, 4), "tanh")
OPTIONS: dict[str, Any] = {"leaves": 8, "block_rows": 37}  # blocks of unequal length: 126 rows are 4 of them
SCALING = Scaling("standard", np.linspace(0, 2, D), np.linspace(1, 3, D))
KERNELS = [pytest.param("compiled", marks=pytest.mark.skipif(bool(missing()), reason=missing())), "numpy"]
Raw = Callable[..., RawRows]


@pytest.fixture
def raw(tmp_path) -> Iterator[Raw]:
    opened: list[RawRows] = []

    def make(X: np.ndarray) -> RawRows:
        opened.append(RawRows(tmp_path / f"{len(opened)}.bin", X))
        return opened[-1]

    yield make
    for source in opened:
        source.close()


def table(stored: str, m: int = M) -> np.ndarray:
    return (numbers((m, D), seed=1) * 20 + 90).clip(0, 200).astype(stored)


def rows(source: RowSource, X: np.ndarray, kept: int, *, weighted: bool = False) -> Rows:
    more: dict[str, Any] = {}
    if weighted:
        w = np.arange(len(X)) % 3.0
        more = {"weights": w, "validation": np.where(w == 0, 1.5, 0)}
    return Rows(source, np.ascontiguousarray(X[:kept]), SCALING, labels(NETWORK, len(X)), **more)


def streams(it: Any, source: RawRows) -> bool:
    """Whether it never asked the source: compiled passes read by themselves, NumPy's through `Direct`."""
    return source.asked == 0 and (it.backend.choice["kernel"] == "numpy" or it._pass._whole is not None)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stored", ["u1", "f4", "f8", "i2", "f2"])
def test_how_many_rows_are_kept_changes_no_bit(kernel, stored, raw):
    X = table(stored)
    source = raw(X)
    for precision, weighted in product(("fp32", "fp64"), (False, True)):
        options = {"kernel": kernel, "precision": precision, **OPTIONS}
        wanted = passes.evaluate(NETWORK, rows(ArrayRows(X), X, M, weighted=weighted), **options)
        for kept in (0, 1, 126, 500, M - 1, M):
            with objective(NETWORK, rows(source, X, kept, weighted=weighted), **options) as it:
                assert passes.at(it).bits == wanted.bits, f"{kept} kept"
                assert streams(it, source)


@pytest.mark.parametrize("kernel", KERNELS)
def test_threads_and_repetitions_change_no_bit(kernel, raw):
    X = table("f4")
    source = raw(X)
    wanted = passes.evaluate(NETWORK, rows(ArrayRows(X), X, M), kernel=kernel, **OPTIONS)
    for threads in (1, 2, 3, 7):
        with objective(NETWORK, rows(source, X, 200), kernel=kernel, threads=threads, **OPTIONS) as it:
            assert {passes.at(it).bits for _ in range(8)} == {wanted.bits}
            assert streams(it, source)


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_of_several_files(kernel, raw):
    """Training rows, then validation rows, each one piece of a file; and one part that only its source can read."""
    X = table("u1")
    wanted = passes.evaluate(NETWORK, rows(ArrayRows(X), X, M), kernel=kernel, **OPTIONS)
    parts = [raw(X[:300]), raw(X[300:301]), raw(X[301:])]
    for kept in (0, 299, 302):
        with objective(NETWORK, rows(StackedRows(parts), X, kept), kernel=kernel, **OPTIONS) as it:
            assert passes.at(it).bits == wanted.bits
            assert all(streams(it, part) for part in parts)
    nested = StackedRows([StackedRows([ArrayRows(X[:300]), parts[1]]), parts[2]])
    for kept, whole in ((0, False), (290, False), (300, False), (400, True)):
        with objective(NETWORK, rows(nested, X, kept), kernel=kernel, **OPTIONS) as it:
            assert passes.at(it).bits == wanted.bits
            if kernel == "compiled":
                # a block that is partly in memory is read as a whole, so rows before the kept ones' end count
                assert (it._pass._whole is not None) == whole
    mixed = StackedRows([parts[0], ArrayRows(X[300:].astype("i2"))])  # uint8 rows as int16: converted on the way
    wide = X.astype("i2")
    wanted = passes.evaluate(NETWORK, rows(ArrayRows(wide), wide, M), kernel=kernel, **OPTIONS)
    assert passes.evaluate(NETWORK, rows(mixed, wide, 0), kernel=kernel, **OPTIONS).bits == wanted.bits


@pytest.mark.parametrize("kernel", KERNELS)
def test_how_far_ahead_the_system_is_told_changes_nothing(kernel, raw, monkeypatch):
    """Steps shorter and longer than a block, and than the file."""
    X = table("f4")
    wanted = passes.evaluate(NETWORK, rows(ArrayRows(X), X, M), kernel=kernel, **OPTIONS)
    for step, depth, enough in ((1 << 10, 2, 1 << 60), (1 << 14, 1, 1 << 60), (1 << 20, 8, 1 << 60), (1, 1, 0)):
        for name, value in (("STEP", step), ("DEPTH", depth), ("ENOUGH", enough)):
            monkeypatch.setattr(direct, name, value)
        assert Direct(raw(X)).ahead == ((step, depth) if enough else (0, 0))
        assert passes.evaluate(NETWORK, rows(raw(X), X, 0), kernel=kernel, **OPTIONS).bits == wanted.bits


# What goes wrong.


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_file_cut_short_ends_the_pass_with_a_line_and_the_next_one_is_whole(kernel, threads, raw):
    X = table("f4")
    source = raw(X)
    whole = source.path.read_bytes()
    with objective(NETWORK, rows(source, X, 100), kernel=kernel, threads=threads, **OPTIONS) as it:
        wanted = passes.at(it).bits
        for length in (len(whole) - 1, source.HEADER + 700 * 4 * D, 100):
            os.truncate(source.path, length)
            it.rows.check = lambda: None  # as if it had happened in the middle of a pass
            with pytest.raises(DataError) as caught:
                passes.at(it)
            assert str(source.path) in str(caught.value) and "\n" not in str(caught.value)
            assert "rows " in str(caught.value)
            source.path.write_bytes(whole)
            for _ in range(3):
                assert passes.at(it).bits == wanted
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpubp-") and not thread.daemon]


def test_rows_that_fail_once_are_not_passed_over(raw):
    """The descriptor is bad and the source, asked for the words, can read: still no number comes of that pass."""
    pytest.importorskip("numba")
    X = table("f4")
    source = raw(X)
    with objective(NETWORK, rows(source, X, 0), **OPTIONS) as it:
        wanted = passes.at(it).bits
        opened = [loop._opened.table for loop in it._pass._whole._loops]
        own = [one[0, 2] for one in opened]
        for one in opened:
            one[0, 2] = 1 << 20
        with pytest.raises(DataError, match=r"rows \d+ to \d+ could not be read at first"):
            passes.at(it)
        for one, fd in zip(opened, own, strict=True):
            one[0, 2] = fd
        assert passes.at(it).bits == wanted


def test_short_and_interrupted_reads_are_gone_on_with(raw):
    """A `pread` that brings seven bytes at a time and is interrupted each third time."""
    numba = pytest.importorskip("numba")
    from gpubp.backend.compiled import fetch, intrinsics, leaf

    pread, _, error = fetch.addresses()
    write, one = intrinsics.pointer, np.int32(0)
    calls = np.zeros(1, np.int64)
    counter = calls.ctypes.data

    @numba.cfunc("int64(int64, int64, int64, int64)")
    def poor(fd, to, left, at):
        n = intrinsics.atomic_add(counter, 1)
        if n % 3 == 2:
            numba.carray(write(intrinsics.call_for(error, ()), one), 1)[0] = 4  # EINTR
            return -1
        return intrinsics.call_for(pread, (fd, to, min(left, 7), at))

    X = table("f4", 90)
    source = raw(X)
    wanted = passes.evaluate(NETWORK, rows(ArrayRows(X), X, 90), **OPTIONS)
    with objective(NETWORK, rows(source, X, 0), threads=2, **OPTIONS) as it:
        for loop in it._pass._whole._loops:
            loop._code[leaf.PREAD] = poor.address
        assert passes.at(it).bits == wanted.bits
        assert source.asked == 0 and calls[0] > 2 * X.nbytes // 7


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_file_that_changes_is_noticed_by_the_pass(kernel, when, raw):
    X = table("f4")
    source = raw(X)
    with objective(NETWORK, rows(source, X, 100), kernel=kernel, **OPTIONS) as it:
        passes.at(it)
        if when == "before":
            later(source.path)
        else:
            # what reads all rows: the file is looked at once more when it has
            reader, name = (it._pass._whole, "nodes") if it._pass._whole else (it._pass._tree, "root")
            read = getattr(reader, name)

            def then_changed(*arguments: Any) -> Any:
                found = read(*arguments)
                later(source.path)
                return found

            setattr(reader, name, then_changed)
        with pytest.raises(DataError, match="written to after it was opened"):
            it.value(it.network.initial_Theta(1))


def test_a_file_that_is_no_longer_read_may_change(raw):
    X = table("f4")
    source = raw(X)
    with objective(NETWORK, rows(source, X, M), kernel="numpy", **OPTIONS) as it:
        wanted = passes.at(it).bits
        os.truncate(source.path, 0)
        assert passes.at(it).bits == wanted


@pytest.mark.parametrize("parts", [1, 3, 9])
def test_files_that_threads_opened_are_closed(parts, raw):
    pytest.importorskip("numba")
    X = table("f4")
    edges = [M * i // parts for i in range(parts + 1)]
    sources = [raw(X[a:b]) for a, b in pairwise(edges)]
    source, paths = StackedRows(sources), {str(one.path) for one in sources}

    def opened() -> int:  # of this test's files: threads of the one before may still be closing theirs
        found = 0
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found += os.readlink(link) in paths
        return found

    before = opened()
    assert before == parts
    with objective(NETWORK, rows(source, X, 0), threads=3, **OPTIONS) as it:
        passes.at(it)
        own = parts if parts <= 8 else 0  # a thread does not open very many
        assert opened() == before + 3 * own
    gc.collect()
    assert opened() == before
