"""Sound files of each format with a few bytes changed: each gives a line or parts, and never anything else."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest

from gpubp.data.formats import formats, recognise
from gpubp.errors import DataError, UsageError

RNG = np.random.default_rng(13)
X, Y = RNG.normal(size=(12, 3)).round(3), RNG.integers(0, 3, 12)
ROWS = "".join(f"{a},{b},{c},{y}\n" for (a, b, c), y in zip(X.tolist(), Y, strict=True))
OCTAVE = "".join(f"# name: {n}\n# type: matrix\n# rows: {len(v)}\n# columns: {v.shape[1]}\n"
                 + "".join(" " + " ".join(map(str, row)) + "\n" for row in v.tolist()) + "\n\n"
                 for n, v in (("X", X), ("y", Y[:, None])))  # fmt: skip
SVM = "".join(f"{y} 1:{a} 2:{b} 3:{c}\n" for (a, b, c), y in zip(X.tolist(), Y, strict=True))
NPY = io.BytesIO()
np.save(NPY, X)
IDX = bytes([0, 0, 14, 2]) + struct.pack(">II", *X.shape) + X.astype(">f8").tobytes()
SOUND = {
    "t.csv": ("a,b,c,y\n" + ROWS).encode(),
    "t.csv.gz": gzip.compress(ROWS.encode(), mtime=0),
    "t.tsv": ROWS.replace(",", "\t").encode(),
    "t.txt": ROWS.replace(",", " ").encode(),
    "t.octave": OCTAVE.encode(),
    "t.svm": SVM.encode(),
    "t.idx": IDX,
    "t.npy": NPY.getvalue(),
}
# Damaged in a test of their own, beside the library that writes or reads them.
ELSEWHERE = {
    "a Parquet file": "test_arrow.py", "a Feather file": "test_arrow.py", "a MAT file": "test_mat.py",
    "an NPZ file": "test_numpy_files.py",
}  # fmt: skip


def test_every_format_is_among_them(tmp_path: Path):
    found = set(ELSEWHERE)
    for name, sound in SOUND.items():
        (tmp_path / name).write_bytes(sound)
        one = recognise(tmp_path / name)
        assert one is not None
        found.add(one.title)
    lacking = {one.title for one in formats()} - found
    here = f"tests/data/formats/{Path(__file__).name}"
    assert not lacking, f"{here}: SOUND needs a small sound file with X in the first columns of {', '.join(lacking)}"
    assert not found - {one.title for one in formats()}
    assert all((Path(__file__).parent / file).exists() for file in ELSEWHERE.values())


@pytest.mark.parametrize("name", SOUND)
def test_bytes_changed_at_random(name: str, tmp_path: Path, read_parts):
    path = tmp_path / name
    path.write_bytes(SOUND[name])
    assert np.array_equal(read_parts(path, y="none")[0].X[:, :3], X)
    lines = 0
    for trial in range(90):
        broken = bytearray(SOUND[name])
        for _ in range(1 + trial % 3):
            at = int(RNG.integers(len(broken)))
            choice = [0, 255, broken[at] ^ 1, 10, 13, 34, 44, 32, 35, int(RNG.integers(256))]
            broken[at] = choice[int(RNG.integers(len(choice)))]
        if trial % 10 == 0:
            broken = broken[: int(RNG.integers(1, len(broken)))]
        path.write_bytes(broken)
        if recognise(path) is None:
            continue
        try:
            for part in read_parts(path, y="none" if trial % 2 else None):
                assert part.X.size
        except (DataError, UsageError) as error:
            lines += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert lines
