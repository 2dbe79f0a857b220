"""The example to explain: a row of a data file as a run's model sees it, or numbers that a user typed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.targets import TargetSpec, encode
from ..errors import DataError, UsageError
from ..inference import Model, decide
from ..model_rows import first_rows, rows_for
from ..network import Network
from ..pictures import Picture
from .record import Explanation, Names, Sign, explain


def row_of(
    model: Model,
    dataset: Dataset,
    row: int,
    *,
    sign: Sign = "loss",
    network: str = "",
    picture: Picture | None = None,
) -> Explanation:
    """A row of a data set, as `gpubp.model_rows.open_for` opens it, through a model: its scaling, its classes, its
    means for what is missing.

    Args:
        row: from 0.
        network: where the model comes from, for people.

    Raises:
        UsageError: there is no such row.
        DataError: no y, or one that the model has no class for; a value that is not finite; one that is missing, and
            the model has learned from whole rows only.
    """
    m = dataset.source.m
    if not 0 <= row < m:
        raise UsageError(f"row {row}", wanted=f"one of the {m:,} rows, 0 … {m - 1}")
    split = f" ({dataset.split})" if dataset.split else ""
    example = f"row {row:,}{split}" + (f" of {dataset.path}" if dataset.path else "")
    one = replace(first_rows(dataset, 1, start=row, gaps=model.fill is not None), weights=None)
    stored = np.empty((1, one.source.features), one.source.dtype)
    one.source.read(0, 1, stored)
    example += _missing(model, stored[0], example)
    rows = rows_for(model, one, labelled=True)
    assert rows.labels is not None
    x = np.empty((1, rows.features), rows.source.dtype)
    rows.source.read(0, 1, x)
    names = Names(features=dataset.column_names, example=example, network=network, picture=picture)
    return _through(model, x[0], rows.labels, sign, names)


def typed(
    model: Model, x: np.ndarray, y: str, *, sign: Sign = "loss", network: str = "", picture: Picture | None = None
) -> Explanation:
    """Numbers that a user typed, through a model.

    Args:
        x: (s_1,) features as in the data file.
        y: a class as the user wrote it in the data, or the K targets or labels, separated by commas.

    Raises:
        DataError: another number of values than the model has, or no class of the model; as `row_of` for NaNs.
    """
    if x.shape != model.network.sizes[:1]:
        raise DataError(f"x of {x.size} numbers", wanted=f"{model.network.sizes[0]}, as the model was trained on")
    target = _target(y, model.targets)
    example = f"x as given, y = {y}"
    names = Names(example=example + _missing(model, x, "x as given"), network=network, picture=picture)
    x = np.where(np.isnan(x), model.fill, x) if model.fill is not None else x
    return _through(model, x, encode(target, model.targets, where="--y"), sign, names)


def bare(
    network: Network,
    Theta: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    *,
    sign: Sign = "loss",
    name: str = "",
    picture: Picture | None = None,
) -> Explanation:
    """Numbers that a user typed, through matrices without a run: nothing is scaled, outputs have no names.

    Args:
        y: (K,) numbers, or (1,): the output, from 1, that should be 1 while the others are 0.

    Raises:
        DataError: another number of values than there are inputs or outputs; an output that there is not.
    """
    if y.shape == (1,) and network.K > 1:
        if y[0] not in range(1, network.K + 1):
            wanted = f"the number of the one that is 1, 1 … {network.K}, or all {network.K} of them"
            raise DataError(f"y = {y[0]:g} for {network.K} outputs", wanted=wanted)
        y = (np.arange(1, network.K + 1) == y[0]).astype(np.float64)
    if y.size and network.J.takes != "numbers" and ((y < 0) | (y > 1)).any():
        raise DataError(f"y from {y.min():g} to {y.max():g}", wanted=f"0 to 1 for the cost {network.cost}")
    if network.J.takes == "distribution" and abs(y.sum() - 1) > 1e-6:
        raise DataError(f"y that sums to {y.sum():g}", wanted=f"1 for the cost {network.cost}")
    names = Names(example="x as given", network=name, picture=picture)
    return explain(network, Theta, x, y, sign=sign, names=names)


def _through(model: Model, x: np.ndarray, labels: np.ndarray, sign: Sign, names: Names) -> Explanation:
    targets, network = model.targets, model.network
    y = labels.astype(np.float64).reshape(-1)
    if targets.classes is not None and labels.ndim == 1:  # codes
        y = (labels[0] == (np.arange(network.K) if network.K > 1 else np.ones(1))).astype(np.float64)
    outputs = tuple(map(str, targets.classes)) if targets.classes is not None and network.K > 1 else None
    a1 = model.scaling.apply(x[None])[0]
    found = explain(network, model.Theta, a1, y, x=x.astype(np.float64), sign=sign)
    answer = decide(targets, found.a[network.L][None])[0]
    truth = decide(targets, y[None])[0]
    return replace(found, names=replace(names, outputs=outputs, truth=_shown(truth), answer=_shown(answer)))


def _missing(model: Model, x: np.ndarray, what: str) -> str:
    """Which features are NaN, and that the model fills them; "" where none is, or where the model refuses them all."""
    gaps = np.flatnonzero(np.isnan(x)) + 1 if x.dtype.kind == "f" and model.fill is not None else np.zeros(0, int)
    if not gaps.size:
        return ""
    named = ", ".join(f"x_{j}" for j in gaps[:8]) + ", …" * (len(gaps) > 8)
    if model.drops:
        raise DataError(
            f"{what}: {named} missing (NaN)",
            wanted="a whole row: the model was trained with --missing drop",
            do="take another one",
        )
    return f"; {named} missing, filled as in the training"


def _target(text: str, targets: TargetSpec) -> Any:
    if targets.classes is not None:
        found = [one for one in targets.classes if str(one) == text.strip()]
        if not found:
            shown = ", ".join(map(str, targets.classes[:20]))
            raise DataError(f"class '{text}'", wanted=f"one of {shown}{', …' if len(targets.classes) > 20 else ''}")
        return np.array(found[:1])
    return numbers(text, "--y")[None]


def numbers(text: str, what: str) -> np.ndarray:
    """Numbers separated by commas or spaces, (n,) float64.

    Raises:
        UsageError: something else.
    """
    try:
        return np.array([float(part) for part in text.replace(",", " ").split()])
    except ValueError:
        raise UsageError(f"{what} '{text[:60]}'", wanted="numbers separated by commas") from None


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return ", ".join(_shown(one) for one in value)
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
