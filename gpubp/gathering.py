"""Matrices of which each rank has some columns, on their way into a checkpoint and out of it.

They go a row at a time: no rank but the one that reads a file ever has such a matrix whole. Rank 0 says which row it
wants, the others give what they have of it until it wants no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .communicator import Communicator
from .optimizers import State
from .optimizers.parted import Parted, parts


class Gathered:
    """A matrix as a checkpoint has it, on rank 0; see `checkpoint.record.ByRows`.

    Args:
        name: which field of the state it is.
    """

    def __init__(self, ranks: Communicator, name: str, matrix: Parted) -> None:
        self._ranks, self._name, self._matrix = ranks, name, matrix
        self.shape, self.dtype = matrix.shape, matrix.dtype

    def row(self, j: int) -> np.ndarray:
        """Row j, (P,), from all ranks."""
        self._ranks.share((self._name, j))
        return np.concatenate(self._ranks.collect(self._matrix.own[j]))


class Sent:
    """A matrix that rank 0 has read, as it comes to all ranks: its rows one after the other, once.

    Args:
        matrix: it, on rank 0.
    """

    def __init__(self, ranks: Communicator, shape: tuple[int, int], matrix: np.ndarray | None) -> None:
        self._ranks, self._matrix = ranks, matrix
        self.shape, self.dtype = shape, np.dtype(np.float64)

    def __iter__(self) -> Iterator[np.ndarray]:
        for j in range(self.shape[0]):
            yield self._ranks.share(None if self._matrix is None else self._matrix[j])


def is_parted(state: State) -> bool:
    """Whether ranks have parts of what the state remembers."""
    return any(isinstance(value, Parted) for value in vars(state).values())


def whole(ranks: Communicator, saved: Mapping[str, Any]) -> dict[str, Any]:
    """What a state has saved, for a checkpoint: `give` is to be called on all other ranks while that is written."""
    return {name: Gathered(ranks, name, v) if isinstance(v, Parted) else v for name, v in saved.items()}


@contextmanager
def asking(ranks: Communicator) -> Iterator[None]:
    """Inside, rank 0 writes what `whole` gave; afterwards the others wait no longer."""
    try:
        yield
    finally:
        ranks.share(None)


def give(ranks: Communicator, state: State) -> None:
    """What a rank other than 0 does meanwhile."""
    while (word := ranks.share()) is not None:
        name, j = word
        ranks.collect(getattr(state, name).own[j])


def apart(checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    """The shapes of those matrices of a checkpoint's state that ranks are not to have whole."""
    if "passes" not in checkpoint.history_columns:
        return {}  # an early file, whose state is still to be made one of today's
    found = {name: v.shape for name, v in checkpoint.state.items() if isinstance(v, np.ndarray) and v.ndim == 2}
    return {name: (n, P) for name, (n, P) in found.items() if n and parts(P) > 1}


def without(checkpoint: Checkpoint, names: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint for ranks that are sent these matrices by rows."""
    return replace(checkpoint, state={name: v for name, v in checkpoint.state.items() if name not in names})


def received(
    ranks: Communicator, saved: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]], *, at_once: bool
) -> dict[str, Any]:
    """A saved state, in which matrices of these shapes come from rank 0.

    Args:
        at_once: whether they must be arrays.
    """
    if ranks.size == 1:
        return dict(saved)
    sent = {name: Sent(ranks, shape, saved.get(name)) for name, shape in sorted(shapes.items())}
    return {**saved, **({name: np.array(list(rows)) for name, rows in sent.items()} if at_once else sent)}
