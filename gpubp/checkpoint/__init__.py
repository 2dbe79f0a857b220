"""The checkpoint: one record, one file, written whole and read strictly.

`record` says what a checkpoint is and checks it leaf by leaf; `layout` makes an HDF5 file of the leaves; `guard` puts
digests in front of it (`table`) and refuses a file that does not have them; `whole` puts bytes on the disk all at once
or not at all; `background` does it while training goes on. Here the record becomes a file and comes back.
docs/checkpoint-format.md describes the file.

It is an ordinary HDF5 file: h5py, h5dump and MATLAB open it. Inside it is a flat table of leaves, each one dataset:
arrays and numbers as they are, to the bit; descriptions as JSON text. Equal content gives equal bytes.

The digest is against damage, not against a forger, so the file is believed nothing even where the digest is right:
known names, hard links, plain datasets no larger than the file; no filters, no storage elsewhere; no pickle.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError
from .background import Background
from .guard import is_checkpoint, read_sealed, verify
from .layout import Known, Layout
from .record import SCALING, SCALING_TEXT, STATE, STOPPING, TEXTS, THETA, Checkpoint, require
from .whole import one_line, sync_folder, warn_once, write_all, write_whole, writing_whole

if TYPE_CHECKING:
    import h5py

__all__ = [
    "Background", "Checkpoint", "Known", "is_checkpoint", "one_line", "pack", "read", "sync_folder", "verify",
    "warn_once", "write", "write_all", "write_whole",
]  # fmt: skip

_GROUPS = {"Theta", "optimizer", "optimizer/state", "scaling", "stopping"}

_DESCRIPTION = """\
A checkpoint of gpubp: a feed-forward network as far as it was trained, and all that is needed to go on.
Theta/Theta1, Theta/Theta2, ... are its weights in Andrew Ng's notation, float64: Theta_l carries layer l to layer l+1,
has one row for each unit of layer l+1, the bias in column 0 and the weight from unit j of layer l in column j.
Read it with any HDF5 library, in Python: h5py.File(name)["Theta/Theta1"][:]
history has one row for each iteration, its columns are named in history_columns; precision there is the significant
bits of a factor of a product (fp32 24, fp64 53). optimizer/state is what the optimizer remembers; the texts (network,
optimizer/settings, scaling/settings, targets, conditions, job, ending) are JSON.
The bytes before the HDF5 file hold digests of it: gpubp refuses the file once another program has changed it.
The network is given (x - scaling/mean) / scaling/scale, column by column; an absent one does nothing. A missing value
(NaN) is replaced by scaling/fill before that, if there is one.
Where there is a group stopping, Theta is the one of stopping/iteration, where the cost was stopping/J and that of rows
held out stopping/validation; the one of the last iteration is the vector optimizer/state/Theta."""


def write(
    path: str | Path,
    checkpoint: Checkpoint,
    *,
    known: Known | None = None,
    versions: Mapping[str, Sequence[Hashable]] | None = None,
    go_on: Callable[[], None] = lambda: None,
) -> None:
    """Write a checkpoint whole: when this returns it is on the disk, and until then the earlier file is untouched.

    Args:
        known, versions: rows of the optimizer's state whose digests are known, see `layout.Layout.write`; versions by
            the name of the field.
        go_on: called now and then; what it raises ends the writing.

    Raises:
        CheckpointError: it cannot be written; the message says why (disk full, read-only, quota, …).
    """
    layout = _laid_out(checkpoint)
    told = {STATE + name: rows for name, rows in (versions or {}).items()}
    with writing_whole(path, layout.length) as sink:
        sink.finish(layout.write(sink.write, known, told, go_on))
        go_on()


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint: first the digest is verified, then libhdf5 reads, then every leaf is checked.

    Raises:
        MismatchError: it was written in another format.
        CheckpointError: anything else that is not a sound checkpoint; the message says what.
    """
    image = read_sealed(path)
    import h5py

    try:
        with h5py.File(io.BytesIO(image), "r") as hdf5:
            leaves = dict(_walk(hdf5, "", len(image)))
        return _assembled(leaves)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.found}", wanted=error.wanted, do=error.do) from None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} is sound, but nothing that gpubp wrote: {why}") from error


def pack(checkpoint: Checkpoint) -> memoryview:
    """The bytes of the file; equal content gives equal bytes."""
    layout, image = _laid_out(checkpoint), io.BytesIO()
    head = layout.write(image.write)
    image.getbuffer()[: len(head)] = head
    return image.getbuffer()


def _laid_out(checkpoint: Checkpoint) -> Layout:
    attributes: dict[str, dict[str, Any]] = {"": {"description": _DESCRIPTION}}
    for l in range(1, len(checkpoint.Theta) + 1):
        meaning = f"weights from layer {l} to layer {l + 1}: a row for each unit of layer {l + 1}, bias in column 0"
        attributes[f"{THETA}{l}"] = {"meaning": meaning, "from_layer": l, "to_layer": l + 1}
    return Layout(_leaves(checkpoint), attributes)


def _leaves(checkpoint: Checkpoint) -> dict[str, Any]:
    """The record as a flat table, dataset: content."""
    scaling = checkpoint.scaling
    arrays = {name: value for name, value in scaling.items() if isinstance(value, np.ndarray)}
    texts = {path: getattr(checkpoint, field) for field, path in TEXTS.items()}
    texts[SCALING_TEXT] = {name: value for name, value in scaling.items() if name not in arrays}
    return {
        **{f"{THETA}{l}": Theta for l, Theta in enumerate(checkpoint.Theta, start=1)},
        **{path: json.dumps(value, sort_keys=True) for path, value in texts.items()},
        **{SCALING + name: value for name, value in arrays.items()},
        **{STATE + name: value for name, value in checkpoint.state.items()},
        **{STOPPING + name: value for name, value in checkpoint.stopping.items()},
        "history": checkpoint.history,
        "lambda": checkpoint.lambda_,
        "iteration": checkpoint.iteration,
    }


def _assembled(leaves: dict[str, Any]) -> Checkpoint:
    """The record again. A missing leaf is refused, and so is one too many."""

    def take(path: str) -> Any:
        if path not in leaves:
            raise CheckpointError(f"leaf '{path}' is missing")
        return leaves.pop(path)

    def take_text(path: str) -> Any:
        text = take(path)
        require(isinstance(text, str), path, text, "JSON text")
        return json.loads(text)

    def take_all(prefix: str) -> dict[str, Any]:
        return {path.removeprefix(prefix): leaves.pop(path) for path in list(leaves) if path.startswith(prefix)}

    record: dict[str, Any] = {field: take_text(path) for field, path in TEXTS.items()}
    record["scaling"] = {**take_text(SCALING_TEXT), **take_all(SCALING)}
    record["state"], record["stopping"] = take_all(STATE), take_all(STOPPING)
    matrices = sum(path.startswith(THETA) for path in leaves)
    record["Theta"] = tuple(take(f"{THETA}{l}") for l in range(1, matrices + 1))
    record["history"], record["lambda_"], record["iteration"] = take("history"), take("lambda"), take("iteration")
    if leaves:
        raise CheckpointError(f"leaf '{min(leaves)}' belongs to no checkpoint")
    return Checkpoint(**record)


def _walk(group: h5py.Group, prefix: str, length: int) -> Iterator[tuple[str, Any]]:
    """Every dataset of a file of `length` bytes with its content; what is not stored plainly in it is refused."""
    import h5py

    for name in group:
        path = f"{prefix}{name}"
        item: Any = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        if isinstance(item, h5py.Group) and path in _GROUPS:
            yield from _walk(item, f"{path}/", length)
            continue
        plain = False
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            stored = item.id.get_create_plist()
            plain = stored.get_layout() in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS) and not stored.get_external_count()
            plain = plain and item.size * item.dtype.itemsize <= length
        if not plain:
            raise CheckpointError(f"leaf '{path}' is not stored plainly in this file")
        value = item[()]
        if isinstance(value, np.generic) and value.dtype.kind != "S":
            right = value.dtype in (np.float64, np.int64, np.bool_)
            require(right, path, f"a number of type {value.dtype}", "float64, int64 or bool")
        yield path, value.decode() if isinstance(value, bytes) else value
