"""The Python door: `cost_and_gradient`, `train`, `sweep`, `learning_curve`, `load`, `export`.

Files are another room, which `train` and `load` enter when they are called.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import choose
from .data.rows import Rows
from .data.scaling import Scaling
from .data.source import ArrayRows
from .errors import DataError, UsageError
from .network import Network
from .objective import Objective
from .prepare import as_array, as_weights

if TYPE_CHECKING:
    from .choosing.learning_curve import LearningCurve
    from .choosing.sweep import Sweep
    from .data.dataset import Dataset
    from .exporting import Exported
    from .inference import Model
    from .job import Job
    from .training import Callback

__all__ = ["cost_and_gradient", "export", "learning_curve", "load", "sweep", "train"]


def cost_and_gradient(
    network: Network,
    Theta: Any,
    X: Any,
    y: Any,
    *,
    lambda_: float = 0.0,
    weights: Any = None,
    precision: str = "fp64",
    backend: str = "cpu",
    device: int = 0,
    threads: int | None = None,
    kernel: str = "auto",
    blas: str = "auto",
    leaves: int | None = None,
    block_rows: int | None = None,
) -> tuple[float, np.ndarray]:
    """J(Θ) and ∇J(Θ) on arrays: the mathematics, without files, scaling or training.

    Args:
        network: the layers, the activation and the cost.
        Theta: the flat vector, (P,), as `network.pack` makes it from Ng's matrices.
        X: (m, s_1) numbers, used as they are.
        y: (m,) class numbers 0…K−1 (for one output: 0 or 1, or real targets), or an (m, K) matrix.
        lambda_: λ; the bias is left out.
        weights: (m,) row weights w, not negative; sums are divided by Σw instead of m.
        precision: "fp64" or "fp32"; a GPU also has "tf32x3", "tf32" and "bf16", see `gpubp.precision`.
        backend, device: "cpu", "gpu" or "auto", and which GPU.
        kernel, blas: how the CPU computes, see `gpubp.backend.choose`.
        threads, leaves, block_rows: how the sum is shared out; threads never change a bit of the result.

    Returns:
        J, and ∇J as a flat float64 vector; `network.unpack` gives the matrices D^(l).

    Raises:
        UsageError: Θ of another length, λ < 0, a precision or backend that is unknown or not there.
        DataError: X or y whose shape or values do not fit the network.

    Examples:
        >>> import numpy as np, gpubp
        >>> net = gpubp.Network((2, 2, 4), activation="sigmoid", cost="logistic")
        >>> T1, T2 = (np.arange(1.0, 7).reshape(3, 2).T / 10, np.arange(7.0, 19).reshape(3, 4).T / 10)
        >>> X = np.cos([[1, 2], [3, 4], [5, 6]])
        >>> J, gradient = gpubp.cost_and_gradient(net, net.pack([T1, T2]), X, [3, 1, 2], lambda_=4)
        >>> round(J, 6)
        19.473637
    """
    if not isinstance(Theta, np.ndarray) or Theta.shape != (network.P,) or Theta.dtype.kind not in "fiu":
        shape = f"of shape {Theta.shape}" if isinstance(Theta, np.ndarray) else f"that is a {type(Theta).__name__}"
        raise UsageError(f"Theta {shape}", wanted=f"({network.P},) numbers", do="make it with network.pack([...])")
    Theta = np.array(Theta, np.float64)
    source = ArrayRows(as_array(X, "X"))
    labels = _labels(network, as_array(y, "y"), source.m)
    w = None if weights is None else as_weights(weights, source.m)
    chosen, _ = choose(backend, device=device, threads=threads, kernel=kernel, blas=blas)
    rows = Rows(source, source.array, Scaling("none", None, None), labels, w)
    objective = Objective(
        network, rows, lambda_, backend=chosen, precision=precision, leaves=leaves, block_rows=block_rows
    )
    gradient = np.zeros(network.P)
    try:
        return objective.value_and_gradient(Theta, gradient), gradient
    finally:
        objective.close()


def train(
    data: Any,
    y: Any = None,
    *,
    out: str | Path | None = None,
    weights: Any = None,
    start: Any = None,
    overwrite: bool = False,
    resume: str = "never",
    inexact: bool = False,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Model:
    """Train a network on a file or on arrays.

    Args:
        data: the path of an HDF5 file, a pattern such as ``"part-*.h5"``, or a list of them, whose rows are one data
            set; or X as an (m, s_1) array.
        y: labels or targets where X is an array; the name of a dataset where `data` is a file.
        out: a run folder for checkpoints and history; without one nothing is written.
        weights: row weights, or the name of a dataset.
        start: what Θ begins with: a file, a checkpoint or a run folder (see `gpubp.theta_files.read`), a model, or Ng's
            matrices. Hidden layers and activation are then its own where they are not among the options.
        overwrite: whether a run in `out` may be replaced.
        resume: "auto": where `out` holds this very run, go on with it, to the same bits; else begin it.
        inexact: with it, go on although conditions differ on which the bits depend.
        callbacks: called as ``callback(progress, state)`` after each iteration; True ends the run.
        options: the other fields of `gpubp.job.Job`: hidden, activation, cost, lambda_, optimizer, iterations, select,
            missing, class_weight, …

    Returns:
        The trained model; ``model.ending`` says why training ended.

    Raises:
        UsageError: an option that does not exist or cannot be meant.
        DataError: data that cannot be used.
        CheckpointError: `out` holds a run, and neither `overwrite` nor `resume` says what to do with it.
        MismatchError: with `resume`, a run of another job, on other data or under other conditions.

    Examples:
        Two inputs, of one sign or not: no line tells them apart, eight hidden units do.

        >>> import numpy as np, gpubp
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
        >>> model = gpubp.train(X, y, hidden=(8,), lambda_=0.01, iterations=500)
        >>> model.ending["kind"]
        'converged'
        >>> model.predict([[2, 1], [2, -1]]).tolist()
        ['same', 'other']
    """
    from . import run
    from .theta_files import begin_with

    initial, options = (None, options) if start is None else begin_with(start, options)
    job, dataset = _asked(data, y, weights, options)
    return run.start(
        job, out, dataset=dataset, overwrite=overwrite, resume=resume, inexact=inexact, callbacks=callbacks,
        initial=initial,
    )  # fmt: skip


def sweep(
    data: Any,
    y: Any = None,
    *,
    lambdas: Sequence[float] | None = None,
    networks: Sequence[Sequence[int]] = (),
    out: str | Path | None = None,
    weights: Any = None,
    cv: int = 0,
    validation: float | None = None,
    decrease: float = 1e-3,
    warm: bool = True,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Sweep:
    """Choose λ, and the network where there are several, by the cost on rows held out.

    Args:
        data, y, weights, options: as for `train`; `iterations` (here 400) are the most of each training.
        lambdas: each λ to try; by default 0, 0.01, 0.03, … 10.
        networks: the hidden layers of each network to try, such as ``[(25,), (50,)]``; else ``hidden``.
        out: a folder for finished trainings: called again with it, the sweep goes on there.
        cv: K of a K-fold cross-validation; 0 for one part held out.
        validation: the fraction held out; None for the rows that the file keeps for it, or else 0.2.
        decrease: a training ends where 5 iterations take J down by no more than this fraction of it.
        warm: whether each training begins with the Θ of the next larger λ.

    Returns:
        A record: ``candidates``, ``best``, ``verdict.text``, ``next`` (the training to go on with), ….

    Raises:
        GpubpError: as `train`; or `out` holds another sweep.

    Examples:
        >>> import numpy as np, gpubp
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
        >>> found = gpubp.sweep(X, y, lambdas=[0.01, 1, 100], hidden=(8,), iterations=50)
        >>> found.best.lambda_
        0.01
        >>> print(found.next)
        gpubp.train(X, y, hidden=(8,), lambda_=0.01, iterations=50, decrease=0.001)
    """
    from .choosing import sweep as room

    job, dataset = _asked(data, y, weights, {"iterations": 400, **options})
    if networks and "hidden" in options:
        raise UsageError("hidden beside networks", wanted="one of the two")
    if "lambda_" in options:
        raise UsageError("option lambda_", wanted="lambdas, a list")
    return room.sweep(
        job, room.LAMBDAS if lambdas is None else lambdas, networks=networks, out=out, dataset=dataset, folds=cv,
        validation=validation, decrease=decrease, warm=warm, callbacks=callbacks,
    )  # fmt: skip


def learning_curve(
    data: Any,
    y: Any = None,
    *,
    points: int = 8,
    least: int | None = None,
    repeats: int = 1,
    out: str | Path | None = None,
    weights: Any = None,
    validation: float | None = None,
    decrease: float = 1e-3,
    warm: bool = False,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> LearningCurve:
    """The costs of training on more and more rows, and on rows held out: would more rows help?

    Args:
        data, y, weights, options: as for `train`; `iterations` (here 400) are the most of each training.
        points: how many parts of the rows, each about the same factor larger than the one before.
        least: rows of the smallest part; by default a hundredth.
        repeats: how many times, with other parts and another initial Θ.
        out, validation, decrease: as for `sweep`.
        warm: whether each training begins with the Θ of the smaller part.

    Returns:
        A record: ``parts``, ``verdict.text``, ``next``, ….

    Raises:
        GpubpError: as `train`; or `out` holds something else.

    Examples:
        >>> import numpy as np, gpubp
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
        >>> curve = gpubp.learning_curve(X, y, points=3, least=20, hidden=(8,), lambda_=0.01, iterations=50)
        >>> [part.rows for part in curve.parts]
        [20, 56, 157]
        >>> print(curve.verdict.text.splitlines()[-1])  # doctest: +ELLIPSIS
        - from 56 to 157 rows the validation cost fell from 0... to 0...: more rows would still help
    """
    from .choosing import learning_curve as room

    job, dataset = _asked(data, y, weights, {"iterations": 400, **options})
    return room.learning_curve(
        job, points, least=least, repeats=repeats, out=out, dataset=dataset, validation=validation, decrease=decrease,
        warm=warm, callbacks=callbacks,
    )  # fmt: skip


def _asked(data: Any, y: Any, weights: Any, options: dict[str, Any]) -> tuple[Job, Dataset | None]:
    """The job, and the data where they are arrays and no files."""
    from .job import Job
    from .prepare import array_dataset

    named = [data] if isinstance(data, str | os.PathLike) else data if isinstance(data, list | tuple) else []
    from_file = len(named) > 0 and all(isinstance(one, str | os.PathLike) for one in named)
    # what a file's datasets are called means nothing for arrays
    known = (
        set(Job.__dataclass_fields__)
        - {"data", "y", "weights", "asked", "start"}
        - (set() if from_file else {"x", "split", "allow"})
    )
    if unknown := set(options) - known:
        raise UsageError(f"option {', '.join(sorted(unknown))}", wanted=f"one of {', '.join(sorted(known))}")
    if from_file:
        return Job(data=tuple(os.fspath(one) for one in named), y=y, weights=weights, **options), None
    if y is None:
        raise UsageError("X without y", wanted="labels or targets: train(X, y)")
    return Job(**options), array_dataset(data, y, weights)


def load(path: str | Path) -> Model:
    """The model of a run folder (its newest sound checkpoint), of a checkpoint file, or of a file of `export` whose
    name ends in .npz, .mat, .safetensors or .pt.

    Raises:
        CheckpointError: nothing there that can be read; the message says why for each file tried.
        DataError: such a file that is damaged, or holds Θ alone.

    Examples:
        >>> import numpy as np, gpubp
        >>> X, y = np.arange(6.0).reshape(6, 1), [0, 0, 0, 1, 1, 1]
        >>> trained = gpubp.train(X, y, hidden=(2,), out="run")
        >>> model = gpubp.load("run")
        >>> bool((model.Theta == trained.Theta).all())
        True
    """
    from .loading import load as from_run
    from .theta_files import SUFFIXES, read

    if Path(path).suffix.lower() not in SUFFIXES or Path(path).is_dir():
        return from_run(path)
    if (model := read(path).model) is None:
        raise DataError(f"{path} holds matrices alone", wanted="a file of gpubp export, which says what they mean")
    return model


def export(
    model: Model | str | Path, path: str | Path, to: str | None = None, *, precision: str | None = None,
    overwrite: bool = False,
) -> Exported:  # fmt: skip
    """Write a model, whole, into a file that other programs read. It is loaded again and compared first.

    Args:
        model: a model, or a run folder or a file that `load` takes.
        to: "onnx", "safetensors", "npz", "mat" or "torch"; by default what `path` ends in.
        precision: of the numbers, "fp32" or "fp64"; by default fp64 in npz and mat, else fp32.
        overwrite: whether a file of that name may be replaced.

    Raises:
        UsageError: a format, or a package for it, that there is not.
        DataError: the file exists; a model that does not fit the format.
        CheckpointError: the run cannot be read, or the file not be written.

    Examples:
        >>> import numpy as np, gpubp
        >>> X, y = np.arange(6.0).reshape(6, 1), ["few", "few", "few", "many", "many", "many"]
        >>> model = gpubp.train(X, y, hidden=(2,), iterations=20)
        >>> path = gpubp.export(model, "model.npz").path
        >>> gpubp.load(path).predict([[5]]).tolist() == model.predict([[5]]).tolist()
        True
    """
    from .exporting import export as write

    found = load(model) if isinstance(model, str | os.PathLike) else model
    return write(found, path, to, precision=precision, overwrite=overwrite)


def _labels(network: Network, y: np.ndarray, m: int) -> np.ndarray:
    """y as the pass takes it: codes for one-hot outputs, or an (m, K) matrix."""
    if y.ndim not in (1, 2) or len(y) != m:
        raise DataError(f"y of shape {y.shape} beside {m} rows of X", wanted="one entry per row")
    if y.ndim == 1 and network.K == 1:
        y = y[:, None]
    if y.ndim == 2:
        if y.shape[1] != network.K:
            raise DataError(f"y with {y.shape[1]} columns", wanted=f"{network.K}, one for each output")
        if y.dtype.kind not in "buif" or not np.isfinite(y).all():
            raise DataError(
                f"y of type {y.dtype} with values that are no finite numbers", wanted="0, 1 or real targets"
            )
        if network.J.takes != "numbers" and ((y < 0) | (y > 1)).any():
            raise DataError(f"y from {y.min():g} to {y.max():g}", wanted=f"0 to 1 for the cost {network.cost}")
        return y.astype(np.float64)
    codes = y.astype(np.int64, casting="unsafe") if y.dtype.kind in "iubf" else None
    if codes is None or not np.array_equal(codes, y):
        raise DataError(
            f"y of type {y.dtype} with values that are no class numbers", wanted=f"whole numbers 0…{network.K - 1}"
        )
    if codes.size and (codes.min() < 0 or codes.max() >= network.K):
        row = int(((codes < 0) | (codes >= network.K)).argmax())
        raise DataError(f"class number {y[row]} in row {row}", wanted=f"0…{network.K - 1}")
    return codes.astype(np.uint32)
