"""What the tests of the data room share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import h5py
import pytest

from gpubp.data.guard import open_file
from gpubp.data.hdf5.rows import HdfRows
from gpubp.errors import GpubpError

Refuses = Callable[..., AbstractContextManager[None]]
MakeFile = Callable[..., Path]
OpenRows = Callable[[Path], HdfRows]


@pytest.fixture
def refuses() -> Refuses:
    """`with refuses(DataError, "words", …)`: that very error, on one line, with all the words in it."""

    @contextmanager
    def check(kind: type[GpubpError], *words: str) -> Iterator[None]:
        with pytest.raises(GpubpError) as caught:
            yield
        line = str(caught.value)
        assert type(caught.value) is kind, line
        assert "\n" not in line
        for word in words:
            assert word in line, line

    return check


@pytest.fixture
def h5(tmp_path: Path) -> MakeFile:
    """`h5({"X": …, "train/y": …}, name="d.h5")` writes a file with these datasets."""

    def make(datasets: dict[str, Any], name: str = "d.h5") -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, values in datasets.items():
                file[key] = values
        return path

    return make


@pytest.fixture
def hdf_rows() -> Iterator[OpenRows]:
    """`hdf_rows(path)`: the rows of the dataset `X`, closed when the test ends."""
    opened: list[HdfRows] = []

    def rows(path: Path) -> HdfRows:
        file = open_file(path)
        try:
            opened.append(HdfRows(file, file.dataset("X")))
        except BaseException:
            file.close()
            raise
        return opened[-1]

    yield rows
    for one in opened:
        one.close()
