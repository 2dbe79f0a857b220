"""What was asked for: every word of it, as it is stored in each checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from .data import class_weights, missing
from .data.memory import parse_size
from .data.select import Selection
from .errors import UsageError
from .stopping import Stopping

_TYPES: dict[str, Any] = {
    "str": str,
    "str | None": (str, type(None)),
    "int": Integral,
    "int | None": (Integral, type(None)),
    "float": Real,
    "float | None": (Real, type(None)),
    "bool": bool,
    "dict[str, Any]": dict,
}
# What may be another in a line that goes on with a run: where the data lie now, what ends it, what it may use, what it
# keeps. No bit of a step depends on it.
CHANGES = (
    "data", "allow", "iterations", "decrease", "evaluations", "passes", "seconds", "target", "patience", "min_delta",
    "climb", "threads", "memory", "checkpoint_every", "keep",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What was asked for.

    Attributes:
        data: the HDF5 file, or several files or patterns whose rows are one data set; "" for arrays given from Python.
        x, y, weights, split: names of datasets and the split, or None to find them.
        allow: the folder in which the sources of virtual datasets may lie; None to refuse those.
        select: rows and columns to take, see `gpubp.data.select`.
        missing: "error", "mean" or "drop": what is done about NaNs in X, see `gpubp.data.missing`.
        class_weight: "balanced", or weights by label; None for 1. See `gpubp.data.class_weights`.
        hidden: units of the hidden layers.
        activation, cost: see `gpubp.activation` and `gpubp.cost`; cost "auto" follows from y.
        lambda_: λ.
        optimizer, options: its name and its hyperparameters that differ from their defaults.
        iterations: the limit, counted from the beginning of the run.
        decrease, evaluations, passes, seconds, target, patience, min_delta: what else ends it, see
            `gpubp.stopping.Stopping`.
        precision: of the first passes, see `gpubp.precision`.
        climb: whether a run that stalls goes on at the next finer precision.
        backend, device: where passes are computed.
        kernel, blas, threads: how they are computed, see `gpubp.backend.choose`.
        validation: the fraction of rows held out, chosen by a hash of (seed, row).
        scale: "auto", "none", "standard" or "255".
        seed: of the initial Θ and the validation rows.
        memory: bytes for rows, labels and weights kept in memory (or text like "1GB"), None: a share of what is free.
        checkpoint_every: "60" seconds, or "10it" iterations.
        keep: how many checkpoints stay in the folder.
        start: the digest of the Θ that the run began with, where that was not drawn by `seed`; see `digest`.
        asked: the fields that must stay as they are, as they were asked for; see `as_asked`.
    """

    data: str | tuple[str, ...] = ""
    x: str | None = None
    y: str | None = None
    weights: str | None = None
    split: str | None = None
    hidden: tuple[int, ...] = (100,)
    activation: str = "sigmoid"
    cost: str = "auto"
    lambda_: float = 1.0
    optimizer: str = "klbfgs"
    options: dict[str, Any] = field(default_factory=dict)
    iterations: int = 100
    precision: str = "fp32"
    climb: bool = True
    backend: str = "auto"
    device: int = 0
    kernel: str = "auto"
    blas: str = "auto"
    threads: int | None = None
    validation: float = 0.0
    scale: str = "auto"
    seed: int = 0
    memory: int | None = None
    checkpoint_every: str = "60"
    keep: int = 3
    allow: str | None = None
    select: tuple[str, ...] = ()
    missing: str = "error"
    class_weight: str | dict[str, float] | None = None
    decrease: float | None = None
    evaluations: int | None = None
    passes: float | None = None
    seconds: float | None = None
    target: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    start: str | None = None
    asked: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hidden = (self.hidden,) if isinstance(self.hidden, Integral) else self.hidden
        if not isinstance(hidden, Sequence) or not all(isinstance(s, Integral) and int(s) > 0 for s in hidden):
            raise UsageError(f"hidden = {self.hidden!r}", wanted="units of each hidden layer, such as (256, 128)")
        object.__setattr__(self, "hidden", tuple(int(s) for s in hidden))
        self._check_data()
        if isinstance(self.memory, str):
            object.__setattr__(self, "memory", parse_size(self.memory))
        if isinstance(self.checkpoint_every, Real):
            object.__setattr__(self, "checkpoint_every", f"{self.checkpoint_every:g}")
        for f in fields(self):
            value, wanted = getattr(self, f.name), _TYPES.get(str(f.type))
            if wanted and (isinstance(value, bool) != (wanted is bool) or not isinstance(value, wanted)):
                shown = " ".join(repr(value).split())
                raise UsageError(f"{f.name} = {shown:.60}", wanted=str(f.type))
        if self.iterations < 0:
            raise UsageError(f"{self.iterations} iterations", wanted="0 or more")
        if self.keep < 1:
            raise UsageError(f"{self.keep} checkpoints to keep", wanted="1 or more")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}", wanted="0 or more")
        interval(self.checkpoint_every)
        _ = self.stopping

    @property
    def stopping(self) -> Stopping:
        """What ends the run besides its optimizer and the iterations."""
        return Stopping.of(vars(self))

    def _check_data(self) -> None:
        """Which data, which of their rows and columns, and what is made of them."""
        for name in ("data", "select"):
            value = getattr(self, name)
            given = () if value is None else (value,) if isinstance(value, str | os.PathLike) else value
            if not isinstance(given, Sequence) or not all(isinstance(text, str | os.PathLike) for text in given):
                raise UsageError(f"{name} = {' '.join(repr(value).split()):.60}", wanted="text, or a list of texts")
            texts = tuple(os.fspath(text) for text in given)
            if name == "data" and len(texts) < 2:
                object.__setattr__(self, name, texts[0] if texts else "")
            else:
                object.__setattr__(self, name, texts)
        Selection.of(self.select)
        if self.missing not in missing.KINDS:
            raise UsageError(f"missing = {self.missing!r}", wanted=f"one of {', '.join(missing.KINDS)}")
        asked = self.class_weight
        if isinstance(asked, str):
            object.__setattr__(self, "class_weight", class_weights.parse(asked))
        elif isinstance(asked, Mapping):
            object.__setattr__(self, "class_weight", class_weights.checked(asked))
        elif asked is not None:
            raise UsageError(f"class_weight = {asked!r:.60}", wanted="balanced, or weights by label")

    @property
    def files(self) -> tuple[str, ...]:
        """The data as a list of files and patterns; empty for arrays."""
        return self.data if isinstance(self.data, tuple) else (self.data,) if self.data else ()

    def as_asked(self) -> Job:
        """The job with a note of itself, before "auto" and the like become what they mean here: whoever goes on with
        the run by the same words is compared with these."""
        return replace(self, asked={name: getattr(self, name) for name in fixed()})

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Job:
        """The job as a checkpoint stores it; fields it does not have keep their defaults."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in known})


def digest(matrices: Sequence[np.ndarray]) -> str:
    """Of Ng's matrices, (s_{l+1}, s_l + 1) float64, hexadecimal: two Θ of which one number differs have two."""
    found = hashlib.blake2b(digest_size=16)
    for Theta in matrices:
        found.update(repr(Theta.shape).encode() + np.ascontiguousarray(Theta, "<f8").tobytes())
    return found.hexdigest()


def fixed() -> tuple[str, ...]:
    """The fields of a job on which the model or its bits depend: a run keeps them from its beginning to its end."""
    return tuple(f.name for f in fields(Job) if f.name not in CHANGES and f.name != "asked")


def interval(text: str) -> tuple[float, int]:
    """Read "60" or "60s", every 60 seconds, or "10it", every 10 iterations, as (seconds, iterations), one of them 0.

    Raises:
        UsageError: neither.
    """
    try:
        every = (0.0, int(text[:-2])) if text.endswith("it") else (float(text.removesuffix("s")), 0)
        if max(every) > 0:
            return every
    except ValueError:
        pass
    raise UsageError(f"checkpoint interval '{text}'", wanted="seconds such as 60, or iterations such as 10it")
