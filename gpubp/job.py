"""What was asked for: every word of it, as it is stored in each checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from .errors import UsageError


@dataclass(frozen=True)
class Job:
    """What was asked for.

    Attributes:
        data: the HDF5 file, or "" for arrays given from Python.
        x, y, weights, split: names of datasets and the split, or None to find them.
        hidden: units of the hidden layers.
        activation, cost: see `gpubp.activation` and `gpubp.cost`; cost "auto" follows from y.
        lambda_: λ.
        optimizer, options: its name and its hyperparameters that differ from their defaults.
        iterations: the limit, counted from the beginning of the run.
        precision, backend, device: how and where passes are computed.
        validation: the fraction of rows held out, chosen by a hash of (seed, row).
        scale: "auto", "none", "standard" or "255".
        seed: of the initial Θ and the validation rows.
        memory: bytes for rows kept in memory, or None for a share of what is free.
        checkpoint_every: "60" seconds, or "10it" iterations.
        keep: how many checkpoints stay in the folder.
    """

    data: str = ""
    x: str | None = None
    y: str | None = None
    weights: str | None = None
    split: str | None = None
    hidden: tuple[int, ...] = (100,)
    activation: str = "sigmoid"
    cost: str = "auto"
    lambda_: float = 1.0
    optimizer: str = "lbfgs"
    options: dict[str, Any] = field(default_factory=dict)
    iterations: int = 100
    precision: str = "fp32"
    backend: str = "auto"
    device: int = 0
    validation: float = 0.0
    scale: str = "auto"
    seed: int = 0
    memory: int | None = None
    checkpoint_every: str = "60"
    keep: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(int(s) for s in self.hidden))
        if self.iterations < 0:
            raise UsageError(f"{self.iterations} iterations", wanted="0 or more")
        if self.keep < 1:
            raise UsageError(f"{self.keep} checkpoints to keep", wanted="1 or more")
        interval(self.checkpoint_every)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Job:
        """The job as a checkpoint stores it; fields it does not have keep their defaults."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in known})


def interval(text: str) -> tuple[float, int]:
    """ "60" or "60s": every 60 seconds; "10it": every 10 iterations. Returns (seconds, iterations), one of them 0.

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
