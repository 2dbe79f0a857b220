"""NPY and NPZ files that somebody else made, and who did not mean well: one line, quickly, and nothing is written."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from gpubp.data.formats import recognise
from gpubp.errors import DataError

MAGIC = b"\x93NUMPY"


def npy(descr: str, shape: str, body: bytes = b"", order: str = "False") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    return MAGIC + b"\x01\x00" + len(head).to_bytes(2, "little") + head + body


BAD = [
    (npy("'<f8'", f"({10**30}, 2)", bytes(16)), "16 bytes of values; wanted the 16,000"),
    (npy("'<f8'", f"({2**62}, {2**62})"), "0 bytes of values"),
    (npy("'<f8'", "(-2, -1)", bytes(16)), "impossible shape (-2, -1)"),
    (npy("'<f8'", "(-2, 1)", bytes(16)), "impossible shape (-2, 1)"),
    (npy("'<f8'", "(0, 5)"), "is empty, its shape is (0, 5)"),
    (npy("'<f8'", "[2, 1]", bytes(16)), "is no NPY file"),
    (npy("'<f8'", "(2.0, 1)", bytes(16)), "is no NPY file"),
    (npy("'O'", "(2, 1)", b"cos\nsystem\n"), "holds Python objects"),
    (npy("[('a', 'O')]", "(2, 1)", bytes(16)), "holds Python objects"),
    (npy("'<q99'", "(2, 1)", bytes(16)), "is no NPY file"),
    (npy("__import__('os')", "(2, 1)", bytes(16)), "is no NPY file"),
    (npy("'<f8'", "(" * 3000 + ")" * 3000, bytes(16)), "is no NPY file"),
    (MAGIC + b"\x01\x00\xff\xff{", "is no NPY file"),
    (MAGIC + b"\x02\x00\xff\xff\xff\xff{" + bytes(90), "is no NPY file: its header takes 4,294,967,295 bytes"),
    (MAGIC + b"\x09\x00\x10\x00{}", "is no NPY file"),
    (MAGIC, "is no NPY file"),
    (npy("'|V0'", "(4, 4)"), "is empty"),
]


@pytest.mark.parametrize(("contents", "words"), BAD)
@pytest.mark.parametrize("how", ["plain", "gzip", "npz"])
def test_headers_that_lie(contents, words, how, tmp_path, refuses, read_parts):
    path = tmp_path / ("X.npz" if how == "npz" else "X.npy")
    if how == "npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("X.npy", contents)
    else:
        path.write_bytes(contents if how == "plain" else gzip.compress(contents, mtime=0))
    if how != "plain" and "bytes of values" in words:
        words = "that are free in"
    with refuses(DataError, path.name, words):
        read_parts(path, y="none")


@pytest.mark.parametrize("how", ["gzip", "npz", "lzma", "bzip2"])
def test_what_unpacks_without_end_is_not_unpacked(how, tmp_path, refuses, read_parts):
    """A few kilobytes that would be 200 MB, behind a header that speaks of 16 bytes, or of a gigabyte of header."""
    kinds = {"npz": zipfile.ZIP_DEFLATED, "lzma": zipfile.ZIP_LZMA, "bzip2": zipfile.ZIP_BZIP2}
    endless = npy("'<f8'", "(2, 1)", bytes(200 << 20))
    path = tmp_path / ("X.npy" if how == "gzip" else "X.npz")
    if how == "gzip":
        path.write_bytes(gzip.compress(endless, 1, mtime=0))
    else:
        with zipfile.ZipFile(path, "w", kinds[how]) as archive:
            archive.writestr("X.npy", endless if how == "npz" else endless[:5000])
    del endless
    tracemalloc.start()
    with refuses(DataError, "has more bytes of values" if how in ("gzip", "npz") else "packed in a way NumPy does not"):
        read_parts(path, y="none")
    assert tracemalloc.get_traced_memory()[1] < 30 << 20
    tracemalloc.stop()


def test_names_that_point_elsewhere_are_only_names(tmp_path, read_parts, refuses):
    array = io.BytesIO()
    np.save(array, np.ones((2, 2)))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("../../../tmp/X.npy", array.getvalue())
        archive.writestr("/etc/y.npy", array.getvalue())
        archive.writestr("evil\x1b[31m\n.npy", array.getvalue())
    (part,) = read_parts(tmp_path / "d.npz", y="none")
    assert part.X.tolist() == [[1, 1], [1, 1]]
    with refuses(DataError, "no dataset 'q'", r"\x1b[31m\n"):
        read_parts(tmp_path / "d.npz", x="q")


def test_an_archive_that_is_cut_or_locked(tmp_path, refuses, read_parts):
    np.savez(tmp_path / "d.npz", X=np.ones((50, 2)), y=np.ones(50))
    sound = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(sound[:400])
    with refuses(DataError, "cut.npz cannot be read", "wanted a whole NPZ file"):
        read_parts(tmp_path / "cut.npz")
    flagged = bytearray(sound)
    for start in (i for i in range(len(sound)) if sound[i : i + 4] == b"PK\x01\x02"):
        flagged[start + 8] |= 1  # "encrypted"
    (tmp_path / "locked.npz").write_bytes(flagged)
    with refuses(DataError, "locked.npz cannot be read"):
        read_parts(tmp_path / "locked.npz")


def test_any_byte_of_an_archive_changed_gives_a_line_or_an_array(tmp_path, read_parts):
    np.savez_compressed(tmp_path / "d.npz", X=np.arange(12.0).reshape(6, 2), y=np.arange(6))
    sound = (tmp_path / "d.npz").read_bytes()
    for at in range(0, len(sound)):
        broken = bytearray(sound)
        broken[at] ^= 0xFF
        (tmp_path / "d.npz").write_bytes(broken)
        if recognise(tmp_path / "d.npz") is None:
            continue
        try:
            read_parts(tmp_path / "d.npz")
        except DataError as error:
            assert "\n" not in str(error)
