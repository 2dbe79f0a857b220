"""Named tensors: safetensors, and PyTorch's own files.

A safetensors file (github.com/huggingface/safetensors, "Format") is the length of a header in 8 bytes, the header as
JSON (``{name: {"dtype", "shape", "data_offsets"}, "__metadata__": {text: text}}``) and the values, without a hole. It
is read here and not by the package: nobody needs that to read such a file.

PyTorch's is an archive around a pickle. Its own loader reads it, told to make nothing but tensors of it
(``weights_only=True``); where PyTorch is not installed such a file is refused.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..data.guard import open_regular
from ..data.names import quoted
from ..errors import DataError
from .description import KEY, TORCH_KEY

Tensors = tuple[list[str], Callable[[str], int], Callable[[str], Any], str | None]

_HEADER = 100_000_000  # bytes: the package's own limit
_DIMENSIONS = 8
_MOST_BYTES = 1 << 33
_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def is_safetensors(path: Path, head: bytes) -> bool:
    """Whether a file of that name begins so: a length that it has room for, and a brace."""
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= os.path.getsize(path) - 8


def safetensors(path: Path) -> Tensors:
    """Its tensors and its metadata.

    Raises:
        DataError: the header is damaged or lies: types, shapes, places that overlap, leave a hole or lie outside.
    """
    with open(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_HEADER, size - 8):
            _damaged(path, f"a header of {length:,} bytes in a file of {size:,}")
        try:
            header = json.loads(file.read(length), object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            _damaged(path, f"its header is no JSON: {error}")
    if not isinstance(header, dict):
        _damaged(path, f"its header is a {type(header).__name__}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        _damaged(path, "its metadata are no texts")
    places = {name: _place(path, name, entry) for name, entry in header.items()}
    at = 0
    for name, (dtype, shape, begin, end) in sorted(places.items(), key=lambda one: one[1][2:]):
        if begin != at or end - begin != dtype.itemsize * math.prod(shape):
            _damaged(path, f"{quoted(name)} lies at {begin:,} … {end:,} after {at:,} bytes")
        at = end
    if at != size - 8 - length:
        _damaged(path, f"{at:,} bytes of tensors where {size - 8 - length:,} are")

    def array(name: str) -> np.ndarray:
        dtype, shape, begin, end = places[name]
        found = np.fromfile(path, dtype, math.prod(shape), offset=8 + length + begin)  # not mapped: it may be cut
        if found.nbytes != end - begin:
            _damaged(path, f"{quoted(name)} ends early")
        found = found.reshape(shape)
        if header[name]["dtype"] == "BF16":  # the upper half of a float32
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found

    return list(places), lambda name: math.prod(places[name][1]), array, metadata.get(KEY)


def _place(path: Path, name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    fields = {"dtype": str, "shape": list, "data_offsets": list}
    sound = isinstance(entry, dict) and entry.keys() == fields.keys()
    sound = sound and all(isinstance(entry[field], kind) for field, kind in fields.items())
    if not sound:
        _damaged(path, f"{quoted(name)} has no dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if entry["dtype"] not in _TYPES:
        raise DataError(f"{path}: {quoted(name)} is of type {entry['dtype']:.20}", wanted="F64, F32, F16 or BF16")
    if len(shape) > _DIMENSIONS or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in [*shape, *offsets]):
        _damaged(path, f"{quoted(name)} has an impossible shape or place")
    return np.dtype(_TYPES[entry["dtype"]]), tuple(shape), offsets[0], offsets[1]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _damaged(path: Path, why: str) -> NoReturn:
    raise DataError(f"{path}: {why}", wanted="a whole safetensors file", do="get the file again")


def is_torch(path: Path, head: bytes) -> bool:
    """Whether this is an archive with a pickle in it, as `torch.save` writes."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def torch_state(path: Path) -> Tensors:
    """The tensors of a state_dict, by PyTorch's loader.

    Raises:
        DataError: PyTorch is missing, the file is damaged, holds anything but tensors, or is too large.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        do = "pip install torch, or save it with safetensors.torch.save_file"
        raise DataError(f"{path} is a PyTorch file and PyTorch is not installed", do=do) from None
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(one.file_size for one in archive.infolist())
        if unpacked > _MOST_BYTES:
            raise DataError(f"{path}: {unpacked:,} bytes", wanted=f"{_MOST_BYTES:,} at most")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Exception as error:  # whatever its unpickler stumbles over
        why = " ".join(str(error).split()) or type(error).__name__
        wanted = "a state_dict: torch.save(module.state_dict(), FILE)"
        raise DataError(f"{path} cannot be read by PyTorch: {why:.160}", wanted=wanted) from None
    tensors = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(one, torch.Tensor) for name, one in state.items()
    )
    if not tensors:
        raise DataError(f"{path} holds no state_dict", wanted="torch.save(module.state_dict(), FILE)")
    about = getattr(state, "_metadata", None)
    about = about.get(TORCH_KEY) if isinstance(about, dict) else None
    text = about.get(KEY) if isinstance(about, dict) else None

    def array(name: str) -> np.ndarray:
        one = state[name].detach()
        return (one.to(torch.float64) if one.is_floating_point() else one).numpy()

    return list(state), lambda name: state[name].numel(), array, text if isinstance(text, str) else None
