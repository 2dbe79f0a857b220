"""Several files as one data set: their rows follow each other in the order in which the files are given.

A name with ``*``, ``?`` or ``[…]`` that is no file stands for the files that match it, sorted by name, character by
character (``part-10`` comes before ``part-2``, as in a shell).
"""

from __future__ import annotations

import glob
import os
import resource
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import DataError
from .dataset import Dataset, open_dataset, splits
from .names import quoted
from .place import stacked
from .source import StackedRows, shape_text

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_SPARE = 128  # descriptors for all that is no data file


def files(data: Paths) -> tuple[str, ...]:
    """The files that are meant, in order.

    Raises:
        DataError: a pattern that matches nothing, a file that is named twice, no file at all.
    """
    given = [data] if isinstance(data, str | os.PathLike) else list(data)
    found: list[str] = []
    for name in (os.fspath(one) for one in given):
        if glob.has_magic(name) and not os.path.lexists(name):
            matching = sorted(glob.glob(name, recursive=True))
            if not matching:
                raise DataError(f"no file matches {quoted(name)}", wanted="one at least")
            found += matching
        else:
            found.append(name)
    if not found:
        raise DataError("no data file is named", wanted="one at least")
    seen: dict[str, str] = {}
    for name in found:
        real = os.path.realpath(name) if "\0" not in name else name
        if real in seen:
            raise DataError(
                f"{name} is named twice" + (f", also as {seen[real]}" if seen[real] != name else ""),
                wanted="each file once",
                do="give rows a weight of 2 to count them twice",
            )
        seen[real] = name
    return tuple(found)


def open_all(
    data: Paths,
    *,
    x: str | None = None,
    y: str | None = None,
    weights: str | None = None,
    split: str | None = None,
    y_required: bool = True,
    allow: str | None = None,
) -> Dataset:
    """Open one set of rows of each file, as one data set. See `dataset.open_dataset`.

    Args:
        data: a file, a pattern, or several.

    Raises:
        DataError: a file cannot be used, or does not go with the others; the message names it.
    """
    paths = files(data)
    allow_descriptors(len(paths))
    opened: list[Dataset] = []
    try:
        for path in paths:
            opened.append(
                open_dataset(path, x=x, y=y, weights=weights, split=split, y_required=y_required, allow=allow)
            )
            _refuse_mixture(opened[0], opened[-1])
        return opened[0] if len(opened) == 1 else _joined(opened)
    except BaseException:
        for one in opened:
            one.close()
        raise


def splits_of(data: Paths, x: str | None = None) -> dict[str, list[str]]:
    """Which of "train", "val" and "test" there are rows for, and in which files.

    Raises:
        DataError: a file cannot be read.
    """
    found: dict[str, list[str]] = {}
    for path in files(data):
        for split in splits(path, x=x):
            found.setdefault(split, []).append(path)
    return found


def allow_descriptors(count: int) -> None:
    """Let this process have so many files open: the usual 1,024 are fewer than a data set may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + _SPARE
    if soft != resource.RLIM_INFINITY and wanted > soft:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if most < count + _SPARE:
            raise DataError(
                f"{count} files, where this process may have {hard} open",
                wanted="fewer files",
                do="raise the limit with ulimit -n, or join files with gpubp convert",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _refuse_mixture(first: Dataset, other: Dataset) -> None:
    """Raise DataError unless two files can be one data set."""
    a, b = first.path, other.path

    def differ(found: str, wanted: str, do: str = "") -> DataError:
        return DataError(f"{b} {found}", wanted=wanted, do=do)

    if other.source.features != first.source.features:
        raise differ(f"has {other.source.features} features", f"{first.source.features}, as {a} has")
    if other.split != first.split:
        mine, theirs = (f"{one.split} rows" if one.split else "no splits" for one in (other, first))
        raise differ(f"has {mine}", f"{theirs}, as {a} has", "name the rows with --x or --split")
    for name, mine, theirs, do in (
        ("y", other.target, first.target, "name it with --y"),
        ("weights", other.weights, first.weights, "say --weights none to train without"),
    ):
        if (mine is None) != (theirs is None):
            has = ("no " if mine is None else "") + name
            raise differ(f"has {has}", f"{name if mine is None else 'none'}, as {a} has", do)
    if first.target is not None and other.target is not None:
        text = first.target.dtype.kind == "U", other.target.dtype.kind == "U"
        if text[0] != text[1]:
            words = {True: "text", False: "numbers"}
            raise differ(f"has {words[text[1]]} in y", f"{words[text[0]]}, as {a} has")
        if other.target.shape[1:] != first.target.shape[1:]:
            mine, theirs = (shape_text(t.shape, t.dtype) for t in (other.target, first.target))
            raise differ(f"has a y of {mine}", f"columns as in {a}, which has {theirs}")
    if first.feature_names and other.feature_names and first.feature_names != other.feature_names:
        at = next(i for i, (m, t) in enumerate(zip(other.feature_names, first.feature_names, strict=True)) if m != t)
        mine, theirs = quoted(other.feature_names[at]), quoted(first.feature_names[at])
        raise differ(f"calls column {at} {mine}", f"{theirs}, as {a} does: the same features in the same order")


def _joined(opened: list[Dataset]) -> Dataset:
    first = opened[0]

    def together(arrays: list[Any]) -> Any:
        return None if arrays[0] is None else np.concatenate(arrays)

    names = next((one.feature_names for one in opened if one.feature_names), None)
    return replace(
        first,
        path=f"{first.path} and {len(opened) - 1} more",
        source=StackedRows([one.source for one in opened]),
        target=together([one.target for one in opened]),
        weights=together([one.weights for one in opened]),
        feature_names=names,
        y_place=stacked([one.y_place for one in opened], [one.source.m for one in opened]),
        column_names=names,
    )
