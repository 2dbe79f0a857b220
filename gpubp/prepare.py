"""From a job to what training needs: the data opened and read once, the network, the objective, the optimizer."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from . import hosts, optimizers
from .allotment import allot
from .backend import Backend, choose
from .backend.ranks import connect, leaves_of, local_device
from .communicator import Communicator, Solo
from .data.class_weights import class_weights, shown
from .data.dataset import Dataset, check_weights
from .data.digits import refuse_lost_features, refuse_lost_targets
from .data.missing import RULES, look
from .data.rows import Rows
from .data.scaling import Scaling, choose_scaling
from .data.scan import scan
from .data.select import Selection, select
from .data.several import open_all, splits_of
from .data.source import ArrayRows, RowSource, StackedRows
from .data.split import validation_mask
from .data.targets import TargetSpec, encode, interpret
from .data.views import Filled, Picked
from .errors import DataError, UsageError
from .inference import Model
from .job import Job
from .network import Network
from .objective import Objective
from .optimizers import Optimizer
from .precision import on
from .tree import leaf_rows

log = logging.getLogger("gpubp")


@dataclass
class Prepared:
    """The data opened and everything built that training needs."""

    job: Job
    dataset: Dataset
    targets: TargetSpec
    rows: Rows
    network: Network
    objective: Objective
    optimizer: Optimizer
    fingerprint: str
    choices: dict[str, str]
    fill: np.ndarray | None = None
    lowest_validation: float = math.inf  # of the sessions before

    def at(self, precision: str) -> Objective:
        """The objective at another precision, from now on.

        The present one is closed before: a device that keeps rows never has them twice.

        Raises:
            UsageError: the backend does not have that precision.
            BackendError: the device fails, or its memory is too small.
        """
        backend: Backend = self.objective.backend
        self.objective.close()
        self.objective = Objective(
            self.network, self.rows, self.job.lambda_, backend=backend, precision=precision, seed=self.job.seed,
            communicator=self.objective.communicator,
        )  # fmt: skip
        return self.objective

    def close(self) -> None:
        """Release threads and files."""
        self.objective.close()
        self.rows.source.close()

    def model(self, Theta: np.ndarray, **more: Any) -> Model:
        """The model with this Θ."""
        return Model(
            self.network, Theta, self.rows.scaling, self.targets, self.job.lambda_,
            job=asdict(self.job), fill=self.fill, **more,
        )  # fmt: skip


def array_dataset(X: Any, y: Any, weights: Any = None) -> Dataset:
    """Arrays from Python as a data set.

    Raises:
        DataError: X is not a matrix, or y or the weights have another number of rows.
    """
    source = ArrayRows(as_array(X, "X"))
    target = as_array(y, "y")
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target.ndim == 0 or len(target) != source.m:
        raise DataError(f"y of shape {target.shape} beside {source.m} rows of X", wanted="as many rows as X has")
    w = None if weights is None else as_weights(weights, source.m)
    return Dataset("", source, target, w, "X", "y", None if w is None else "weights", None, None)


def as_array(values: Any, what: str) -> np.ndarray:
    """What the user gave as an array.

    Raises:
        DataError: rows of different lengths.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{what} is no array: {error}", wanted="rows of one length") from None
    if array.dtype == object and array.size and all(isinstance(v, str) for v in array.flat):
        return array.astype(np.str_)  # text as pandas has it
    return array


def as_weights(values: Any, m: int) -> np.ndarray:
    """Row weights that the user gave, (m,) float64.

    Raises:
        DataError: another shape, no numbers, or numbers that cannot be weights.
    """
    weights = as_array(values, "weights")
    if weights.shape != (m,) or weights.dtype.kind not in "buif":
        raise DataError(f"weights of shape {weights.shape} and type {weights.dtype}", wanted=f"{m} numbers")
    weights = weights.astype(np.float64)
    check_weights(weights, "weights")
    return weights


def prepare(
    job: Job,
    dataset: Dataset | None = None,
    *,
    scaling: Scaling | None = None,
    targets: TargetSpec | None = None,
    fill: np.ndarray | None = None,
    precision: str | None = None,
    scanned: Callable[[int, int], None] | None = None,
    roles: Callable[[int], np.ndarray] | None = None,
    communicator: Communicator | None = None,
) -> Prepared:
    """Open the data, read it once, and build network, objective and optimizer.

    Args:
        dataset: arrays already opened, instead of the file that the job names.
        scaling, targets, fill: those of the run that goes on; found in the data where absent.
        precision: the one that the run goes on at; the job's where absent.
        scanned: called with (rows done, rows in all) during the first reading.
        roles: in place of the job's `validation`, what the rows that are not kept for validation by the file are for:
            given their number m, (m,) integers, 1 for training, −1 for validation, 0 for neither: those are left out.
        communicator: the other processes, which prepare the same. What is wrong with one is raised by all.

    Raises:
        GpubpError: whatever is wrong with the job or the data, before anything was written.
    """
    ranks = communicator or Solo()
    own = hosts.cores(ranks)  # all are asked, whatever one of them was told
    threads = job.threads or own
    with ExitStack() as opened:  # nothing stays open where something is wrong
        with ranks.together():
            optimizer = optimizers.make(job.optimizer, **job.options)
            device = local_device(ranks, job.device)
            backend, why = choose(job.backend, device=device, threads=threads, kernel=job.kernel, blas=job.blas)
            precision = precision or job.precision
            on(backend, precision)  # one that it lacks is refused before the data are read
            dataset, held_out, job = _open(job, dataset, opened)
            given = _given(job, dataset, held_out, targets, precision, roles)
            if job.patience is not None and given.mask is None:
                raise UsageError(
                    f"patience {job.patience} without rows for validation",
                    wanted="rows that are held out: early stopping looks at their cost",
                    do="train with --validation 0.2, or give the file a val split",
                )
            spec = given.spec
            network = Network((given.source.features, *job.hidden, spec.outputs), job.activation, given.cost)
            optimizer.refuse(network.parameters)
        way = connect(ranks, backend)
        why += f"; {way}" if way else ""
        hosts.refuse_other_rows(ranks, given.source, given.labels, given.weights)
        budget = hosts.memory(ranks) if job.memory is None else job.memory
        optimizer, taken, shortened = allot(optimizer, network.P, budget, backend, fresh=scaling is None, ranks=ranks)
        budget = max(0, budget - _beside(given, dataset, held_out) - taken)
        m = given.source.m
        progress = None if scanned is None else (lambda done: scanned(done, m))
        dropped, rule = 0, RULES.get(job.missing)
        if rule is not None and given.source.dtype.kind == "f":
            gaps = look(
                given.source, training=given.training, weights=given.weights, column_names=dataset.column_names,
                progress=progress, threads=threads, ranks=ranks,
            )  # fmt: skip
            fill = np.asarray(getattr(gaps, rule.fill) if fill is None else fill)
            given.source = Filled(given.source, fill)
            if rule.drops and gaps.rows is not None:
                dropped = int(gaps.rows.sum())
                given.weights = np.where(gaps.rows, 0.0, given.weights_or_ones)
        source, labels, weights = given.source, given.labels, given.weights
        weighted = weights is not None or given.mask is not None or job.class_weight is not None
        about: Any = {"stored": source.dtype, "labels": labels, "weighted": weighted}
        leaves = leaves_of(backend, network, source.m, precision, **about)
        first, until = (leaf_rows(leaf, leaves, source.m)[0] for leaf in ranks.own(leaves))
        statistics, kept = scan(
            source,
            training=given.training,
            weights=weights,
            budget=budget,
            feature_names=dataset.column_names,
            progress=progress,
            threads=threads,
            compiled=backend.choice.get("kernel") == "compiled",
            own=(first, until),
            ranks=ranks,
        )
        with ranks.together():
            scaling = scaling or choose_scaling(job.scale, statistics, source.dtype)
            refuse_lost_features(source, statistics, scaling, precision, dataset.column_names)
            weighed = _weigh_classes(given, job)
            w, v = given.training_and_validation_weights()
            rows = Rows(source, kept, scaling, labels, w, v, first=first, until=until)
            objective = Objective(
                network, rows, job.lambda_, backend=backend, precision=precision, seed=job.seed, communicator=ranks
            )
        hosts.refuse_other_machines(ranks, objective.conditions())
        all_kept = sum(ranks.gather(len(rows.kept)))
        if backend.kind == "gpu":
            sent = until - first - objective.resident_rows
            why += f"; {objective.kernel} passes, " + (f"{sent:,} rows sent in each" if sent else "all rows stay on it")
        remark = optimizer.remark(objective)
        choices = {
            "backend": why,
            "cost": f"{network.cost}{' (chosen from y)' if job.cost == 'auto' else ''}",
            "scale": scaling.describe(),
            "rows": _describe_rows(rows, all_kept, given.mask, dropped),
            **hosts.describe(ranks, objective.leaves),
            **weighed,
            **({"optimizer": f"{job.optimizer}: {remark}"} if remark else {}),
            **shortened,
            "network": "-".join(map(str, network.sizes)) + f", {network.parameters:,} parameters",
        }
        opened.pop_all()
        return Prepared(
            replace(job, cost=network.cost, **backend.choice), dataset, spec, rows, network, objective, optimizer,
            _fingerprint(statistics.fingerprint, rows), choices, fill,
        )  # fmt: skip


def _open(job: Job, dataset: Dataset | None, opened: ExitStack) -> tuple[Dataset, Dataset | None, Job]:
    """The rows of the job, those that a file keeps for validation, and the job with its columns as they are stored."""
    held_out: Dataset | None = None
    if dataset is None:
        names: dict[str, Any] = {"weights": job.weights, "allow": job.allow}
        dataset = open_all(job.data, x=job.x, y=job.y, split=job.split, **names)
        opened.callback(dataset.close)
        if dataset.source.slow:
            log.warning("%s", dataset.source.slow)
        if job.validation == 0 and not (job.x or job.y) and dataset.split == "train":
            kept = splits_of(job.data).get("val", [])
            if kept:
                held_out = open_all(kept, split="val", **names)
                opened.callback(held_out.close)
    selection = Selection.of(job.select)
    if selection != Selection():
        job = replace(job, select=selection.absolute(dataset).texts())
        dataset = select(dataset, selection, rows=True)
        held_out = held_out and select(held_out, selection, rows=False)
    return dataset, held_out, job


@dataclass
class _Given:
    """Rows, and what is known of each before any was looked at.

    Attributes:
        labels, spec: y as the network is given it, and what that means.
        cost: the job's, or the one that y suggests.
        weights: (m,) row weights; None where each is 1.
        mask: (m,) bool, the rows for validation; None where there are none.
    """

    source: RowSource
    labels: np.ndarray
    spec: TargetSpec
    cost: str
    weights: np.ndarray | None
    mask: np.ndarray | None

    @property
    def training(self) -> np.ndarray | None:
        """(m,) bool, the rows to train on; None for all."""
        return None if self.mask is None else ~self.mask

    @property
    def weights_or_ones(self) -> Any:
        return 1.0 if self.weights is None else self.weights

    def training_and_validation_weights(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What each row weighs in J and in the validation cost; None for 1 each, or where there is no such cost."""
        if self.mask is None:
            return self.weights, None
        held = np.where(self.mask, self.weights_or_ones, 0.0) if self.mask.any() else None
        return np.where(self.mask, 0.0, self.weights_or_ones), held


def _given(
    job: Job, dataset: Dataset, held_out: Dataset | None, targets: TargetSpec | None, precision: str,
    roles: Callable[[int], np.ndarray] | None,
) -> _Given:  # fmt: skip
    """The rows of the job and those held out as one, for what `prepare` is told of them.

    Raises:
        DataError, UsageError: y is missing, or cannot be what it is to be.
    """
    source, weights, where = dataset.source, dataset.weights, dataset.y_place
    target = labels_of(dataset)
    cost, spec = interpret(target, job.cost, where=where) if targets is None else (job.cost, targets)
    labels = encode(target, spec, where=where)
    refuse_lost_targets(labels, spec, precision, where)
    role = None if roles is None else roles(source.m)
    mask = validation_mask(source.m, job.validation, job.seed) if role is None else role < 0
    if role is not None and not role.all():
        picked = np.flatnonzero(role)
        source, labels, mask = Picked(source, picked), labels[picked], role[picked] < 0
        weights = None if weights is None else weights[picked]
    if held_out is not None:
        labels = np.concatenate([labels, encode(labels_of(held_out), spec, where=held_out.y_place)])
        mask = np.arange(len(labels)) >= source.m
        if weights is not None or held_out.weights is not None:
            weights = np.concatenate([np.ones(source.m) if weights is None else weights, _weights(held_out)])
        source = StackedRows([source, held_out.source])
    return _Given(source, labels, spec, cost, weights, mask)


def _weigh_classes(given: _Given, job: Job) -> dict[str, str]:
    """Multiply the weights by those of the classes, and say which; nothing where none were asked for."""
    if job.class_weight is None:
        return {}
    training = given.training
    counted = given.weights if training is None else np.where(training, given.weights_or_ones, 0.0)
    each = class_weights(job.class_weight, given.labels, given.spec, counted)
    of_class = each[given.labels]
    given.weights = of_class if given.weights is None else given.weights * of_class
    return {"classes": f"weigh {shown(each, given.spec)}"}


def _beside(given: _Given, dataset: Dataset, held_out: Dataset | None) -> int:
    """Bytes that are kept for each row besides x, and come out of the same budget: memory must not grow with m.

    y as the user has it and as the network is given it; the float64 weights in J and in the validation cost, which a
    pass has once more in its own precision.
    """
    labels, mask = given.labels, given.mask
    arrays = [labels, *(array for part in (dataset, held_out) if part for array in (part.target, part.weights))]
    columns = (2 if mask is not None else 1 if given.weights is not None else 0) * 2
    flags = 0 if mask is None else 2  # the mask and its complement
    return sum(a.nbytes for a in arrays if a is not None) + len(labels) * (8 * columns + flags)


def labels_of(dataset: Dataset) -> np.ndarray:
    if dataset.target is None:
        raise DataError(
            f"no y in {dataset.path or 'the arrays'}", wanted="labels or targets", do="name the dataset with --y"
        )
    return dataset.target


def _weights(dataset: Dataset) -> np.ndarray:
    return np.ones(dataset.source.m) if dataset.weights is None else dataset.weights


def _describe_rows(rows: Rows, kept: int, mask: np.ndarray | None, dropped: int) -> str:
    text = f"{rows.m:,} rows of {rows.features} features ({rows.source.dtype}), {kept:,} kept in memory"
    text += "" if mask is None else f"; {int(mask.sum()):,} of them for validation"
    return f"{text}; {dropped:,} with a missing value dropped" if dropped else text


def _fingerprint(content: str, rows: Rows) -> str:
    """Of X, the labels and the weights: other data cannot be taken for the same."""
    digest = hashlib.blake2b(content.encode(), digest_size=16)
    for array in (rows.labels, rows.weights, rows.validation):
        digest.update(b"-" if array is None else np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
