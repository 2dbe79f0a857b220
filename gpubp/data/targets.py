"""What y means, and the numbers the network is given for it.

`interpret` looks at y once and says what it is (`TargetSpec`) and which cost belongs to it; `encode` turns y into
numbers; `decode` gives back what the user wrote. A spec is stored with the model, so that other data are read the same
way: label 10 is the same class there, and a label the model never saw is an error and not a new class.

    y                                   cost `auto`   kind          outputs K   encoded
    integers or text, > 2 classes       softmax       classes       classes     (m,) code 0 … K−1
    two classes, bool, floats 0 and 1   logistic      binary        1           (m,) code 0, 1
    0/1 matrix (m, K)                   logistic      multilabel    K           (m, K) uint8
    other reals (m,) or (m, K)          squares       real          K           (m, K) float

A cost the user names can ask for another reading: `logistic` and `sigmoid_squares` take more than two classes one
against all (K outputs, as the course does), `softmax` takes two classes as two outputs and a matrix whose rows sum
to one as classes or probabilities, `squares` takes any numbers as real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import cost as costs
from ..errors import DataError, UsageError
from .place import Place, row_of

Kind = Literal["classes", "binary", "multilabel", "real"]
Label = bool | int | str

MOST_CLASSES = 65_536
_FEW_ROWS = 100  # below this many rows, more classes than half of the rows are believed
_CHUNK = 1 << 18  # rows looked at at a time: what is found about y does not take memory that grows with m


@dataclass(frozen=True)
class TargetSpec:
    """What y is.

    Attributes:
        kind: "classes" (one of K), "binary" (two classes, one output), "multilabel" (K labels, each yes or no) or
            "real".
        classes: the labels as the user wrote them, in ascending order; None for "multilabel" and "real".
        outputs: K, the units of the network's last layer.
    """

    kind: Kind
    classes: tuple[Label, ...] | None
    outputs: int

    def __post_init__(self) -> None:
        if self.kind not in ("classes", "binary", "multilabel", "real"):
            raise DataError(f"a target of kind '{self.kind}'", wanted="classes, binary, multilabel or real")
        named = self.kind in ("classes", "binary")
        count = len(self.classes) if self.classes is not None else 0
        right = {"classes": count == self.outputs, "binary": count == 2 and self.outputs == 1}
        if self.outputs < 1 or named != (self.classes is not None) or not right.get(self.kind, True):
            raise DataError(f"a target of kind '{self.kind}' with {count} classes and {self.outputs} outputs")

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> TargetSpec:
        """The spec whose `asdict` was stored, with lists where JSON has no tuples.

        Raises:
            DataError: this is no stored spec.
        """
        try:
            classes = stored["classes"]
            return cls(stored["kind"], None if classes is None else tuple(classes), int(stored["outputs"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"no description of a target: {error!r}", wanted="kind, classes and outputs") from None

    def describe(self) -> str:
        """One phrase, such as ``10 classes, 0 … 9``."""
        if self.classes is None:
            noun = "labels, each yes or no" if self.kind == "multilabel" else "real targets"
            return f"{self.outputs} {noun}" if self.outputs > 1 else "a real target"
        return f"{len(self.classes)} classes, {_shown(self.classes)}"


def interpret(target: NDArray[Any], cost: str = "auto", *, where: str | Place = "y") -> tuple[str, TargetSpec]:
    """What y is, and the cost for it.

    Args:
        target: (m,) or (m, K) bool, integers or floats, or (m,) text.
        cost: "auto", or the cost the user named.
        where: what to call y in messages, and its rows, such as ``data.h5: 'y'``.

    Returns:
        The cost (never "auto"), and the spec.

    Raises:
        DataError: y cannot be what the cost needs, has one class only, or holds NaN or infinity.
        UsageError: the cost cannot be used with y of this type.
    """
    target = _table(target, where)
    takes = None if cost == "auto" else costs.cost(cost).takes
    if target.dtype.kind == "U":
        if takes == "numbers":
            raise UsageError(f"cost '{cost}' with text in {where}", wanted="a cost for classes, such as softmax")
        return _classes(_distinct(target, where), cost, target.shape[0], where)
    _refuse_non_finite(target, where)
    if takes == "numbers":
        return cost, TargetSpec("real", None, _outputs(target))
    if target.ndim == 2:
        return _interpret_matrix(target, cost, where)
    if target.dtype.kind == "f" and not _all(target, _is_zero_or_one):
        if cost == "auto":
            return "squares", TargetSpec("real", None, 1)
        if takes == "labels" and _all(target, _is_share):
            return cost, TargetSpec("real", None, 1)
    return _classes(_distinct(target, where), cost, target.shape[0], where)


def encode(target: NDArray[Any], spec: TargetSpec, *, where: str | Place = "y") -> NDArray[Any]:
    """The numbers the network is given for y.

    Args:
        target: y as in `interpret`; for "classes" also an (m, K) 0/1 matrix with one 1 in each row.
        spec: from `interpret`, of this y or of the data the model was trained on.
        where: what to call y in messages.

    Returns:
        "classes", "binary": (m,) codes 0 … in the smallest unsigned type; "multilabel": (m, K) uint8;
        "real": (m, K) float32 or float64 as stored (float16 becomes float32, integers float64).

    Raises:
        DataError: a label is none of the spec's classes, the columns are not K, or a value cannot be what the spec
            says.
    """
    target = _table(target, where)
    if target.dtype.kind != "U":
        _refuse_non_finite(target, where)
    if spec.classes is not None:
        if target.ndim == 2:
            return _encode_one_hot(target, spec, where)
        return _encode_classes(target, spec.classes, where)
    if target.dtype.kind == "U":
        raise DataError(f"{where} holds text", wanted=spec.describe())
    if _outputs(target) != spec.outputs:
        raise DataError(f"{where} has {_outputs(target)} columns", wanted=f"{spec.outputs}, as the model has")
    matrix = target.reshape(target.shape[0], spec.outputs)
    if spec.kind == "multilabel":
        _demand(matrix, _is_zero_or_one, where, "0 or 1")
        return matrix.astype(np.uint8)
    kept = {np.dtype(np.float16): np.float32, np.dtype(np.float32): np.float32}.get(matrix.dtype, np.float64)
    return matrix.astype(kept)


def decode(codes: NDArray[Any], spec: TargetSpec) -> NDArray[Any]:
    """Labels as the user wrote them from codes 0 … (any shape); "multilabel" and "real" come back as they are.

    Returns:
        An array of bool, int64 or NumPy text.
    """
    if spec.classes is None:
        return codes
    return _labels(spec.classes)[codes]


def _table(target: NDArray[Any], where: str | Place) -> NDArray[Any]:
    """y as (m,) or (m, K ≥ 2) of a type that can be targets."""
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target.ndim not in (1, 2) or 0 in target.shape:
        raise DataError(f"{where} has the shape {target.shape}", wanted="(rows,) or (rows, outputs), not empty")
    if target.dtype.kind not in "buifU":
        raise DataError(f"{where} holds the type {target.dtype}", wanted="bool, integers, floats or text")
    if target.dtype.kind == "U" and target.ndim == 2:
        raise DataError(f"{where} is a matrix of text", wanted="one label for each row")
    return target


def _outputs(target: NDArray[Any]) -> int:
    return target.shape[1] if target.ndim == 2 else 1


def _classes(labels: tuple[Label, ...], cost: str, m: int, where: str | Place) -> tuple[str, TargetSpec]:
    """The reading of y as classes, for the labels found in m rows."""
    squares = "" if isinstance(labels[0], str) else ", or say --cost squares if they are real targets"
    if len(labels) == 1:
        raise DataError(f"{where} holds one class only, {_shown(labels)}", wanted="two or more")
    if len(labels) > MOST_CLASSES or (m >= _FEW_ROWS and len(labels) > m / 2):
        count = f"more than {MOST_CLASSES:,}" if len(labels) > MOST_CLASSES else f"{len(labels):,}"
        raise DataError(
            f"{where} holds {count} different labels in {m:,} rows",
            wanted=f"at most {MOST_CLASSES:,} classes and no more than half as many as rows",
            do=f"name the label column{squares}",
        )
    chosen = cost if cost != "auto" else "logistic" if len(labels) == 2 else "softmax"
    if len(labels) == 2 and costs.cost(chosen).takes == "labels":
        return chosen, TargetSpec("binary", labels, 1)
    return chosen, TargetSpec("classes", labels, len(labels))


def _interpret_matrix(target: NDArray[Any], cost: str, where: str | Place) -> tuple[str, TargetSpec]:
    K = target.shape[1]
    zero_or_one = _all(target, _is_zero_or_one)
    if cost != "auto" and costs.cost(cost).takes == "distribution":
        _demand(target, _is_share, where, "shares from 0 to 1, or use --cost squares")
        _demand_rows_of_one(target, where)
        return cost, TargetSpec("classes", tuple(range(K)), K) if zero_or_one else TargetSpec("real", None, K)
    if zero_or_one:
        return "logistic" if cost == "auto" else cost, TargetSpec("multilabel", None, K)
    if cost == "auto":
        return "squares", TargetSpec("real", None, K)
    _demand(target, _is_share, where, f"what a sigmoid can reach, 0 to 1, for {cost}; or use --cost squares")
    return cost, TargetSpec("real", None, K)


def _encode_classes(target: NDArray[Any], classes: tuple[Label, ...], where: str | Place) -> NDArray[Any]:
    labels = _labels(classes)
    if (labels.dtype.kind == "U") != (target.dtype.kind == "U"):
        has = "text" if target.dtype.kind == "U" else "numbers"
        raise DataError(f"{where} holds {has}", wanted=f"the classes {_shown(classes)}")
    if labels.dtype == np.bool_:
        labels = labels.astype(np.uint8)
    codes = np.empty(target.shape[0], np.min_scalar_type(len(classes) - 1))
    for start, chunk in _chunks(target):
        place = np.searchsorted(labels, chunk).clip(max=len(classes) - 1)
        wrong = labels[place] != chunk
        if wrong.any():
            row = start + int(np.argmax(wrong))
            raise DataError(f"{row_of(where, row)} is {_label(target[row])!r}", wanted=f"one of {_shown(classes)}")
        codes[start : start + chunk.size] = place
    return codes


def _encode_one_hot(target: NDArray[Any], spec: TargetSpec, where: str | Place) -> NDArray[Any]:
    if target.shape[1] != spec.outputs:
        raise DataError(f"{where} has {target.shape[1]} columns", wanted=f"one label a row, or {spec.outputs} columns")
    _demand(target, _is_zero_or_one, where, "0 or 1")
    _demand_rows_of_one(target, where)
    return target.argmax(axis=1).astype(np.min_scalar_type(spec.outputs - 1))


def _distinct(target: NDArray[Any], where: str | Place) -> tuple[Label, ...]:
    """The different labels in ascending order; one more than `MOST_CLASSES` is as far as they are counted."""
    if target.dtype.kind == "f":
        _demand(target, lambda y: y == np.rint(y), where, "whole numbers as classes, or use --cost squares")
        _demand(target, lambda y: np.abs(y) <= np.float64(2**53), where, "labels up to 2^53, or use --cost squares")
    found = np.unique(target[:0])
    for _, chunk in _chunks(target):
        found = np.union1d(found, chunk)
        if found.size > MOST_CLASSES:
            break
    if target.dtype.kind == "f":
        found = found.astype(np.int64)
    return tuple(_label(label) for label in found)


def _label(value: Any) -> Any:
    """A NumPy scalar as a label: a Python bool, int or str (a whole float is its integer; others stay for messages)."""
    plain = value.item()
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def _labels(classes: tuple[Label, ...]) -> NDArray[Any]:
    if isinstance(classes[0], str):
        return np.array(classes, dtype=np.str_)
    if isinstance(classes[0], bool):
        return np.array(classes, dtype=np.bool_)
    return np.array(classes, dtype=np.uint64 if int(classes[-1]) > np.iinfo(np.int64).max else np.int64)


def _shown(classes: tuple[Label, ...]) -> str:
    texts = [repr(label) if isinstance(label, str) else str(label) for label in classes]
    return ", ".join(texts) if len(texts) <= 6 else f"{texts[0]}, {texts[1]}, {texts[2]} … {texts[-1]}"


def _chunks(target: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, target.shape[0], _CHUNK):
        yield start, target[start : start + _CHUNK]


def _is_zero_or_one(y: NDArray[Any]) -> NDArray[np.bool_]:
    return (y == 0) | (y == 1)


def _is_share(y: NDArray[Any]) -> NDArray[np.bool_]:
    return (y >= 0) & (y <= 1)


def _all(target: NDArray[Any], holds: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> bool:
    return all(holds(chunk).all() for _, chunk in _chunks(target))


def _demand(
    target: NDArray[Any], holds: Callable[[NDArray[Any]], NDArray[np.bool_]], where: str | Place, wanted: str
) -> None:
    """Raise DataError at the first value for which `holds` is false."""
    for start, chunk in _chunks(target):
        wrong = ~holds(chunk)
        if wrong.any():
            row, *column = (int(i) for i in np.argwhere(wrong)[0])
            of_column = f", column {column[0]}" if column else ""
            value = chunk[(row, *column)].item()
            raise DataError(f"{row_of(where, start + row)}{of_column} is {value}", wanted=wanted)


def _refuse_non_finite(target: NDArray[Any], where: str | Place) -> None:
    if target.dtype.kind == "f":
        _demand(target, np.isfinite, where, "a finite number")


def _demand_rows_of_one(target: NDArray[Any], where: str | Place) -> None:
    """Raise DataError unless every row sums to one, up to the rounding of its stored type."""
    slack = 1e-6 + target.shape[1] * (float(np.finfo(target.dtype).eps) if target.dtype.kind == "f" else 0.0)
    for start, chunk in _chunks(target):
        sums = chunk.sum(axis=1, dtype=np.float64)
        wrong = np.abs(sums - 1) > slack
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{row_of(where, start + row)} sums to {sums[row]:g}",
                wanted="rows that sum to one",
                do="use --cost logistic for several labels in a row",
            )
