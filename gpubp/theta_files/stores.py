"""Named arrays in a file: NumPy's .npz, MATLAB's .mat of any version, Octave's text, HDF5, JSON.

Each kind of file is opened by the guarded readers of the data room as a `Store`: names, sizes and, asked for one by
one, arrays.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.formats import Request, opened
from ..data.formats.mat import is_version_5, is_version_7_3, matrices_of
from ..data.formats.numpy_files import archive_of
from ..data.formats.octave import is_octave, variables_of
from ..data.guard import is_hdf5, open_file
from ..data.names import quoted
from ..errors import DataError
from . import tensors
from .description import KEY

_JSON = 1 << 28  # bytes


@dataclass(frozen=True)
class Store:
    """What a file holds.

    Attributes:
        names: of its arrays, in the order in which they stand there.
        size: how many numbers an array has, or more, by its name; from what the file says, before it is read.
        array: one of them, by its name.
        about: the JSON text that an export of gpubp carries; None in other files.
    """

    names: Sequence[str]
    size: Callable[[str], int]
    array: Callable[[str], Any]
    about: str | None = None


@contextmanager
def store_of(path: Path) -> Iterator[Store]:
    """The file, open.

    Raises:
        DataError: it is of no kind that is known here, damaged, or larger than it may be.
    """
    try:
        with opened(path) as file:
            head = file.read(512)
    except (OSError, EOFError):
        head = b""
    if is_hdf5(path):
        with _hdf5(path) as store:
            yield store
    elif tensors.is_torch(path, head):
        yield Store(*tensors.torch_state(path))
    elif head.startswith(b"PK\x03\x04"):
        with archive_of(path) as archive, _scratch() as request:
            about = None
            if KEY in archive.names and archive.size(KEY) <= _JSON:
                text = archive.array(KEY, request)
                about = str(text[()]) if text.dtype.kind == "U" and text.shape == () else None
            yield Store(
                [name for name in archive.names if name != KEY], lambda name: archive.size(name) // 4,
                lambda name: archive.array(name, request), about,
            )  # fmt: skip
    elif is_version_5(head):
        with matrices_of(path) as matrices, _scratch() as request:
            about = matrices.text(KEY) if KEY in matrices.names else None
            names = [name for name in matrices.names if name != KEY]
            yield Store(names, matrices.size, lambda name: matrices.array(name, request), about)
    elif is_octave(head):
        with _scratch() as request:
            variables = variables_of(path, request)
            yield Store(variables.names, variables.size, variables.array)
    elif tensors.is_safetensors(path, head):
        yield Store(*tensors.safetensors(path))
    elif head.lstrip()[:1] == b"{":
        yield _json(path)
    else:
        wanted = ".npz, .mat, Octave text, HDF5, JSON, safetensors or a PyTorch state_dict"
        do = "take the run itself, or its export as npz" if path.suffix.lower() == ".onnx" else ""
        raise DataError(f"{path} is no file of matrices", wanted=wanted, do=do)


@contextmanager
def _scratch() -> Iterator[Request]:
    with tempfile.TemporaryDirectory(prefix="gpubp-") as folder:
        yield Request(Path(folder))


@contextmanager
def _hdf5(path: Path) -> Iterator[Store]:
    """Out of HDF5, by the process that looks at it; MATLAB 7.3 has its matrices transposed."""
    transposed = is_version_7_3(path)
    with open_file(path) as file:

        def size(name: str) -> int:
            stored = file.dataset(name)
            return int(np.prod(stored.shape, dtype=object))

        def array(name: str) -> np.ndarray:
            stored = file.dataset(name)
            if stored.odd or stored.text or stored.dtype.kind not in "buif" or not stored.shape:
                raise DataError(f"{path}: {quoted(name)} holds no real numbers", wanted="a matrix of real numbers")
            try:
                data = file.read(stored, 0, stored.shape[0])
            except OSError as error:
                raise DataError(f"{path}: {quoted(name)} cannot be read: {error}", wanted="a sound file") from None
            found = np.frombuffer(data, stored.dtype).reshape(stored.shape)
            return found.T if transposed else found

        yield Store(list(file.entries), size, array)


def _json(path: Path) -> Store:
    wanted = '{"Theta": [matrix, …]} or {"Theta1": matrix, …}, a matrix as a list of its rows'
    try:
        with opened(path) as file:
            text = file.read(_JSON + 1)
        if len(text) > _JSON:
            raise DataError(f"{path} has more than {_JSON:,} bytes of JSON", wanted="fewer, or another format")
        found = json.loads(text)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}", wanted=wanted) from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}", wanted=wanted)
    if isinstance(found.get("Theta"), list):
        found = {f"Theta{l}": matrix for l, matrix in enumerate(found["Theta"], start=1)}

    def array(name: str) -> np.ndarray:
        try:
            return np.array(found[name])
        except (ValueError, OverflowError):
            raise DataError(f"{path}: {quoted(name)} has rows of different lengths", wanted=wanted) from None

    return Store(list(found), lambda name: 0, array)
