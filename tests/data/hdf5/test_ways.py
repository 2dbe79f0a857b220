"""Whatever the layout, the type and the version of the file: rows are those of HDF5, read without it if that can be."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gpubp.data.guard import open_file
from gpubp.data.hdf5 import chunked, contiguous, ways
from gpubp.data.hdf5.file import HdfFile
from gpubp.data.hdf5.rows import HdfRows
from gpubp.data.hdf5.stored import Stored
from gpubp.data.source import ArrayRows, StackedRows
from gpubp.errors import DataError

RNG = np.random.default_rng(5)
Write = Callable[..., Path]
Open = Callable[[Path], HdfFile]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(X, chunks=…, …)` writes the dataset "X" and gives the file's path."""

    def make(X: Any, *, name: str = "d.h5", file: dict[str, Any] | None = None, **how: Any) -> Path:
        with h5py.File(tmp_path / name, "w", **(file or {})) as out:
            out.create_dataset("X", data=X, **how)
        return tmp_path / name

    return make


@pytest.fixture
def opened() -> Iterator[Open]:
    files: list[HdfFile] = []

    def keep(path: Path) -> HdfFile:
        files.append(open_file(path))
        return files[-1]

    yield keep
    for file in files:
        file.close()


def rows_of(way: ways.Way, X: np.ndarray, start: int, stop: int) -> np.ndarray:
    out = np.empty_like(X[start:stop])
    way.read(start, stop, out.reshape(-1).view(np.uint8).data)
    return out


def agrees(way: ways.Way, X: np.ndarray) -> bool:
    m = len(X)
    parts = [(0, m), (m // 3, m), (0, 1), (m - 1, m), *([(m // 3, m // 2 + 1), (m // 2, m // 2 + 1)] if m > 3 else [])]
    return all(rows_of(way, X, a, b).tobytes() == X[a:b].tobytes() for a, b in parts)


def values(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return RNG.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8).view(dtype).reshape(shape)


TYPES = ["u1", "i1", "<u2", ">i2", "<f2", ">f2", "<i4", ">f4", "<f4", "<f8", ">f8", "<u8", "<c8", "V5"]
# shape, chunk: whole rows, edge chunks, one chunk, one row, split columns, images, one axis
SHAPES = [
    ((50, 6), (10, 6)), ((53, 6), (10, 6)), ((7, 3), (7, 3)), ((1, 4), (1, 4)), ((53, 7), (10, 3)), ((9, 5), (1, 5)),
    ((41, 4, 5), (7, 4, 5)), ((41, 4, 5), (7, 3, 2)), ((53,), (8,)), ((3, 4), (8, 4)),
]  # fmt: skip


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("block", [0, 1024])
def test_rows_are_read_without_hdf5_in_every_layout(libver, block, tmp_path, opened, monkeypatch):
    """All types and shapes in one file; both generations of chunk indices; a file that begins with the user's bytes."""
    there = {}
    with h5py.File(tmp_path / "d.h5", "w", libver=libver, userblock_size=block) as file:
        for number, (shape, chunk) in enumerate(SHAPES):
            for dtype in TYPES if number in (1, 4) else TYPES[number : number + 2]:
                for kind, how in {
                    "plain": {},
                    "fixed": {"chunks": chunk},
                    "growing": {"chunks": chunk, "maxshape": (None, *shape[1:])},
                    "tree": {"chunks": chunk, "maxshape": (None,) * len(shape)},
                }.items():
                    if any(long < short for long, short in zip(shape, chunk, strict=True)) and kind == "fixed":
                        continue
                    name = f"{kind} {shape} {chunk} {dtype}"
                    there[name] = X = values(shape, dtype)
                    file.create_dataset(name, data=X, **how)
    file = opened(tmp_path / "d.h5")
    monkeypatch.setattr(HdfFile, "read", lambda *_, **__: pytest.fail("HDF5 was asked"))
    for name, X in there.items():
        way = ways.choose(file, file.dataset(name).as_table(), name)
        assert isinstance(way, ways.Direct), name
        assert agrees(way, X.reshape(len(X), -1)), name


def test_places_that_do_not_count_the_users_block_are_mended(write):
    from gpubp.data.hdf5 import survey

    path = write(values((20, 3), "f4"), file={"userblock_size": 512}, chunks=(5, 3), compression="gzip")
    with h5py.File(path, locking=False) as file:
        X: Any = file["X"]
        found, _ = survey.locate(X)
        assert found is not None and survey._before(X, found[0]) == 0
        assert survey._before(X, found[0] - [512, 0, 0]) == 512


def test_types_without_a_plain_name_are_read_too(tmp_path, opened):
    record = np.dtype([("pt", "<f4"), ("n", ">i2"), ("p", "<f8", (3,))])
    flags, jets = RNG.integers(0, 2, (40, 3)).astype(bool), values((40,), record)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["flags"], file["jets"] = flags, jets
        file.create_dataset("chunked", data=jets, chunks=(7,), compression="gzip", shuffle=True)
        enum = h5py.enum_dtype({"A": 0, "B": 1}, basetype="u1")
        file.create_dataset("enum", data=flags.astype("u1"), dtype=enum, chunks=(9, 2))
    found = opened(tmp_path / "d.h5")
    for name, X in {"flags": flags, "jets": jets, "chunked": jets, "enum": flags.astype("u1")}.items():
        stored = found.dataset(name)
        assert stored.row_bytes == X.nbytes // 40
        way = ways.choose(found, stored, name)
        assert isinstance(way, ways.Direct) and agrees(way, X), name


def test_neighbouring_chunks_are_one_piece(write, opened):
    X = values((1000, 16), "f4")
    file = opened(write(X, chunks=(100, 16)))
    stored = file.dataset("X")
    assert stored.chunks is not None
    rows = chunked.extents(file.fd, stored)
    gaps = int((np.diff(stored.chunks[:, 0]) != 6400).sum())
    assert rows.name == (f"in {gaps + 1:,} contiguous pieces" if gaps else "contiguous")
    assert gaps + 1 < len(stored.chunks)
    turned = Stored(**(vars(stored) | {"chunks": stored.chunks[::-1].copy()}))  # no two lie behind each other
    assert chunked.extents(file.fd, turned).name == "in 10 contiguous pieces"
    out = np.empty((250, 16), "f4")
    chunked.extents(file.fd, turned).read(150, 400, out.data.cast("B"))
    assert out.tobytes() == np.concatenate([X[850:900], X[700:800], X[600:700]]).tobytes()


def test_only_rows_that_lie_as_they_are_read_have_an_extent(write, opened):
    X = values((60, 5), "<f4")

    def extent(path: Path) -> Any:
        file = opened(path)
        return HdfRows(file, file.dataset("X")).extent()

    found = extent(write(X))
    assert os.pread(found.fd, X.nbytes, found.offset) == X.tobytes()
    found = extent(write(X, name="one.h5", chunks=(60, 5)))
    assert os.pread(found.fd, X.nbytes, found.offset) == X.tobytes()
    assert extent(write(X.astype(">f4"), name="big.h5")) is None
    assert extent(write(X, name="z.h5", chunks=(9, 5), compression="gzip")) is None
    assert extent(write(X, name="s.h5", chunks=(9, 2))) is None
    assert ArrayRows(X).extent() is None and StackedRows([ArrayRows(X)]).extent() is None


@pytest.mark.parametrize("how", [{}, {"chunks": (64, 100)}, {"chunks": (64, 30)}, {"chunks": (64, 100), "lzf": True}])
def test_large_reads_are_shared_and_many_threads_read_at_once(how, write, opened, monkeypatch):
    monkeypatch.setattr(contiguous, "SHARED", 1 << 14)
    monkeypatch.setattr(contiguous, "PIECE", 1 << 13)
    monkeypatch.setattr(chunked, "SHARED", 1 << 14)
    X = values((3000, 100), "u1")
    file = opened(write(X, **({"compression": "gzip"} if how.pop("lzf", None) else {}), **how))
    rows = HdfRows(file, file.dataset("X"))

    def read(i: int) -> bool:
        a, b = i * 37 % 2900, i * 37 % 2900 + (1500 if i % 5 == 0 else 70)
        out = np.zeros((min(b, 3000) - a, 100), "u1")
        rows.read(a, a + len(out), out)
        return np.array_equal(out, X[a : a + len(out)])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, range(120)))


def test_small_blocks_decode_each_chunk_once(write, opened, monkeypatch):
    X = values((4000, 10), "f4")
    file = opened(write(X, chunks=(1000, 10), compression="gzip"))
    way = ways.choose(file, file.dataset("X"), "X")
    decoded: list[int] = []
    real = chunked.Compressed._decode
    monkeypatch.setattr(
        chunked.Compressed, "_decode", lambda self, number, out: (decoded.append(number), real(self, number, out))
    )
    with ThreadPoolExecutor(4) as pool:  # as owners of leaves do: each its own rows, in blocks
        list(pool.map(lambda k: [rows_of(way, X, i, i + 50) for i in range(k * 1000, k * 1000 + 1000, 50)], range(4)))
    assert set(decoded) <= {0, 1, 2, 3} and len(decoded) <= 4
    decoded.clear()
    assert agrees(way, X) and len(decoded) <= 4


def test_few_chunks_are_kept_and_none_is_lost_in_use():
    kept = chunked._Kept(8, 24)

    def decode(number: int, out: np.ndarray) -> None:
        out[:] = number

    with kept.chunk(1, decode) as one, kept.chunk(2, decode), kept.chunk(3, decode), kept.chunk(4, decode) as four:
        assert (one == 1).all() and (four == 4).all() and one is not four
    with kept.chunk(5, decode) as five:
        assert (five == 5).all()
    assert 1 not in kept and 4 in kept and len(kept._entries) <= 4

    def fail(number: int, out: np.ndarray) -> None:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"), kept.chunk(9, fail):
        pass
    assert 9 not in kept


def test_what_reads_other_values_than_hdf5_is_not_used(write, opened):
    X = values((100, 4), "f4")
    file = opened(write(X))
    stored = file.dataset("X")
    assert isinstance(ways.choose(file, stored, "X"), ways.Direct)
    moved = Stored(**(vars(stored) | {"offset": (stored.offset or 0) + 4}))
    way = ways.choose(file, moved, "X")
    assert isinstance(way, ways.ThroughHdf5) and "row 0 read directly is not what HDF5 reads" in way.reason
    assert agrees(way, X)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"scaleoffset": 0, "chunks": (10, 4)}, "scaleoffset"),
        ({"dtype": "i4", "chunks": (10, 4), "compression": "gzip", "compression_opts": 1}, ""),
    ],
)
def test_what_only_hdf5_reads_is_read_by_it(how, words, write, opened):
    X = RNG.integers(0, 50, (95, 4)).astype("i4")
    file = opened(write(X, **how))
    way = ways.choose(file, file.dataset("X"), "X")
    assert isinstance(way, ways.ThroughHdf5) == bool(words)
    if isinstance(way, ways.ThroughHdf5):
        assert words in way.reason
        assert way.slow == ""  # nobody waits for so few bytes
    assert agrees(way, X)


def test_a_slow_way_names_its_cost_and_the_remedy(write, opened, monkeypatch):
    monkeypatch.setattr(ways, "WARNED", 1000)
    X = RNG.integers(0, 50, (4000, 40)).astype("i4")
    file = opened(write(X, name="my data.h5", scaleoffset=0, chunks=(100, 40)))
    slow = ways.choose(file, file.dataset("X"), "my X").slow
    assert "\n" not in slow
    for words in ("my X is read through HDF5 because filter 6 (scaleoffset)", " MB/s", "gpubp convert '", "-fast.h5'"):
        assert words in slow
    file = opened(write(X, name="p.h5", chunks=(100, 40)))
    assert ways.choose(file, file.dataset("X"), "X").slow == "" or "few rows" in file.shown
    file = opened(write(X, name="g.h5", chunks=(100, 40), compression="gzip"))
    assert ways.choose(file, file.dataset("X"), "X").slow == ""


def test_a_file_cut_short_is_noticed_in_every_layout(write, opened, refuses):
    X = values((4000, 100), "u1")
    for name, how in {"c": {}, "w": {"chunks": (500, 100)}, "s": {"chunks": (500, 60)}}.items():
        path = write(X, name=f"{name}.h5", **how)
        file = opened(path)
        rows = HdfRows(file, file.dataset("X"))
        os.truncate(path, path.stat().st_size // 2)
        with refuses(DataError, f"{name}.h5: 'X': rows 0 to 3999 cannot be read", "shorter"):
            rows.read(0, 4000, np.empty((4000, 100), "u1"))


def test_work_is_shared_and_errors_come_back():
    from gpubp.data.hdf5 import team

    done = []
    team.each(done.append, 100)
    assert sorted(done) == list(range(100))

    def fail(i: int) -> None:
        if i == 7:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        team.each(fail, 50)
    team.each(done.append, 0)
    with ThreadPoolExecutor(8) as pool:
        sums: list[list[int]] = list(pool.map(lambda _: _collected(team), range(40)))
    assert all(sorted(found) == list(range(20)) for found in sums)


def _collected(team: Any) -> list[int]:
    found: list[int] = []
    team.each(found.append, 20)
    return found


def test_a_forked_process_reads_too():
    from gpubp.data.hdf5 import team

    team.each(lambda i: None, 10)  # helpers are there
    team._starting.acquire()  # as if another thread were starting them at that moment
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        code = 1
        signal.alarm(10)
        try:
            found: list[int] = []
            team.each(found.append, 10)
            code = 0 if sorted(found) == list(range(10)) else 2
        finally:
            os._exit(code)
    team._starting.release()
    assert os.waitpid(pid, 0)[1] == 0


def test_callers_that_are_several_read_alone(monkeypatch):
    from gpubp.data.hdf5 import team

    def from_another_thread() -> bool:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(team.idle).result()

    assert [team.idle() for _ in range(5)][3:] == [True, True]
    assert not from_another_thread()
    assert not any(team.idle() for _ in range(3)) and team.idle()  # until the other was not heard of for three calls
