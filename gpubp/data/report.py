"""What a data file holds, for `gpubp info`: its datasets, what training would make of them, how fast they are read,
what is in the columns, and what to fix (`advice`).

The record is made of plain types that JSON can carry. Figures of the rows come from `speed` (a third of a second on
each set of rows) and `columns` (one reading of all rows).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import guard, names
from .advice import advice
from .columns import Columns, look
from .dataset import Dataset, open_dataset
from .hdf5.file import HdfFile
from .hdf5.stored import Stored
from .memory import default_budget
from .source import shape_text
from .speed import measure
from .tables import Named
from .targets import TargetSpec, encode, interpret

COUNTED = 100  # classes that are listed with their numbers of rows
LOOKED = 2.0  # seconds that reading all rows may take without being asked for
_LOOK_RATE = 1.0e9  # bytes per second that `columns.look` is reckoned to do where reading is no faster

Rows = Literal["none", "auto", "all"]
Progress = Callable[[int, int], object]


def describe_file(
    path: str | os.PathLike[str],
    *,
    x: str | None = None,
    y: str | None = None,
    weights: str | None = None,
    split: str | None = None,
    allow: str | None = None,
    rows: Rows = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What a data file holds, in plain types that JSON can carry (None for what is no number).

    Args:
        path: an HDF5 file.
        x, y, weights, split, allow: as in `open_dataset`; a split leaves the others out.
        rows: "none" reads no row of X; "auto" measures how fast rows are read, and reads all of them where that takes
            about two seconds; "all" reads all.
        progress: called with (rows read, rows in all) while all rows of a split are read.

    Returns:
        `path`, `asked` (of x, y, weights, split and allow those that were given), `bytes`, `attributes` (text and
        numbers on the file itself), `checksums` (names of the datasets that have some), `datasets` (one record each:
        `name`, `role`, `split`, `trouble`, and, unless it is a link that leads elsewhere, `shape`, `dtype`, `layout`,
        `chunks`, `compression`, `filters`, `stored` and `declared` bytes).

        `parts`, for each set of rows: its `split`, `x`, `y`, `weights`, `rows`, `features`, `dtype`, and

        - `target`, what y would be taken for, with `classes` and `counts`, `balance`, or the outputs' `range`;
        - `weighing`: the least, the greatest, the sum of the weights and how many are zero;
        - `reading`: the `way`, `rate` and `raw` in bytes per second (see `speed.Speed`), `bytes` of all rows, what a
          pass over them takes (`seconds`), the `budget` for rows in memory and whether they are `kept` there;
        - `values` and `columns`, if all rows were read, else `skipped` with the `seconds` that it would take.

        Or `trouble`, the line that training would stop with. And `advice`: see `advice.advice`.

    Raises:
        DataError: it is no HDF5 file, or damaged.
    """
    shown = os.fspath(path)
    asked = {"x": x, "y": y, "weights": weights, "split": split, "allow": allow}
    with guard.open_file(path) as file:
        attributes = file.attributes
        entries = [file.entries[name] for name in names.own(file.entries)]
        hidden = set(file.entries).difference(entry.path for entry in entries)
        table = Named.of(x and x.strip("/"), file.entries).path
        there = (split,) if split else names.splits(list(file.entries), table) or (None,)
    result: dict[str, Any] = {
        "path": shown,
        "asked": {name: os.fspath(value) for name, value in asked.items() if value is not None},
        "bytes": Path(path).stat().st_size,
        "attributes": attributes,
        "checksums": sorted(name.removesuffix(names.CHECKSUMS) for name in hidden),
        "datasets": [_record(entry) for entry in entries],
    }
    patience = {"none": 0.0, "auto": LOOKED, "all": math.inf}[rows]
    parts = []
    for one in there:
        part = _part(shown, asked | {"split": one}, rows, patience, progress)
        patience -= part.get("values", {}).get("seconds", 0.0)
        parts.append(part)
    return result | {"parts": parts, "advice": advice(result | {"parts": parts})}


def _record(entry: Stored) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": entry.path,
        "role": names.role_of(entry.path),
        "split": names.split_of(entry.path),
        "trouble": f"{entry.trouble}; {entry.remedy}" if entry.trouble else None,
    }
    if entry.layout == "none":
        return record
    kind = "text" if entry.text else entry.odd or str(entry.dtype)
    filters = [one.name or f"filter {one.code}" for one in entry.filters]
    fields: Any = entry.dtype.fields or {}
    return record | {
        "shape": list(entry.shape),
        "dtype": kind,
        "layout": entry.layout,
        "chunks": entry.chunk_shape and list(entry.chunk_shape),
        "compression": ", ".join(filters) or None,
        "filters": [{"code": one.code, "name": one.name, "options": list(one.options)} for one in entry.filters],
        "fields": {name: str(fields[name][0]) for name in entry.dtype.names or ()} or None,
        "stored": entry.size,
        "declared": None if entry.text else entry.declared,
    }


def _part(
    path: str, chosen: dict[str, str | None], rows: Rows, patience: float, progress: Progress | None
) -> dict[str, Any]:
    part: dict[str, Any] = {"split": chosen["split"]}
    try:
        with open_dataset(path, **chosen, y_required=False) as data:
            part |= {
                "x": data.x_name,
                "y": data.y_name,
                "weights": data.weights_name,
                "rows": data.source.m,
                "features": data.source.features,
                "dtype": str(data.source.dtype),
                "feature_names": data.feature_names and list(data.feature_names),
            }
            if data.target is not None:
                part["target"] = describe_target(data.target, f"{path}: {names.quoted(data.y_name or '')}")
            if data.weights is not None:
                part["weighing"] = _weighing(data.weights)
            if rows != "none":
                part["reading"] = _reading(path, data)
                part |= _values(data, part["reading"]["rate"], patience, progress)
    except DataError as error:
        part["trouble"] = str(error)
    return part


def describe_target(target: NDArray[Any], where: str) -> dict[str, Any]:
    """What y would be taken for: see `describe_file`. `trouble` is the line that training would stop with."""
    found: dict[str, Any] = {"stored": shape_text(target.shape, target.dtype)}
    try:
        cost, spec = interpret(target, where=where)
    except DataError as error:
        return found | {"trouble": str(error)}
    found |= {"kind": spec.kind, "outputs": spec.outputs, "cost": cost, "says": spec.describe()}
    if spec.classes is not None:
        found |= _class_counts(target, spec, where)
    elif spec.kind == "multilabel":
        found["shares"] = [float(share) for share in target.mean(axis=0, dtype=np.float64)]
    else:
        table = target.reshape(len(target), -1).astype(np.float64, copy=False)
        figures = {"min": table.min(axis=0), "max": table.max(axis=0), "mean": table.mean(axis=0), "std": table.std(0)}
        found["range"] = [_plain({name: row[k] for name, row in figures.items()}) for k in range(table.shape[1])]
    if target.ndim == 1 and target.dtype.kind in "buif":
        found["figures"] = {
            "min": target.min().item(),
            "max": target.max().item(),
            "mean": float(target.mean(dtype=np.float64)),
            "std": float(target.std(dtype=np.float64)),
        }
    return found


def _class_counts(target: NDArray[Any], spec: TargetSpec, where: str) -> dict[str, Any]:
    counts = np.bincount(encode(target, spec, where=where), minlength=len(spec.classes or ()))
    classes: Any = spec.classes
    found: dict[str, Any] = {"classes": list(classes)}
    if len(classes) <= COUNTED:
        found["counts"] = counts.tolist()
    most, least = int(counts.argmax()), int(counts.argmin())
    found["balance"] = {
        "largest": {"class": classes[most], "rows": int(counts[most]), "share": float(counts[most] / len(target))},
        "smallest": {"class": classes[least], "rows": int(counts[least]), "share": float(counts[least] / len(target))},
        "ratio": float(counts[most] / counts[least]),
    }
    return found


def _weighing(weights: NDArray[np.float64]) -> dict[str, Any]:
    positive = weights[weights > 0]
    return {
        "min": float(weights.min()),
        "max": float(weights.max()),
        "sum": float(weights.sum()),
        "zeros": int(weights.size - positive.size),
        "least_positive": float(positive.min()),
    }


def _reading(path: str, data: Dataset) -> dict[str, Any]:
    source, budget = data.source, default_budget()
    total = source.m * source.features * source.dtype.itemsize
    with guard.open_file(path) as file:
        found = measure(file, _located(file, data.x_name), source)
    way: Any = getattr(source, "way", None)
    return {
        "way": getattr(way, "name", None) or "as a view of other rows",
        "rate": found.rate,
        "raw": found.raw,
        "share": found.share,
        "cached": found.cached,
        "measured": {"bytes": found.bytes, "seconds": found.seconds},
        "bytes": total,
        "seconds": total / found.rate,
        "budget": budget,
        "kept": total <= budget,
    }


def _located(file: HdfFile, name: str) -> Stored:
    """The dataset behind X (``jets[pt,eta]`` are fields of ``jets``), where it can be had; else one without a place."""
    name = name if name in file.entries else name.partition("[")[0]
    there = name in file.entries and not file.entries[name].trouble  # a virtual one's values are not in this file
    return file.dataset(name) if there else Stored(name)


def _values(data: Dataset, rate: float, patience: float, progress: Progress | None) -> dict[str, Any]:
    """`values` and `columns`; or why there are none."""
    source = data.source
    total = source.m * source.features * source.dtype.itemsize
    seconds = total / min(rate, _LOOK_RATE)
    if seconds > patience:
        return {"skipped": {"seconds": seconds}}
    began = time.perf_counter()
    found = look(source, progress=progress)
    columns = columns_record(found, data.feature_names)
    values: dict[str, Any] = {
        "seconds": time.perf_counter() - began,
        "missing": int(found.missing.sum()),
        "rows_missing": found.rows_missing,
        "infinite": int(found.infinite.sum()),
        "constant": np.flatnonzero(found.constant).tolist(),
        "may_be_equal": found.equals(),
        "whole": int(np.count_nonzero(found.whole)),
        "narrow": found.narrow,
        "smallest": _smallest(found),
    }
    there = found.finite > 0
    spread = found.std[np.isfinite(found.std) & (found.std > 0)]
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large for a number is None
        if there.any():
            values["min"] = _plain(found.minimum[there].min())
            values["max"] = _plain(found.maximum[there].max())
            values["mean"] = _plain(float(np.average(found.mean[there], weights=found.finite[there])))
        values["spread"] = _plain(float(spread.max() / spread.min())) if spread.size else None
    return {"values": values, "columns": columns}


def columns_record(found: Columns, feature_names: tuple[str, ...] | None) -> list[dict[str, Any]]:
    """One record for each column: `column`, `name`, `min`, `max`, `mean`, `std`, `missing`, `infinite`, `whole`."""
    labels = feature_names or (None,) * len(found.mean)
    there = found.finite > 0
    return [
        {
            "column": k,
            "name": labels[k],
            "min": _plain(found.minimum[k]) if there[k] else None,
            "max": _plain(found.maximum[k]) if there[k] else None,
            "mean": _plain(found.mean[k]),
            "std": _plain(found.std[k]),
            "missing": int(found.missing[k]),
            "infinite": int(found.infinite[k]),
            "whole": bool(found.whole[k]),
        }
        for k in range(len(found.mean))
    ]


def _smallest(found: Columns) -> str | None:
    """A smaller type that holds every value of X exactly; None where there is none."""
    dtype = found.minimum.dtype
    if dtype.kind == "f":
        return "float32" if found.narrow else None
    low, high = int(found.minimum.min()), int(found.maximum.max())
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32"):
        limits = np.iinfo(name)
        if np.dtype(name).itemsize < dtype.itemsize and limits.min <= low and high <= limits.max:
            return name
    return None


def _plain(value: Any) -> Any:
    """A number as Python's; None for one that is not finite."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
