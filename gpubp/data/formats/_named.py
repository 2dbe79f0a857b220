"""Parts out of a file that holds arrays under names: which is X, y and the weights of which split."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .. import names
from . import Part, Request, read_labels


def read_named(
    members: Collection[str], array: Callable[[str, names.Role], NDArray[Any]], path: Path, request: Request
) -> list[Part]:
    """The arrays under the usual names, or under those the user gave; one part for each split.

    Args:
        members: the names there are.
        array: gives the array of a name, to be used as this.
        path, request: the file and what the user asked for.

    Raises:
        DataError: an array is missing, or several could be meant; or what `array` raises.
    """
    wanted = request.wants_y
    parts = []
    for split in names.splits(members, request.x) or (None,):
        first = split in (None, "train")
        chosen = names.choose(
            members,
            str(path),
            x=request.x,
            y=request.y if wanted else None,
            weights=request.weights,
            split=split,
            y_required=wanted and request.labels is None and first,
        )
        X = array(chosen.x, "x")
        y = array(chosen.y, "y") if wanted and chosen.y is not None else None
        if request.labels is not None and first:
            y = read_labels(request.labels, request)
        weights = None if chosen.weights is None else array(chosen.weights, "weights")
        parts.append(Part(chosen.split, X, y, weights))
    return parts


def as_rows(part: Part) -> Part:
    """A part of a language where everything is a matrix: y and weights of (m, 1) or (1, m) become (m,).

    Of an X of more than two dimensions the last counts the rows where only that one has the length of y: pictures of
    height × width × colours × m.
    """
    y, weights = (
        values.reshape(-1) if values is not None and values.ndim == 2 and 1 in values.shape else values
        for values in (part.y, part.weights)
    )
    X = part.X
    if X.ndim > 2 and y is not None and X.shape[0] != len(y) == X.shape[-1]:
        X = X.transpose(X.ndim - 1, *range(X.ndim - 1))
    return Part(part.split, X, y, weights, part.feature_names)
