"""IDX files whose sides cannot be: one line, quickly, and nothing is written."""

from __future__ import annotations

import gzip
import struct

import pytest

from gpubp.errors import DataError


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sides", [(2**32 - 1,) * 8, (2**31, 2**31), (2**32 - 1, 1), (0, 0), (2**32 - 1, 0)])
def test_sides_that_cannot_be(sides, packed, tmp_path, refuses, read_parts):
    contents = bytes([0, 0, 14, len(sides)]) + struct.pack(f">{len(sides)}I", *sides) + bytes(64)
    (tmp_path / "x.idx").write_bytes(gzip.compress(contents, mtime=0) if packed else contents)
    with refuses(DataError, "x.idx", "is empty" if 0 in sides else "wanted the "):
        read_parts(tmp_path / "x.idx", y="none")
