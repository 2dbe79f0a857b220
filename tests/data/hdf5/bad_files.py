"""The bad files of `catalogue`: each function writes one."""

from __future__ import annotations

import gzip
import io
import os
import socket
import zipfile
from pathlib import Path

import h5py
import numpy as np
from catalogue import AGAIN, ALLOW, DAMAGED, ELSEWHERE, X, Y, bad, h5

# ------------------------------------------------------------------------------------------------ no file, or no HDF5


@bad("{path}: No such file or directory; wanted a data file that can be read")
def missing(path: Path) -> None: ...


@bad("{path} is empty (0 bytes); wanted a data file")
def empty(path: Path) -> None:
    path.touch()


@bad("{path} is a folder; wanted a data file")
def folder(path: Path) -> None:
    path.mkdir()


@bad("{path} is a pipe; wanted a data file")
def fifo(path: Path) -> None:
    os.mkfifo(path)


@bad("{path} is a pipe; wanted a data file")
def link_to_a_fifo(path: Path) -> None:
    path.symlink_to(path.parent / "pipe-that-waits.h5")


@bad("{path} is a device; wanted a data file")
def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@bad("{path} is a socket; wanted a data file")
def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's name is short
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


@bad(
    "{path}: Permission denied; wanted a data file that can be read",
    skip="root may read everything" if os.geteuid() == 0 else "",
)
def not_permitted(path: Path) -> None:
    with h5(path, x=True):
        pass
    path.chmod(0)


@bad("{path}: Too many levels of symbolic links; wanted a data file that can be read")
def link_in_a_circle(path: Path) -> None:
    path.symlink_to(path)


@bad("{path} is empty (0 bytes); wanted a data file")
def proc_file(path: Path) -> None:
    path.symlink_to("/proc/self/environ")


@bad("{path} is not an HDF5 file; wanted HDF5 with X and y")
def zeros_without_end(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


@bad("{path} is not an HDF5 file; wanted HDF5 with X and y")
def picture(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3)


@bad("{path} is not an HDF5 file but an NPZ file; wanted HDF5; make it so: gpubp convert {path} …-converted.h5")
def zip_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.txt", "1,2,3")


@bad("{path} is not an HDF5 file but an NPZ file; wanted HDF5; make it so: gpubp convert {path} …-converted.h5")
def npz(path: Path) -> None:
    held = io.BytesIO()
    np.savez(held, X=X, y=Y)
    path.write_bytes(held.getvalue())


@bad("{path} is not an HDF5 file, perhaps a CSV file; wanted HDF5; if it is one: gpubp convert {path} …-converted.h5")
def text(path: Path) -> None:
    path.write_text("a,b,label\n1,2,0\n3,4,1\n")


@bad("{path} is not an HDF5 file; wanted HDF5 with X and y")
def gzipped(path: Path) -> None:
    with h5(path, x=True):
        pass
    path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))


@bad(DAMAGED)
def signature_alone(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))


@bad(DAMAGED)
def signature_further_on(path: Path) -> None:
    path.write_bytes(bytes(1024) + b"\x89HDF\r\n\x1a\n" + b"\xff" * 500)


@bad(DAMAGED)
def cut_in_the_superblock(path: Path) -> None:
    whole(path)
    os.truncate(path, 60)


@bad(DAMAGED)
def cut_in_half(path: Path) -> None:
    whole(path)
    os.truncate(path, path.stat().st_size // 2)


@bad(DAMAGED)
def cut_at_the_end(path: Path) -> None:
    whole(path)
    os.truncate(path, path.stat().st_size - 50)


@bad(DAMAGED)
def cut_in_the_chunks(path: Path) -> None:
    with h5(path, libver="latest") as file:
        file.create_dataset("X", data=X, chunks=(10, 4), compression="gzip")
    os.truncate(path, path.stat().st_size - 300)


def whole(path: Path) -> None:
    with h5(path, x=True):
        pass


# ------------------------------------------------------------------------------------------- what leads out of the file


@bad("{path}: 'X' is a link into another file ('other.h5')" + ELSEWHERE)
def external_link(path: Path) -> None:
    with h5(path) as file:
        file["X"] = h5py.ExternalLink("other.h5", "/X")


@bad("{path}: 'X' is a link into another file ('pipe-that-waits.h5')" + ELSEWHERE)
def external_link_to_a_fifo(path: Path) -> None:
    with h5(path) as file:
        file["X"] = h5py.ExternalLink("pipe-that-waits.h5", "/X")


@bad("{path}: 'X' is a link into another file ('/nowhere/gone.h5')" + ELSEWHERE)
def external_link_to_nothing(path: Path) -> None:
    with h5(path) as file:
        file["X"] = h5py.ExternalLink("/nowhere/gone.h5", "/X")


@bad("{path}: 'train' is a link into another file ('other.h5')" + ELSEWHERE, "--x", "train/X", "--y", "y")
def external_link_on_the_way(path: Path) -> None:
    with h5(path) as file:
        file["train"] = h5py.ExternalLink("other.h5", "/")


@bad("{path}: 'y' is a link into another file ('other.h5')" + ELSEWHERE)
def external_labels(path: Path) -> None:
    with h5(path, x=True, y=False) as file:
        file["y"] = h5py.ExternalLink("other.h5", "/y")


@bad("{path}: 'X' keeps its values in another file (external storage)" + ELSEWHERE)
def external_storage(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "u1", external=[(str(path.parent / "secret.txt"), 0, 240)])


@bad("{path}: 'X' keeps its values in another file (external storage)" + ELSEWHERE)
def external_storage_relative(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "u1", external=[("../" * 9 + "etc/passwd", 0, 240)])


@bad("{path}: 'X' keeps its values in another file (external storage)" + ELSEWHERE)
def external_storage_missing(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "u1", external=[("gone.bin", 0, 240)])


@bad("{path}: 'X' keeps its values in another file (external storage)" + ELSEWHERE)
def external_storage_unlimited(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "u1", external=[("secret.txt", 0, h5py.h5f.UNLIMITED)])


@bad("{path}: 'y' keeps its values in another file (external storage)" + ELSEWHERE)
def external_labels_storage(path: Path) -> None:
    with h5(path, x=True, y=False) as file:
        file.create_dataset("y", (60,), "u1", external=[("secret.txt", 0, 60)])


@bad("{path}: 'X' is a soft link (to '/not/here', which is not there)" + ELSEWHERE)
def soft_link_to_nothing(path: Path) -> None:
    with h5(path) as file:
        file["X"] = h5py.SoftLink("/not/here")


@bad("{path}: 'X' is a soft link (to '/Z', which is a link itself)" + ELSEWHERE)
def soft_link_in_a_circle(path: Path) -> None:
    with h5(path) as file:
        file["X"], file["Z"] = h5py.SoftLink("/Z"), h5py.SoftLink("/X")


@bad("{path}: 'X' is a soft link (to '/far/X', which is a link itself)" + ELSEWHERE)
def soft_link_by_an_external_one(path: Path) -> None:
    with h5(path) as file:
        file["far"] = h5py.ExternalLink("other.h5", "/")
        file["X"] = h5py.SoftLink("/far/X")


@bad("{path}: 'X' is a soft link (to '/tables', which is a group)" + ELSEWHERE)
def soft_link_to_a_group(path: Path) -> None:
    with h5(path) as file:
        file.create_group("tables")
        file["X"] = h5py.SoftLink("/tables")


@bad("{path}: 'X' is a virtual dataset, put together from other files" + ALLOW)
def virtual(path: Path) -> None:
    _virtual(path, "other.h5")


@bad("{path}: 'X' is a virtual dataset, put together from other files" + ALLOW)
def virtual_absolute(path: Path) -> None:
    _virtual(path, str(path.parent / "other.h5"))


@bad("{path}: 'X' is a virtual dataset, put together from other files" + ALLOW)
def virtual_missing(path: Path) -> None:
    _virtual(path, "/nowhere/gone.h5")


@bad("{path}: 'X' is a virtual dataset, put together from other files" + ALLOW)
def virtual_fifo(path: Path) -> None:
    _virtual(path, "pipe-that-waits.h5")


@bad("{path}: 'X' cannot be read: …" + AGAIN)
def virtual_pattern(path: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.VIRTUAL)
    space = h5py.h5s.create_simple((60, 4), (h5py.h5s.UNLIMITED, 4))
    space.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (10, 4), (10, 4))
    plist.set_virtual(space, b"other-%b.h5", b"X", h5py.h5s.create_simple((10, 4)))
    with h5(path) as file:
        whole = h5py.h5s.create_simple((60, 4), (h5py.h5s.UNLIMITED, 4))
        h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, whole, plist)


def _virtual(path: Path, source: str) -> None:
    layout = h5py.VirtualLayout((60, 4), "f4")
    layout[:] = h5py.VirtualSource(source, "X", (60, 4))
    with h5(path) as file:
        file.create_virtual_dataset("X", layout, fillvalue=0)
