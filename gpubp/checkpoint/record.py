"""What a checkpoint holds: the record, and the check of its leaves.

The same check runs when a trainer makes the record and when a file is read: what cannot be read back cannot be written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import CheckpointError

# Where the leaves lie in the file: messages name them by these paths.
THETA, STATE, SCALING, STOPPING = "Theta/Theta", "optimizer/state/", "scaling/", "stopping/"
SCALING_TEXT = "scaling/settings"  # what of the scaling is no array, as JSON
TEXTS = {  # field of the record: the dataset that holds it as JSON
    "network": "network",
    "optimizer": "optimizer/settings",
    "targets": "targets",
    "history_columns": "history_columns",
    "conditions": "conditions",
    "job": "job",
    "ending": "ending",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@runtime_checkable
class ByRows(Protocol):
    """A matrix of a state that is to be written and is nowhere whole: each row is made when it is asked for."""

    shape: tuple[int, int]
    dtype: np.dtype

    def row(self, j: int) -> np.ndarray:
        """Row j."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What a run has reached and all that is needed to go on, predict, or say what it was.

    Dictionaries hold what JSON can hold: their tuples become lists, their NumPy numbers Python's, and the order of keys
    is not kept. Arrays are not copied.

    Attributes:
        Theta: Ng's matrices Θ^(1) … Θ^(L−1), float64, Θ^(l) of shape (s_{l+1}, s_l + 1), the bias in column 0.
        network: its ``sizes`` [s_1, …, s_L] and what else describes it.
        optimizer: name and hyperparameters.
        state: what the optimizer remembers: arrays (bool, integers, floats of up to 64 bits), floats, ints of 64 bits
            and bools, all kept to the bit. A NumPy scalar or 0-dimensional array is kept as its number. One that is
            to be written may have matrices `ByRows`.
        lambda_: λ.
        scaling: how X was scaled: arrays, and what JSON can hold.
        targets: what y was.
        history: float64 of shape (rows, columns).
        history_columns: the names of the columns.
        conditions: what the bits depend on.
        job: what was asked for.
        iteration: how many were done.
        ending: why the run ended, or None while it goes on.
        stopping: numbers: the ``iteration``, ``J`` and ``validation`` cost of Theta where that is not the last one, and
            what early stopping remembers. Empty otherwise, and in files of before there was such a thing.

    Raises:
        CheckpointError: a leaf of another type, dtype or shape; the message names it.
    """

    Theta: tuple[np.ndarray, ...]
    network: dict[str, Any]
    optimizer: dict[str, Any]
    state: dict[str, np.ndarray | float | int | bool]
    lambda_: float
    scaling: dict[str, Any]
    targets: dict[str, Any]
    history: np.ndarray
    history_columns: tuple[str, ...]
    conditions: dict[str, Any]
    job: dict[str, Any]
    iteration: int
    ending: dict[str, Any] | None = None
    stopping: dict[str, float | int | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, path in TEXTS.items():
            value = _plain(path, getattr(self, name))
            if name != "history_columns" and not (name == "ending" and value is None):
                require(isinstance(value, dict), path, value, "a dictionary")
            self._keep(name, value)
        self._check_Theta()
        self._check_history()
        self._keep("state", _table(STATE, self.state, _number))
        self._keep("scaling", _table(SCALING, self.scaling, _plain))
        self._keep("stopping", _table(STOPPING, self.stopping, _number))
        for name, value in self.stopping.items():
            require(not isinstance(value, np.ndarray), f"{STOPPING}{name}", value, "a number")
        for name, path, kind in (("lambda_", "lambda", float), ("iteration", "iteration", int)):
            value = _number(path, getattr(self, name))
            require(type(value) is kind, path, repr(value), f"of type {kind.__name__}")
            self._keep(name, value)
        require(self.iteration >= 0, "iteration", self.iteration, "0 or more")

    def _check_Theta(self) -> None:
        sizes: Any = self.network.get("sizes")
        known = isinstance(sizes, list) and len(sizes) > 1 and all(type(s) is int and s > 0 for s in sizes)
        require(known, "network", self.network, "with sizes, a list of 2 or more whole numbers above 0")
        self._keep("Theta", tuple(self.Theta))
        require(len(self.Theta) == len(sizes) - 1, "Theta", f"{len(self.Theta)} matrices", f"{len(sizes) - 1}")
        for l, (Theta, inputs, outputs) in enumerate(zip(self.Theta, sizes[:-1], sizes[1:], strict=True), start=1):
            _require_float64(f"{THETA}{l}", Theta, (outputs, inputs + 1))

    def _check_history(self) -> None:
        columns: Any = self.history_columns
        named = isinstance(columns, list) and all(isinstance(c, str) for c in columns)
        require(named and len({*columns}) == len(columns), "history_columns", columns, "a list of different names")
        self._keep("history_columns", tuple(columns))
        _require_float64("history", self.history, (None, len(columns)))

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def require(right: bool, path: str, found: object, wanted: str) -> None:
    """Raise CheckpointError, naming the leaf, unless it is right."""
    if not right:
        if isinstance(found, np.ndarray):
            found = f"an array of shape {found.shape}, {found.dtype}"
        raise CheckpointError(f"leaf '{path}' is {' '.join(str(found).split())[:100]}", wanted=wanted)


def _require_float64(path: str, value: Any, shape: tuple[int | None, int]) -> None:
    right = isinstance(value, np.ndarray) and value.dtype == np.float64 and value.ndim == 2
    right = right and shape in (value.shape, (None, value.shape[1]))
    require(right, path, value, f"a float64 array of shape {shape}".replace("None", "rows"))


def _table(prefix: str, table: Any, otherwise: Any) -> dict[str, Any]:
    """Named arrays as they are; what is no array as `otherwise` has it."""
    require(isinstance(table, Mapping), prefix.rstrip("/"), table, "a dictionary")
    kept = {}
    for name, value in table.items():
        path = f"{prefix}{name}"
        named = isinstance(name, str) and _NAME.fullmatch(name) is not None and path != SCALING_TEXT
        require(named, path, "a name that a leaf cannot have", "letters, digits and _")
        if isinstance(value, ByRows):
            kept[name] = value
        elif isinstance(value, np.ndarray) and value.ndim:
            right = value.dtype.kind in "biuf" and value.dtype.itemsize <= 8 and value.dtype.isnative
            require(right, path, value, "bool, integers or floats of up to 64 bits, in this machine's byte order")
            kept[name] = value
        else:
            kept[name] = otherwise(path, value)
    return kept


def _number(path: str, value: Any) -> float | int | bool:
    """A number of Python's that HDF5 keeps to the bit."""
    value = _python(value)
    right = isinstance(value, bool | float) or (isinstance(value, int) and -(2**63) <= value < 2**63)
    require(right, path, repr(value), "an array, a float, a bool or an int of 64 bits")
    return value


def _plain(path: str, value: Any) -> Any:
    """The value as JSON gives it back: tuples as lists, NumPy's numbers as Python's; NaN and ±∞ stay themselves."""
    value = _python(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(f"{path}[{i}]", v) for i, v in enumerate(value)]
    require(isinstance(value, Mapping), path, f"of type {type(value).__name__}", "what JSON can hold")
    for key in value:
        require(isinstance(key, str), f"{path}.{key}", "under a key that is no text", "text as a key")
    return {key: _plain(f"{path}.{key}", v) for key, v in value.items()}


def _python(value: Any) -> Any:
    """NumPy's scalars and 0-dimensional arrays as Python's numbers."""
    return value.item() if isinstance(value, np.ndarray | np.generic) and value.ndim == 0 else value
