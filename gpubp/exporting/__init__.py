"""A model as a file that other programs read. A format is one file in this folder; their names are the formats.

A format has:

- `TITLE`, a line for help; `SUFFIX`, how its files end; `PRECISION`, "fp32" or "fp64", what numbers it takes where
  nothing is said;
- `pack(model, dtype)`: the bytes of the file;
- `note(model)`, if it wants one: a line about how the file is used;
- `answers(path, model, X)`: what somebody else makes of the file: the outputs h (rows, K) for the rows X, and the
  predictions or None.

`export` writes the bytes beside the name they will have, lets the format load them again, compares its answers with the
model's own on random rows, and only then gives the file its name. Nothing is pickled by us. Files here whose names
begin with ``_`` are what several formats share.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.whole import temporary_of, writing_whole
from ..errors import DataError, GpubpError, UsageError
from ..inference import Model, decide
from ..results import refuse_target

_ROWS = 64  # that are compared
_NEAR = {"fp32": 1e-6, "fp64": 1e-12}  # how near an answer must be, beside what rounding does to this network


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        format, precision: of it.
        bytes: how long it is.
        difference: the largest among the outputs that were compared.
        note: how the format wants to be used, or "".
    """

    path: Path
    format: str
    precision: str
    bytes: int
    difference: float
    note: str = ""


def names() -> tuple[str, ...]:
    """The formats there are, as the user writes them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"))


def format_of(name: str | None, path: str | Path | None) -> str:
    """The format that is meant, by its name or by the end of the file's.

    Raises:
        UsageError: there is none of that name; or neither tells.
    """
    if name is not None:
        if name not in names():
            raise UsageError(f"format '{name}'", wanted=f"one of {', '.join(names())}")
        return name
    suffix = "" if path is None else Path(path).suffix.lower()
    found = [one for one in names() if _room(one).SUFFIX == suffix]
    if not found:
        shown = f"a file named {Path(path).name}" if path is not None else "no format"
        suffixes = ", ".join(_room(one).SUFFIX for one in names())
        raise UsageError(shown, wanted=f"--to {'|'.join(names())}, or a name that ends in {suffixes}")
    return found[0]


def suffix_of(name: str) -> str:
    """How files of a format end."""
    return _room(name).SUFFIX


def export(
    model: Model,
    path: str | Path,
    to: str | None = None,
    *,
    precision: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a model into a file of another format: network, Θ, scaling, what fills a gap, the names of the classes.

    Args:
        to: the format, one of `names`; by default what the file's name ends in.
        precision: of the numbers in it, "fp32" or "fp64"; by default the format's own.
        overwrite: whether a file of that name may be replaced.

    Raises:
        UsageError: a format, or a package for it, that there is not.
        DataError: the file exists; a model that does not fit the format, or whose file answers otherwise than it.
        CheckpointError: the file cannot be written.
    """
    path, to = Path(path), format_of(to, path)
    room = _room(to)
    precision = precision or room.PRECISION
    if precision not in _NEAR:
        raise UsageError(f"precision {precision} for an export", wanted=f"one of {', '.join(_NEAR)}")
    refuse_target(path, "an export", overwrite=overwrite)
    dtype = np.dtype(np.float32 if precision == "fp32" else np.float64)
    with np.errstate(over="ignore"):
        finite = np.isfinite(model.Theta.astype(dtype)).all()
    if not finite:
        raise DataError("weights beyond float32", wanted="numbers that it holds", do="add --precision fp64")
    note = room.note(model) if hasattr(room, "note") else ""
    data = room.pack(model, dtype)
    with writing_whole(path, len(data)) as sink:
        sink.write(data)
        sink.finish(b"")
        difference = _compare(room, temporary_of(path), model, precision)
    return Exported(path, to, precision, len(data), difference, note)


def _room(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def rows_like(model: Model, dtype: np.dtype[Any], rows: int = _ROWS) -> np.ndarray:
    """Random rows (rows, s_1) as the training may have had them, by the scaling; with gaps where the model fills them.

    Raises:
        DataError: the type does not hold them.
    """
    rng = np.random.default_rng(0)
    shape, scaling = (rows, model.network.sizes[0]), model.scaling
    X = rng.integers(0, 256, shape).astype(np.float64) if scaling.kind == "255" else rng.normal(size=shape)
    if scaling.mean is not None and scaling.scale is not None:
        X = scaling.mean + scaling.scale * X
    with np.errstate(over="ignore"):
        X = X.astype(dtype)
    if not np.isfinite(X).all():
        raise DataError("features beyond float32", wanted="numbers that it holds", do="add --precision fp64")
    if model.fill is not None and not model.drops:
        X[rng.random(shape) < 0.1] = np.nan
    return X


def outputs_of(model: Model, X: np.ndarray, precision: str) -> np.ndarray:
    """h (rows, K) of rows that have the network's columns alone."""
    bare = replace(model, job={name: value for name, value in model.job.items() if name != "select"})
    h = bare.predict_proba(X, backend="cpu", precision=precision)
    return h[:, 1:] if model.targets.kind == "binary" else h


def _compare(room: Any, path: Path, model: Model, precision: str) -> float:
    """The largest difference between the answers of the file and the model's; refused beyond rounding."""
    X = rows_like(model, np.dtype(np.float32 if precision == "fp32" else np.float64))
    h, rounded = (outputs_of(model, X.astype(np.float64), kind) for kind in ("fp64", "fp32"))
    try:
        found, answer = room.answers(path, model, X)
    except GpubpError as error:
        raise DataError(f"the {room.__name__.rpartition('.')[2]} file cannot be read again: {error}") from None
    difference = np.abs(found - h)
    allowed = _NEAR[precision] * np.maximum(1, np.abs(h))
    if precision == "fp32":
        allowed = allowed + 10 * np.abs(rounded - h).max(axis=0)
    if found.shape != h.shape or not (difference <= allowed).all():
        worst = float(np.max(difference))
        raise DataError(
            f"the file that was written answers otherwise than the model, by up to {worst:.3g}",
            wanted=f"{float(np.max(allowed)):.3g} at most",
            do="export it with --precision fp64" if precision == "fp32" else "",
        )
    if answer is not None and not np.array_equal(answer, decide(model.targets, found)):
        raise DataError("the file that was written names other classes than the model", wanted="the model's own")
    return float(difference.max())
