"""`gpubp convert`: any format we read becomes one HDF5 file that training reads at the speed of the disk.

What is written: X (rows × features), y, weights and names, for each split in a group of its own; native byte order, in
the smallest type that holds every value exactly (`narrow`), in one piece or in compressed chunks of whole rows
(`layouts`), with a checksum for each MiB of rows (`checksums`) and with what is known of their origin. Rows pass in
blocks. Under the final name there is a whole file or none (`unfinished`).

A new format is one function in `formats`; HDF5 itself and MATLAB's kind of it are read by `relayout`.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from . import relayout
from .formats import Request, formats, recognise
from .guard import is_hdf5, regular_file
from .writing.checksums import Sealed, content_of
from .writing.layouts import LAYOUTS
from .writing.tables import Table, table_of
from .writing.unfinished import Unfinished, exists
from .writing.writer import write

_HASHED = 1 << 20  # bytes at a time
_CHEAP = 1 << 28  # bytes of a source that is hashed unasked: on two cores SHA-256 halves the rate of a conversion
_LONGEST = 4000  # characters of a command that are noted


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    x: str | None = None,
    y: str | None = None,
    weights: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    header: bool | None = None,
    missing: bool = False,
    allow: str | None = None,
    layout: str = "contiguous",
    force: bool = False,
    overwrite: bool = False,
    hash_source: bool | None = None,
    version: str | None = None,
    command: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Write the rows of `src` to the HDF5 file `dst`.

    Args:
        src: a file in one of the `formats`, or an HDF5 file.
        dst: the file to make.
        x, y, weights: names of arrays or columns in place of the usual ones; ``y="none"`` takes no labels.
        labels: the file with the labels, where they are kept apart.
        header: whether a text file begins with column names; None finds out.
        missing: whether missing values are kept, as NaN, where the format has them.
        allow: of HDF5, the folder that the sources of virtual datasets may lie in; None refuses those.
        layout: "contiguous", "compress" or "archive"; see `layouts`.
        force: whether a file that is laid out so already is written again.
        overwrite: whether `dst` may be replaced. Where it is a symbolic link, what it leads to is.
        hash_source: whether the SHA-256 of `src` is noted; None: of one of up to 256 MiB. (The hash `content` of the
            rows is always there; it is the same for every conversion of the same source.)
        version: gpubp's, to be noted in the file; None takes that of the running one.
        command: the command line, to be noted; None notes none.
        progress: called with (rows written, rows in all).

    Returns:
        `source`, `target`, `format`, `layout`, `bytes`, `seconds`, `content` (see `checksums`), and for each of `parts`
        its `split`, `rows`, `features`, `x_dtype`, `y_shape`, `y_dtype` (None without y): JSON can carry it.

    Raises:
        DataError: the source cannot be read, the result cannot be written, or `dst` exists and may not be replaced.
        UsageError: `dst` is the source itself or no ordinary file, or an option means nothing for this format.
    """
    began = time.monotonic()
    source, target = regular_file(src), Path(os.path.realpath(dst))
    if target.exists() and target.samefile(source):
        raise UsageError(f"{source} would be converted to itself", do="name another file to write")
    if target.exists() and not target.is_file():
        raise UsageError(f"{dst} is no ordinary file", wanted="the name of a file to write", do="such as data.h5")
    if target.exists() and not overwrite:
        raise exists(Path(dst))
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", do="make it first")
    arrangement = LAYOUTS[layout]()
    apart = None if labels is None else regular_file(labels)
    request = Request(target.parent, x, y, weights, apart, header, missing, allow)
    if version is None:
        from .. import __version__ as version
    before = os.stat(source)
    hashing = before.st_size <= _CHEAP if hash_source is None else hash_source
    with _Hash(source if hashing else None) as hashed, _Hash(apart if hashing else None) as hashed_apart:
        title, earlier, tables = _tables(source, request, layout, force)

        def noted() -> dict[str, Any]:
            found = {"converted_by": f"gpubp {version}", "created": _now(), "command": (command or "")[:_LONGEST]}
            found |= {"source": source.name, "source_format": title, "source_bytes": before.st_size}
            found |= {"source_sha256": hashed.result()}
            if apart is not None:
                found |= {"labels": apart.name, "labels_bytes": os.stat(apart).st_size}
                found |= {"labels_sha256": hashed_apart.result()}
            after = os.stat(source)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise DataError(f"{source} was written to while it was converted", do="convert it again")
            return earlier | {name: value for name, value in found.items() if value != ""}

        try:
            with Unfinished(target, overwrite=overwrite) as unfinished:
                sealed = write(tables, unfinished, arrangement, noted, progress)
                unfinished.finish()
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{dst} cannot be written: {reason}", wanted="a folder with room and permission") from None
        finally:
            for table in tables:
                table.close()
    return {
        "source": str(source),
        "target": os.fspath(dst),
        "format": title,
        "layout": layout,
        "bytes": target.stat().st_size,
        "seconds": time.monotonic() - began,
        "content": content_of(sealed),
        "parts": [_record(table, sealed) for table in tables],
    }


def _tables(source: Path, request: Request, layout: str, force: bool) -> tuple[str, dict[str, Any], list[Table]]:
    """What the source is called, what is noted in it, and its rows."""
    try:
        if is_hdf5(source):
            return relayout.tables(source, request, layout, force)
        found = recognise(source)
        if found is None:
            titles = ", ".join(one.title for one in formats())
            raise DataError(f"{source} is in no format that is known", wanted=f"{titles}, an HDF5 file")
        request.refuse_but(found.takes, found.title)
        return found.title, {}, [table_of(part, str(source)) for part in found.read(source, request)]
    except OSError as error:  # the source's own troubles are told by its reader: this is the scratch file
        room = f"room and permission in {request.scratch}, for scratch files too"
        raise DataError(f"{source} cannot be converted: {error}", wanted=room) from None


def _record(table: Table, sealed: list[Sealed]) -> dict[str, Any]:
    at = "" if table.split is None else f"{table.split}/"
    stored = {one.path: one for one in sealed}
    x, y = stored[f"{at}X"], stored.get(f"{at}y")
    return {
        "split": table.split,
        "rows": x.shape[0],
        "features": x.shape[1],
        "x_dtype": str(x.dtype),
        "y_shape": None if y is None else list(y.shape),
        "y_dtype": None if y is None else "text" if y.dtype.kind == "S" else str(y.dtype),
    }


def _now() -> str:
    """The date in UTC, or that which a reproducible build asks for."""
    asked = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(asked), UTC) if asked.isdigit() else datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class _Hash:
    """SHA-256 of a file, computed beside the work; a context manager that stops it at its end."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._stop, self._found = path, threading.Event(), ""
        self._trouble: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)

    def result(self) -> str:
        """As hexadecimal digits, once it is there.

        Raises:
            OSError: the file could not be read.
        """
        self._thread.join()
        if self._trouble is not None:
            raise self._trouble
        return self._found

    def _run(self) -> None:
        if self._path is None:
            return
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_HASHED))
        try:
            with open(self._path, "rb", buffering=0) as file:
                while not self._stop.is_set() and (got := file.readinto(buffer)):
                    digest.update(buffer[:got])
        except OSError as error:
            self._trouble = error
        self._found = digest.hexdigest()

    def __enter__(self) -> _Hash:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
