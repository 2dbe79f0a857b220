"""Which columns of a table are features, which one is the label, which one the weight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ..names import listed, quoted, role_of
from . import Request


@dataclass(frozen=True)
class Columns:
    """Columns by their numbers from 0, in the order in which they become features."""

    features: tuple[int, ...]
    label: int | None
    weight: int | None


def choose_columns(path: Path, width: int, header: Sequence[str] | None, request: Request) -> Columns:
    """The columns that the user named, or the usual ones.

    The label is the column of ``y`` (a name, or a number from 0, negative from the end), else the only one with a usual
    name for y, else the last. Weights are a column only where ``weights`` names it: "weight" is as often a feature. All
    others are features, unless ``x`` lists them: names, numbers and ranges such as ``3:10`` (its end excluded).

    Raises:
        DataError: a column is not there, or would be two things at once, or no column is left for the features.
    """
    weight = None
    if request.weights is not None and request.weights.lower() != "none":
        weight = column_of(path, request.weights, width, header, "--weights")
    asked = None if request.x is None else _listed_columns(path, request.x, width, header)
    label = None
    if request.labels is None and request.wants_y:
        usual = [column for column, name in enumerate(header or ()) if role_of(name) == "y" and column != weight]
        if request.y is not None:
            label = column_of(path, request.y, width, header, "--y")
        elif len(usual) == 1:
            label = usual[0]
        else:
            label = max((column for column in range(width) if column != weight), default=None)
    features = tuple(column for column in range(width) if column not in (label, weight)) if asked is None else asked
    for column, role in ((label, "y"), (weight, "weights")):
        if column is not None and (column in features or (role == "weights" and column == label)):
            other = "x" if column in features else "y"
            name = quoted(header[column]) if header else str(column)
            raise DataError(
                f"{path}: column {name} would be both {other} and {role}",
                wanted="each column to be one thing",
                do=f"say --{role} with another column" + (", or --y none" if role == "y" else ""),
            )
    return Columns(features, label, weight)


def column_of(path: Path, named: str, width: int, header: Sequence[str] | None, option: str) -> int:
    """The number of the column with this name, or with this number.

    Raises:
        DataError: there is none.
    """
    if header is not None and list(header).count(named) == 1:
        return list(header).index(named)
    position = position_of(named, width)
    if position is None:
        if header is None:
            held = f"it has {width} columns without names"
        else:
            held = "several have that name" if named in header else f"its columns are {listed(header)}"
        raise DataError(f"{path} has no column {quoted(named)}; {held}", do=f"say {option} NAME, or a number from 0")
    return position


def position_of(named: str, width: int) -> int | None:
    """The column with this number, counted from the end where it is negative; None if it is none."""
    if not re.fullmatch(r"-?\d{1,18}", named, re.ASCII) or not -width <= int(named) < width:
        return None
    return int(named) % width


def _listed_columns(path: Path, listed_names: str, width: int, header: Sequence[str] | None) -> tuple[int, ...]:
    if header is not None and listed_names in header:
        return (column_of(path, listed_names, width, header, "--x"),)
    found: list[int] = []
    for item in (item.strip() for item in listed_names.split(",")):
        ends = re.fullmatch(r"(-?\d{1,18})?:(-?\d{1,18})?", item, re.ASCII)
        if ends and not (header is not None and item in header):
            found += range(width)[slice(*(None if end is None else int(end) for end in ends.groups()))]
        else:
            found.append(column_of(path, item, width, header, "--x"))
    if not found or len(set(found)) < len(found):
        what = "twice in" if found else "in"
        raise DataError(
            f"{path}: {'a column is ' if found else 'no column is '}{what} --x {quoted(listed_names)}",
            wanted=f"columns out of {width}, each once",
        )
    return tuple(found)
