"""A file, a checkpoint or a run folder as Ng's matrices, and as a model where it says enough or is told the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import is_checkpoint
from ..data.guard import regular_file
from ..data.scaling import Scaling
from ..data.targets import TargetSpec, interpret
from ..errors import DataError, UsageError
from ..inference import Model
from ..loading import load
from ..network import Network
from .conventions import matrices, vector
from .description import VECTORS, described
from .stores import store_of

SUFFIXES = (".npz", ".mat", ".safetensors", ".pt")  # of files of `gpubp.exporting` that can be read again


@dataclass(frozen=True)
class Found:
    """What a file holds.

    Attributes:
        path: the file.
        Theta: Ng's matrices, float64, (s_{l+1}, s_l + 1), the bias in column 0.
        model: the whole model, out of an export, a checkpoint or a run folder; None where the file has Θ alone.
    """

    path: Path
    Theta: list[np.ndarray]
    model: Model | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """s_1 … s_L, as the matrices have them."""
        return (self.Theta[0].shape[1] - 1, *(matrix.shape[0] for matrix in self.Theta))


def is_run(path: Path) -> bool:
    """Whether this is a run folder with a checkpoint, or a checkpoint."""
    return (path.is_dir() and any(path.glob("checkpoint-*.h5"))) or is_checkpoint(path)


def read(path: str | Path) -> Found:
    """Θ out of a file of any kind.

    An .npz, a .mat of any version, Octave's text, an HDF5 file or JSON (``{"Theta": [[[…], …], …]}`` or
    ``{"Theta1": [[…], …], …}``) with Theta1, Theta2, … or scikit-learn's coefs_0, intercepts_0, …; a safetensors file
    or a PyTorch state_dict of Linear layers; what `gpubp export` wrote; a checkpoint or a run folder.

    Raises:
        DataError: the file is damaged or none of these; there are no such matrices, one is missing, too large, not of
            finite real numbers, or they do not chain: the message names it.
        CheckpointError: a run folder or a checkpoint that cannot be read.
    """
    path = Path(path)
    if is_run(path):
        model = load(path)
        return Found(path, model.matrices, model)
    path = regular_file(path)
    with store_of(path) as store:
        Theta = matrices(path, store)
        if store.about is None:
            return Found(path, Theta)
        beside = any(name in store.names for name in VECTORS)

        def stored(name: str) -> np.ndarray:
            if name not in store.names:
                raise KeyError(name)
            return vector(path, store, name)

        return Found(path, Theta, described(str(path), store.about, Theta, stored if beside else None))


def model_of(
    found: Found, *, activation: str | None = None, cost: str | None = None, classes: str | None = None, y: Any = None
) -> Model:
    """The model that a file means.

    A file with Θ alone has no scaling; its network is sigmoid with the logistic cost where nothing else is said, and
    its outputs are the classes that are said, those of y, or 0 … K−1.

    Args:
        activation, cost: of a file that does not say it.
        classes: names or numbers, one for each output, separated by commas; ``1:10`` for 1 … 10.
        y: (m,) or (m, K) labels or targets that tell the classes where `classes` does not.

    Raises:
        UsageError: something is said that the file says itself, or that cannot be meant.
        DataError: y cannot be what the outputs stand for.
    """
    if found.model is not None:
        options = {"activation": activation, "cost": cost, "classes": classes}
        if said := [f"--{name}" for name, value in options.items() if value is not None]:
            raise UsageError(f"{', '.join(said)} with {found.path}", wanted="none: the file has its own")
        return found.model
    network, Theta = Network(found.sizes, activation or "sigmoid", cost or "logistic"), list(found.Theta)
    if classes is not None:
        targets, order = _named(network, classes)
        Theta[-1] = Theta[-1][order]
    else:
        targets = _plain(network) if y is None else _of_labels(network, y, str(found.path))
    return Model(network, network.pack(Theta), Scaling("none", None, None), targets)


def _spec(network: Network, classes: tuple[Any, ...]) -> TargetSpec:
    return TargetSpec("binary" if network.K == 1 else "classes", classes, network.K)


def _plain(network: Network, first: int = 0) -> TargetSpec:
    """Classes that are numbers in a row; for a regression numbers."""
    if network.J.takes == "numbers":
        return TargetSpec("real", None, network.K)
    return _spec(network, tuple(range(first, first + max(2, network.K))))


def _named(network: Network, text: str) -> tuple[TargetSpec, list[int]]:
    """The classes of --classes, ascending as all classes are kept, and the outputs in that order."""
    count = max(2, network.K)
    wanted = f"{count} different ones in the order of the outputs, such as 1:{count} or cat,dog,…"
    if network.J.takes == "numbers":
        raise UsageError(f"--classes with the cost {network.cost}", wanted="none: its outputs are numbers")
    first, colon, last = text.partition(":")
    labels: list[Any] = [part.strip() for part in text.split(",")]
    if colon and _is_whole(first) and _is_whole(last) and int(last) - int(first) == count - 1:
        labels = list(range(int(first), int(last) + 1))
    elif all(map(_is_whole, labels)):
        labels = list(map(int, labels))
    if len(labels) != count or len(set(labels)) != count or "" in labels:
        outputs = f"{network.K} output{'s' if network.K > 1 else ''}"
        raise UsageError(f"--classes {text[:40]} for {outputs}", wanted=wanted)
    order = sorted(range(count), key=labels.__getitem__)
    if network.K == 1 and order != [0, 1]:
        raise UsageError(f"--classes {text[:40]}", wanted="ascending order: the one output speaks for the second")
    return _spec(network, tuple(labels[k] for k in order)), order if network.K > 1 else [0]


def _is_whole(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal() and text.isascii() and len(text) < 16


def _of_labels(network: Network, y: Any, where: str) -> TargetSpec:
    """What the outputs stand for, by the labels of some rows: as many as there are outputs, or some of 0 … K−1 or of
    1 … K (Octave counts from 1)."""
    target = np.asarray(y)
    _, spec = interpret(target, network.cost)
    if spec.outputs == network.K:
        return spec
    if spec.classes is None:
        raise DataError(f"y of {spec.outputs} columns for the {network.K} outputs of {where}", wanted="as many")
    labels, K = spec.classes, max(2, network.K)
    whole = all(type(label) is int for label in labels)
    fits = [first for first in (0, 1) if whole and int(labels[0]) >= first and int(labels[-1]) < first + K]
    if len(fits) != 1:
        shown = f"{labels[0]} … {labels[-1]}"
        why = f"{len(labels)} labels, {shown}, for the {network.K} outputs of {where}"
        raise UsageError(why, wanted="to know which output is which class", do=f"say --classes 0:{K - 1} or 1:{K}")
    return _plain(network, fits[0])
